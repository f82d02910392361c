"""Every ONNX node vector is run or left out for a true reason, and a wrong reading of an operator is seen to fail."""

from __future__ import annotations

import importlib
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.authorities import onnx_vectors
from tests.authorities.agreement import agrees, measuring
from tests.authorities.onnx_vectors import MODULES, NotInReference, Vector, check, left_out, names_of, translate, vectors

for family in ("attention", "layers", "recurrent"):
    importlib.import_module(f"tests.authorities.onnx_{family}")

LEFT_OUT = left_out()
RUN = [name for name in vectors() if name not in LEFT_OUT]
TABLES = tomllib.loads(Path(onnx_vectors.__file__).with_name("onnx_left_out.toml").read_text())


@pytest.mark.parametrize("name", RUN)
def test_vector(name: str) -> None:
    with measuring() as measured:
        check(vectors()[name])
    assert measured or vectors()[name].operator == "OneHot", "a comparison of rounded numbers measures an error"


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_what_is_left_out_exists_and_is_refused_for_the_reason_given(name: str) -> None:
    with pytest.raises(NotInReference) as caught:
        translate(vectors()[name])
    assert str(caught.value) == LEFT_OUT[name]


def test_no_vector_is_listed_twice() -> None:
    listed = [name for table in TABLES["left_out"] for name in table["vectors"]]
    assert len(listed) == len(set(listed))


def test_every_operator_is_translated_and_most_vectors_are_run() -> None:
    assert set(onnx_vectors.TRANSLATIONS) == set(MODULES)
    for operator in MODULES:
        of_operator = [name for name, vector in vectors().items() if vector.operator == operator]
        assert len(names_of(operator)) > 0.8 * len(of_operator) > 0
    assert len(LEFT_OUT) < 0.1 * len(vectors())


def test_no_vector_of_these_operators_is_made_elsewhere_and_no_other_operator_exists_twice() -> None:
    cases = onnx_vectors.every_case()
    assert set(onnx_vectors.read(cases)) == set(vectors())
    kinds = {case.model.graph.node[0].op_type for case in cases if len(case.model.graph.node) == 1}
    passed_over = {table["name"] for table in TABLES["operators"]}
    assert passed_over <= kinds
    assert passed_over.isdisjoint(MODULES)
    assert all(table["reason"] for table in TABLES["operators"])


def test_random_numbers_of_other_tests_are_untouched() -> None:
    np.random.seed(5)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    vectors.cache_clear()
    vectors()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]


# A wrong reading of a vector, or None where both readings are the same.
Misreading = Callable[[Vector], Vector | None]


def attribute(name: str, change: Callable[[Any], Any]) -> Misreading:
    """The attribute, where it is given, with another value."""
    return lambda vector: with_attribute(name, change)(vector) if name in vector.attributes else None


def with_attribute(name: str, change: Callable[[Any], Any]) -> Misreading:
    """The attribute, None where it is not given, with another value."""
    return lambda vector: replace(vector, attributes={**vector.attributes, name: change(vector.attributes.get(name))})


def without(name: str) -> Misreading:
    """The attribute or input, where it is given, as if it were not."""

    def misread(vector: Vector) -> Vector | None:
        if name not in {**vector.attributes, **vector.inputs}:
            return None
        attributes = {key: value for key, value in vector.attributes.items() if key != name}
        return replace(vector, attributes=attributes, inputs={k: v for k, v in vector.inputs.items() if k != name})

    return misread


def given(name: str, change: Callable[[Any], Any]) -> Misreading:
    """The input, where it is given and changed by it, with other values."""

    def misread(vector: Vector) -> Vector | None:
        if name not in vector.inputs or np.array_equal(change(vector.inputs[name]), vector.inputs[name]):
            return None
        return replace(vector, inputs={**vector.inputs, name: change(vector.inputs[name])})

    return misread


def bottom_right(vector: Vector) -> Vector | None:
    """Causal without a cache, as if the last query were aligned with the last key."""
    if not vector.attributes.get("is_causal") or {"past_key", "nonpad_kv_seqlen"} & set(vector.inputs):
        return None
    (T, S), B = (vector.inputs[name].shape[-2] for name in "QK"), len(vector.inputs["Q"])
    return None if T == S else replace(vector, inputs={**vector.inputs, "nonpad_kv_seqlen": np.full(B, S)})


