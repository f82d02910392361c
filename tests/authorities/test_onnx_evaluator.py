"""ONNX' evaluator tells apart what its node vectors do not: each gate from the others, and each alignment."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tests.authorities.onnx_attention import attention_calls
from tests.authorities.onnx_evaluator import ask, evaluate
from tests.authorities.onnx_recurrent import GATES, recurrent_calls
from tests.authorities.onnx_vectors import Vector


def layer(operator: str, **attributes: Any) -> Vector:
    """One layer in both directions, N = 2 and M = 3, with a bias."""
    rng, rows = np.random.default_rng(7), len(GATES[operator]) * 2
    shapes = {"X": (4, 2, 3), "W": (2, rows, 3), "R": (2, rows, 2), "B": (2, 2 * rows)}
    inputs = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return evaluate(operator, {"hidden_size": 2, "direction": "bidirectional", **attributes}, inputs, ("Y", "Y_h"))


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_only_one_order_of_gates_agrees(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vector, right = layer(operator), GATES[operator]
    ask(vector, recurrent_calls)
    for order in permutations(right):
        if order != right:
            monkeypatch.setitem(GATES, operator, order)
            with pytest.raises(AssertionError, match="> bound"):
                ask(vector, recurrent_calls)


@pytest.mark.parametrize("after", [0, 1])
def test_the_reset_before_and_after_the_product_are_told_apart(after: int) -> None:
    vector = layer("GRU", linear_before_reset=after)
    ask(vector, recurrent_calls)
    with pytest.raises(AssertionError, match="> bound"):
        ask(replace(vector, attributes={**vector.attributes, "linear_before_reset": 1 - after}), recurrent_calls)


def test_the_two_directions_of_rnn_are_told_apart() -> None:
    vector = layer("RNN")
    ask(vector, recurrent_calls)
    with pytest.raises(AssertionError, match="> bound"):
        ask(replace(vector, inputs={**vector.inputs, "W": vector.inputs["W"][::-1]}), recurrent_calls)


@pytest.mark.parametrize(
    "change", [{"is_causal": 0}, {"left_window_size": 2}, {"softcap": 0.0}, {"qk_matmul_output_mode": 1}]
)
def test_what_hides_keys_is_told_apart(change: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    inputs = {name: rng.normal(size=(1, 2, size, 3)) for name, size in (("Q", 4), ("K", 5), ("V", 5))}
    attributes = {"is_causal": 1, "left_window_size": 1, "softcap": 1.5, "qk_matmul_output_mode": 3}
    vector = evaluate("Attention", attributes, inputs, ("Y", "", "", "qk_matmul_output"))
    ask(vector, attention_calls)
    with pytest.raises(AssertionError, match=r"> bound|infinities"):
        ask(replace(vector, attributes={**vector.attributes, **change}), attention_calls)


@pytest.mark.parametrize("right", [0, 1])
def test_the_seen_keys_of_a_padded_cache_end_at_the_last_real_one(right: int) -> None:
    rng = np.random.default_rng(7)
    inputs = {name: rng.normal(size=(2, 1, size, 3)) for name, size in (("Q", 2), ("K", 5), ("V", 5))}
    lengths = np.array([3, 4])
    vector = evaluate("Attention", {"is_causal": 1}, {**inputs, "nonpad_kv_seqlen": lengths}, ("Y",))
    ask(vector, attention_calls)
    wrong = replace(vector, inputs={**vector.inputs, "nonpad_kv_seqlen": lengths + (1 if right else -1)})
    with pytest.raises(AssertionError, match="> bound"):
        ask(wrong, attention_calls)
