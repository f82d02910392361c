import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
inputs = [onnx.helper.make_tensor_value_info(n, BOOL if n == "mask" else FLOAT, None) for n in ("Q", "K", "V", "mask")]
outputs = [onnx.helper.make_tensor_value_info("Y", FLOAT, None)]
node = onnx.helper.make_node("Attention", ["Q", "K", "V", "mask"], ["Y"], is_causal=1)
graph = onnx.helper.make_graph([node], "attention", inputs, outputs)
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
q = k = np.zeros((1, 1, 2, 1), np.float32)
v = np.array([1, 3], np.float32).reshape(1, 1, 2, 1)
for shape in ((1, 2), (2, 2)):
    out = ReferenceEvaluator(model).run(None, {"Q": q, "K": k, "V": v, "mask": np.ones(shape, bool)})[0]
    print("mask of True, shape", shape, "beside is_causal:", out.ravel().tolist())
