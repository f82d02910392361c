"""The node test vectors of the ONNX package: inputs and expected outputs that come with its operators' specification.

The package makes them when its test cases are imported, from a fixed seed, with NumPy code of its own, in the data type of
the inputs. A vector is a model of a single node; the `_expanded` models beside it hold the same numbers and ask nothing new.

`onnx_attention.py`, `onnx_recurrent.py` and `onnx_layers.py` translate the vectors of an operator to calls of the reference.
A translation that cannot be made raises `NotInReference`; each such vector stands in `onnx_left_out.toml` with that reason.
"""

from __future__ import annotations

import importlib
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case import node

from tests.authorities.agreement import agrees

# The operators that compute an idea of the notes, and the modules of the package that make their vectors.
MODULES = {
    "Attention": "attention",
    "GRU": "gru",
    "Gelu": "gelu",
    "LSTM": "lstm",
    "LayerNormalization": "layernormalization",
    "LogSoftmax": "logsoftmax",
    "OneHot": "onehot",
    "RMSNormalization": "rmsnormalization",
    "RNN": "rnn",
    "RotaryEmbedding": "rotaryembedding",
    "Softmax": "softmax",
    "SoftmaxCrossEntropyLoss": "softmax_cross_entropy_loss",
}
EXACT = {"OneHot"}  # nothing is rounded, so every data type will do


class NotInReference(Exception):
    """The vector asks for something that the reference does not have: leave it out for this reason."""


@dataclass(frozen=True)
class Vector:
    """A node and its data; optional inputs and outputs that the node lacks are absent from the mappings."""

    name: str
    operator: str
    attributes: Mapping[str, Any]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """A question to the reference: is `got`, taken from a vector, what function(*args, **options) gives?"""

    got: Any
    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


Translation = Callable[[Vector], list[Call]]
TRANSLATIONS: dict[str, Translation] = {}


def translates(operator: str) -> Callable[[Translation], Translation]:
    """Registers the translation of an operator."""

    def register(translation: Translation) -> Translation:
        assert operator in MODULES
        assert operator not in TRANSLATIONS, f"two translations of {operator}"
        TRANSLATIONS[operator] = translation
        return translation

    return register


@cache
def vectors() -> dict[str, Vector]:
    """The vectors of all operators of MODULES, by their names without `test_`."""
    with _own_random_state():
        for module in MODULES.values():
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return read(node._NodeTestCases)


def every_case() -> list[Any]:
    """All node test cases of the package, of any operator, by its public function; this takes seconds."""
    from onnx.backend.test.loader import load_model_tests

    with _own_random_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their casts overflow on purpose
        return list(load_model_tests(kind="node"))


def read(cases: list[Any]) -> dict[str, Vector]:
    """The test cases that are a single node of an operator of MODULES."""
    found = {}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].domain or nodes[0].op_type not in MODULES:
            continue
        [(inputs, outputs)] = case.data_sets
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in nodes[0].attribute}
        name = case.name.removeprefix("test_")
        given = dict(zip(filter(None, nodes[0].input), inputs, strict=True))
        expected = dict(zip(filter(None, nodes[0].output), outputs, strict=True))
        found[name] = Vector(name, nodes[0].op_type, attributes, given, expected)
    return found


def left_out() -> dict[str, str]:
    """The reason for each vector that is not run."""
    tables = tomllib.loads(Path(__file__).with_name("onnx_left_out.toml").read_text())
    return {name: table["reason"] for table in tables["left_out"] for name in table["vectors"]}


def names_of(operator: str) -> list[str]:
    """The vectors of an operator that are run."""
    return sorted(name for name, vector in vectors().items() if vector.operator == operator and name not in left_out())


def translate(vector: Vector) -> list[Call]:
    """The calls of the reference that a vector stands for."""
    for name, array in {**vector.inputs, **vector.outputs}.items():
        dtype = np.asarray(array).dtype
        if dtype.itemsize == 2 and vector.operator not in EXACT:
            raise NotInReference(f"{dtype}: rounding errors are carried for float32 and float64 only")
        assert dtype.itemsize == 2 or dtype.kind in "biu" or dtype == np.float32, f"{vector.name}: {name} is {dtype}"
    return TRANSLATIONS[vector.operator](vector)


def check(vector: Vector) -> None:
    """Raises unless the reference gives the outputs of the vector, within the bound of float32."""
    for call in translate(vector):
        agrees(call.got, call.function, *call.args, unit="float32", **call.options)


def check_all(operator: str, keep: Callable[[Vector], bool] = lambda _: True) -> None:
    """Checks all vectors of an operator that are run, or those that `keep` selects."""
    for name in names_of(operator):
        if keep(vectors()[name]):
            check(vectors()[name])


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Importing a test case seeds NumPy's global generator: the state of the other tests stays theirs."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
