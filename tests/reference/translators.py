"""Drawn recurrent encoder-decoders, with and without attention, and their inputs."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.reference.attended import weights_for

GATES = {"rnn": 1, "rnn_relu": 1, "gru": 3, "gru_reset_before": 3, "lstm": 4}


def runs_of(
    layers: int, directions: int, width: int, units: int, cell: str, rng: np.random.Generator, biased: bool
) -> dict[str, np.ndarray]:
    """The parameters of a stack of recurrent layers that reads vectors of `width`."""
    parameters = {}
    for layer in range(layers):
        for direction in ("", "reverse.")[:directions]:
            rows, start = GATES[cell] * units, f"{layer}.{direction}"
            below = width if layer == 0 else directions * units
            parameters[f"{start}input.weight"] = rng.normal(size=(rows, below)) / np.sqrt(max(below, 1))
            parameters[f"{start}hidden.weight"] = rng.normal(size=(rows, units)) / np.sqrt(max(units, 1))
            if biased:
                parameters |= {f"{start}{side}.bias": rng.normal(size=rows) for side in ("input", "hidden")}
    return parameters


def model(
    kind: str, sizes: dict[str, int], cell: str, rng: np.random.Generator, biased: bool = True, feeding: bool = True
) -> dict[str, np.ndarray]:
    """A whole model; kind is none, additive, dot, general or concat; sizes has V W M P N A L and R directions."""
    V, W, M, P, L, R = (sizes[name] for name in "VWMPLR")
    N = R * sizes["N"]
    width = P + (N if kind == "additive" or (kind != "none" and feeding) else 0)
    parts = {
        "source.embedding": {"weight": rng.normal(size=(V, M))},
        "encoder": runs_of(L, R, M, sizes["N"], cell, rng, biased),
        "target.embedding": {"weight": rng.normal(size=(W, P))},
        "decoder": runs_of(L, 1, width, N, cell, rng, biased),
        "output": {"weight": rng.normal(size=(W, N)) / np.sqrt(N)} | ({"bias": rng.normal(size=W)} if biased else {}),
    }
    if kind != "none":
        parts["attention"] = weights_for(kind, N, N, sizes["A"], rng, biased)
    if kind not in ("none", "additive"):
        parts["attention.combine"] = {"weight": rng.normal(size=(N, 2 * N)) / np.sqrt(2 * N)}
    return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.items()}


@st.composite
def translations(draw: Any, kind: str, feeding: bool = True, cells: tuple[str, ...] = tuple(GATES)) -> tuple[Any, ...]:
    """source [B,S], inputs [B,T], parameters, cell, and lengths or None."""
    sizes = {name: draw(st.integers(1, 3), label=name) for name in "NA"}
    sizes |= {name: draw(st.integers(2, 4), label=name) for name in "VWMP"}
    sizes |= {name: draw(st.integers(1, 2), label=name) for name in "LR"}
    B, S, T = draw(st.integers(1, 3), label="B"), draw(st.integers(1, 4), label="S"), draw(st.integers(1, 4), label="T")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    cell = draw(st.sampled_from(cells), label="cell")
    parameters = model(kind, sizes, cell, rng, draw(st.booleans(), label="biased"), feeding)
    lengths = rng.integers(1, S + 1, size=B) if draw(st.booleans(), label="padded") else None
    source, inputs = rng.integers(0, sizes["V"], size=(B, S)), rng.integers(0, sizes["W"], size=(B, T))
    return source, inputs, parameters, cell, lengths
