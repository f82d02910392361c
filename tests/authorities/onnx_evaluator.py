"""ONNX' own evaluator of its operators, on drawn examples.

The node vectors leave some questions open: those of LSTM have one number for all weights, so they do not know one gate from
another. The package's evaluator, written in NumPy by the authors of the specification, answers for any numbers, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from attnspec.reference.attention import attention, attention_weights, scores
from attnspec.reference.bidirectional import bidirectional
from attnspec.reference.gru import gru_cell
from attnspec.reference.lstm import lstm_cell
from attnspec.reference.recurrent import recurrent
from attnspec.reference.rnn import rnn_cell
from attnspec.reference.unroll import unroll
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.onnx_attention import attention_calls
from tests.authorities.onnx_recurrent import GATES, recurrent_calls
from tests.authorities.onnx_vectors import Translation, Vector

OPSET = 25
ORDER = {  # inputs of a node are told apart by their places
    "Attention": ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"),
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}


def evaluate(operator: str, attributes: dict[str, Any], inputs: dict[str, Any], outputs: tuple[str, ...]) -> Vector:
    """What the evaluator gives, as a vector. An empty name stands for an output that is not asked for."""
    node = onnx.helper.make_node(
        operator, [name if name in inputs else "" for name in ORDER[operator]], list(outputs), **attributes
    )
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    infos = [onnx.helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in inputs.items()]
    asked = [name for name in outputs if name]
    results = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in asked]
    graph = onnx.helper.make_graph([node], operator, infos, results)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    got = ReferenceEvaluator(model).run(asked, inputs)
    stored = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}  # numbers are rounded to float32
    return Vector(f"drawn {operator}", operator, stored, inputs, dict(zip(asked, got, strict=True)))


def ask(vector: Vector, calls: Translation) -> None:
    """Raises unless the reference gives the outputs of the vector, within the bound of float64."""
    for call in calls(vector):
        agrees(call.got, call.function, *call.args, **call.options)


def run_recurrent(draw: Draw, operator: str) -> None:
    """One layer with drawn weights, directions, layout and initial states, all outputs."""
    sizes = {letter: draw(st.integers(1, 4)) for letter in "BTMN"}
    B, T, M, N = sizes.values()
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    direction, layout = draw(st.sampled_from(["forward", "reverse", "bidirectional"])), draw(st.integers(0, 1))
    R, gates = 1 + (direction == "bidirectional"), len(GATES[operator])
    attributes = {"hidden_size": N, "direction": direction, "layout": layout}
    if operator == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    x, states = rng.normal(size=(T, B, M)), {name: rng.normal(size=(R, B, N)) for name in ("initial_h", "initial_c")}
    inputs = {
        "X": x.swapaxes(0, 1) if layout else x,
        "W": rng.normal(size=(R, gates * N, M)) / np.sqrt(M),
        "R": rng.normal(size=(R, gates * N, N)) / np.sqrt(N),
    }
    if draw(st.booleans()):
        inputs["B"] = rng.normal(size=(R, 2 * gates * N))
    for name in states:
        if name in ORDER[operator]:
            inputs[name] = states[name].swapaxes(0, 1) if layout else states[name]
    outputs = ("Y", "Y_h", "Y_c") if operator == "LSTM" else ("Y", "Y_h")
    ask(evaluate(operator, attributes, inputs, outputs), recurrent_calls)


@authority("I04", "ONNX LSTM, reference evaluator", of=(recurrent, bidirectional, unroll, lstm_cell))
def evaluated_lstm(draw: Draw) -> None:
    """One layer forward, in reverse or both, from any state: outputs and final states."""
    run_recurrent(draw, "LSTM")


@authority("I04", "ONNX GRU, reference evaluator", of=(recurrent, bidirectional, unroll, gru_cell))
def evaluated_gru(draw: Draw) -> None:
    """One layer forward, in reverse or both, from any state, reset before or after: outputs and final states."""
    run_recurrent(draw, "GRU")


@authority("I04", "ONNX RNN, reference evaluator", of=(recurrent, bidirectional, unroll, rnn_cell))
def evaluated_rnn(draw: Draw) -> None:
    """One layer forward, in reverse or both, from any state: outputs and final states."""
    run_recurrent(draw, "RNN")


@authority("I27", "ONNX Attention, reference evaluator", of=(attention, scores, attention_weights), examples=50)
def evaluated_attention(draw: Draw) -> None:
    """Groups, masks, causality with and without cache, padding, windows, scale and soft cap: outputs, scores and weights."""
    B, G, group, T, S, D, E = (draw(st.integers(1, 3 if letter in "BGg" else 5)) for letter in "BGgTSDE")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = {"Q": (B, G * group, T, D), "K": (B, G, S, D), "V": (B, G, S, E)}
    inputs: dict[str, Any] = {name: rng.normal(size=shape) for name, shape in sizes.items()}
    attributes: dict[str, Any] = {"is_causal": draw(st.integers(0, 1)), "qk_matmul_output_mode": draw(st.integers(1, 3))}
    # The evaluator takes the root of scale in float32 whatever the inputs are: only of squares is it exact. In mode 0 it
    # gives capped scores, where the specification has those before the cap; without a cap mode 1 is the same as mode 0.
    for name, values in (("scale", [0.25, 2.25]), ("softcap", [0.7, 20.0])):
        if draw(st.booleans()):
            attributes[name] = draw(st.sampled_from(values))
    attributes |= {f"{side}_window_size": draw(st.sampled_from([-1, -1, 0, 1, 3])) for side in ("left", "right")}
    cache = draw(st.sampled_from(["none", "joined", "padded"]))
    past = draw(st.integers(0, 4)) if cache == "joined" else 0
    if cache == "joined":
        inputs |= {"past_key": rng.normal(size=(B, G, past, D)), "past_value": rng.normal(size=(B, G, past, E))}
    if cache == "padded":
        inputs["nonpad_kv_seqlen"] = rng.integers(1, S + 1, size=B)
    kind = draw(st.sampled_from(["none", "boolean", "number"]))
    if kind != "none":
        mask = rng.random((B, G * group, T, S + past)) < 0.7  # some rows are empty
        inputs["attn_mask"] = mask if kind == "boolean" else np.where(mask, rng.normal(size=mask.shape), -np.inf)
    caches = ("present_key", "present_value") if cache == "joined" else ("", "")
    ask(evaluate("Attention", attributes, inputs, ("Y", *caches, "qk_matmul_output")), attention_calls)
