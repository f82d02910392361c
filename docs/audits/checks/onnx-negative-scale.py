import warnings

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

warnings.simplefilter("ignore")
FLOAT = onnx.TensorProto.FLOAT
info = [onnx.helper.make_tensor_value_info(n, FLOAT, None) for n in ("Q", "K", "V", "Y")]
node = onnx.helper.make_node("Attention", ["Q", "K", "V"], ["Y"], scale=-1.0)
graph = onnx.helper.make_graph([node], "attention", info[:3], info[3:])
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
x = np.ones((1, 1, 2, 1), np.float32)
print("scale = -1:", ReferenceEvaluator(model).run(None, {"Q": x, "K": x, "V": x})[0].ravel().tolist())
