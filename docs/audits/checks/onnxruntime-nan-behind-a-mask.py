import numpy as np
import onnx
import onnxruntime

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
inputs = [onnx.helper.make_tensor_value_info(n, BOOL if n == "mask" else FLOAT, None) for n in ("Q", "K", "V", "mask")]
outputs = [onnx.helper.make_tensor_value_info("Y", FLOAT, None)]
node = onnx.helper.make_node("Attention", ["Q", "K", "V", "mask"], ["Y"])
graph = onnx.helper.make_graph([node], "attention", inputs, outputs)
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
q = k = np.ones((1, 1, 2, 1), np.float32)
v = np.array([1, np.nan], np.float32).reshape(1, 1, 2, 1)
hidden = np.array([[True, False], [True, False]])
session = onnxruntime.InferenceSession(model.SerializeToString())
print(session.run(None, {"Q": q, "K": k, "V": v, "mask": hidden})[0].ravel().tolist())
