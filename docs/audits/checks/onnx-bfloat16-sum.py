import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

BFLOAT16 = onnx.TensorProto.BFLOAT16
info = [onnx.helper.make_tensor_value_info(n, BFLOAT16, None) for n in ("Q", "K", "V", "Y")]
node = onnx.helper.make_node("Attention", ["Q", "K", "V"], ["Y"])
graph = onnx.helper.make_graph([node], "attention", info[:3], info[3:])
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
for keys in (256, 512, 4096):
    x = np.ones((1, 1, keys, 1), ml_dtypes.bfloat16)
    out = ReferenceEvaluator(model).run(None, {"Q": x[:, :, :1], "K": x, "V": x})[0]
    print("mean of", keys, "values that are 1:", out.astype(float).item())
print("np.sum of 4096 ones in bfloat16:", float(np.ones(4096, ml_dtypes.bfloat16).sum()))
