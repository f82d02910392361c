import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

DOUBLE = onnx.TensorProto.DOUBLE
info = [onnx.helper.make_tensor_value_info(n, DOUBLE, None) for n in ("Q", "K", "V", "Y")]
random = np.random.default_rng(0)
q, k, v = random.standard_normal((3, 1, 1, 3, 4))
for scale in (4.0, 2.0):
    node = onnx.helper.make_node("Attention", ["Q", "K", "V"], ["Y"], scale=scale)
    graph = onnx.helper.make_graph([node], "attention", info[:3], info[3:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    out = ReferenceEvaluator(model).run(None, {"Q": q, "K": k, "V": v})[0]
    weights = np.exp(scale * q @ k.swapaxes(-1, -2))
    right = weights / weights.sum(-1, keepdims=True) @ v
    print(f"scale = {scale}, float64: error above 1e-14: {bool(abs(out - right).max() > 1e-14)}")