def tiled_heads(vector: Vector) -> Vector | None:
    """Query head h reads key head h % G."""
    attributes, q = vector.attributes, vector.inputs["Q"]
    H = attributes.get("q_num_heads", q.shape[1])
    G = attributes.get("kv_num_heads", vector.inputs["K"].shape[1])
    if G in (1, H):
        return None
    order = np.arange(H).reshape(H // G, G).T.reshape(-1)  # the heads that read key head 0, then 1, ...
    if q.ndim == 4:
        return replace(vector, inputs={**vector.inputs, "Q": q[:, order]})
    mixed = q.reshape(*q.shape[:2], H, -1)[:, :, order].reshape(q.shape)
    return replace(vector, inputs={**vector.inputs, "Q": mixed})


def flipped_direction(vector: Vector) -> Vector | None:
    other = {b"reverse": b"forward", b"forward": b"reverse"}.get(vector.attributes.get("direction", b"forward"))
    steps = vector.inputs["X"].shape[1 if vector.attributes.get("layout") else 0]
    return replace(vector, attributes={**vector.attributes, "direction": other}) if other and steps > 1 else None


def next_gate(name: str, gates: int) -> Misreading:
    """The rows of each gate taken for those of the one before it."""
    return given(name, lambda array: np.roll(array, array.shape[1] // gates, axis=1))


WRONG: dict[str, list[Misreading]] = {
    "Attention is_causal": [without("is_causal")],
    "Attention alignment": [bottom_right],
    "Attention cache": [given("nonpad_kv_seqlen", lambda n: n - 1)],
    "Attention order of the cache": [given("past_key", lambda k: k[:, :, ::-1])],
    "Attention left window": [attribute("left_window_size", lambda w: w + 1 if w >= 0 else 1)],
    "Attention right window": [attribute("right_window_size", lambda w: w + 1)],
    "Attention mask": [given("attn_mask", lambda mask: np.roll(mask, 1, axis=-1))],
    "Attention scale": [attribute("scale", lambda scale: scale * 1.01)],
    "Attention softcap": [attribute("softcap", lambda cap: cap * 1.01)],
    "Attention heads": [tiled_heads],
    "RotaryEmbedding pairs": [with_attribute("interleaved", lambda interleaved: 1 - (interleaved or 0))],
    "RotaryEmbedding sign": [given("sin_cache", lambda sin: -sin)],
    "RotaryEmbedding positions": [given("position_ids", lambda ids: ids[:, ::-1])],
    "LayerNormalization epsilon": [attribute("epsilon", lambda eps: eps * 1.01)],
    "LayerNormalization bias": [without("B")],
    "LayerNormalization centre": [lambda v: replace(without("B")(v) or v, operator="RMSNormalization")],
    "RMSNormalization epsilon": [attribute("epsilon", lambda eps: eps * 1.01)],
    "RMSNormalization centre": [lambda v: replace(v, operator="LayerNormalization")],
    "GRU gates": [next_gate("W", 3), next_gate("R", 3)],
    "GRU reset": [with_attribute("linear_before_reset", lambda _: 1)],
    "GRU direction": [flipped_direction],
    "GRU bias": [without("B")],
    "LSTM direction": [flipped_direction],
    "LSTM bias": [without("B")],
    "RNN direction": [flipped_direction],
    "RNN bias": [without("B")],
    "Softmax axis": [attribute("axis", lambda axis: axis - 1)],
    "LogSoftmax axis": [attribute("axis", lambda axis: axis - 1)],
    "Gelu form": [lambda v: replace(v, attributes={} if v.attributes else {"approximate": b"tanh"})],
    "SoftmaxCrossEntropyLoss padding": [attribute("ignore_index", lambda _: None)],
    "SoftmaxCrossEntropyLoss weights": [without("w")],
    "SoftmaxCrossEntropyLoss classes": [given("x", lambda x: x[:, ::-1])],
    "OneHot values": [given("values", lambda pair: pair[::-1])],
    "OneHot ids": [given("indices", lambda ids: ids - 1)],
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_reading_is_refused(what: str) -> None:
    operator, verdicts = what.partition(" ")[0], Counter[str]()
    for misread in WRONG[what]:
        for name in names_of(operator):
            wrong = misread(vectors()[name])
            if wrong is not None:
                verdicts[_verdict(wrong, vectors()[name])] += 1
    assert verdicts["refused"] > 0
    assert not verdicts["accepted"], verdicts


def _verdict(wrong: Vector, right: Vector) -> str:
    try:
        check(wrong)
    except AssertionError:
        return "refused"
    except ValueError:
        return "no such example"
    try:  # where the numbers of a vector do not depend on the reading, as a single query that sees all keys
        for one, other in zip(translate(right), translate(wrong), strict=True):
            agrees(one.function(*one.args, **one.options), other.function, *other.args, **other.options)
    except AssertionError:
        return "accepted"
    return "the same"


def test_the_vectors_of_lstm_cannot_tell_one_gate_from_another() -> None:
    """Their weights are one number throughout: the order of gates is asked of the evaluator, in onnx_evaluator.py."""
    for name in names_of("LSTM"):
        inputs = vectors()[name].inputs
        for weights in (inputs["W"], inputs["R"]):
            for direction in weights:
                assert np.unique(direction).size == 1
