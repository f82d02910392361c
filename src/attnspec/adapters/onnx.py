"""ONNX: the operator `Attention` by the reference evaluator of onnx, or by onnxruntime, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from attnspec.adapters import Adapter, Array, needed
from attnspec.errors import UsageError

OPERATOR = "Attention"
OPSET = 23
BACKENDS = ("default", "reference", "onnxruntime")
WEIGHTS = 3  # mode of qk_matmul_output: after the softmax

ELEMENTS = {"bool": "BOOL", "float64": "DOUBLE", "float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


@lru_cache(maxsize=512)
def _model(dtypes: tuple[str, ...], weights: bool, attributes: tuple[tuple[str, Any], ...]) -> Any:
    """A model of the one operator: three or four inputs of these dtypes, the weights beside the output if asked."""
    import onnx

    inputs = ["Q", "K", "V", "attn_mask"][: len(dtypes)]
    outputs = ["Y", "", "", "weights"] if weights else ["Y"]
    kinds = [getattr(onnx.TensorProto, ELEMENTS[dtype]) for dtype in dtypes]
    info = [onnx.helper.make_tensor_value_info(n, kind, None) for n, kind in zip(inputs, kinds, strict=True)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(OPERATOR, inputs, outputs, **dict(attributes))],
        "attention",
        info,
        [onnx.helper.make_tensor_value_info(n, kinds[0], None) for n in outputs if n],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)


@lru_cache(maxsize=512)
def _runner(backend: str, dtypes: tuple[str, ...], weights: bool, attributes: tuple[tuple[str, Any], ...]) -> Any:
    model = _model(dtypes, weights, attributes)
    if backend == "onnxruntime":
        onnxruntime = needed("onnxruntime", f"onnx:{OPERATOR}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what it says of a refusal is in the exception too
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model)


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    backend = options.get("backend", "default")
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend}: onnx:{name} has {', '.join(BACKENDS)}")
    needed("onnx.reference", f"onnx:{name}")

    def attention(
        q: Array,
        k: Array,
        v: Array,
        attn_mask: Array = None,
        is_causal: bool = False,
        scale: float | None = None,
        softcap: float = 0.0,
        return_weights: bool = False,
    ) -> Any:
        given = {"Q": q, "K": k, "V": v} | ({} if attn_mask is None else {"attn_mask": attn_mask})
        attributes: dict[str, Any] = {"is_causal": int(is_causal), "softcap": float(softcap or 0.0)}
        if scale is not None:
            attributes["scale"] = float(scale)
        if return_weights:
            attributes["qk_matmul_output_mode"] = WEIGHTS
        dtypes = tuple(str(x.dtype) for x in given.values())
        runner = _runner(backend, dtypes, return_weights, tuple(attributes.items()))
        found = runner.run(None, {n: np.ascontiguousarray(x) for n, x in given.items()})
        return (found[0], found[-1]) if return_weights else found[0]

    return attention, {"contract": "onnx-23", "arrays": "numpy", "layout": "bhtd"}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    chosen = {"backend": options["backend"]} if "backend" in options else {}
    return f"from attnspec.adapters.onnx import ADAPTER\nattention, _ = ADAPTER.load({name!r}, {chosen!r})", "attention"


ADAPTER = Adapter(
    name="onnx",
    targets={OPERATOR: f"ai.onnx Attention, opset {OPSET}, by onnx.reference; -o backend=onnxruntime"},
    options=("backend",),
    load=_load,
    expression=_expression,
)
