"""Drawn decoder states, encoder states and masks, and the gradients of any function by central differences."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attnspec.reference.parameters import Parameters
from tests.reference.closeness import UNIT, assert_close

STEP = UNIT ** (1 / 3)  # rounding u/h and truncation h^2 are then both u^(2/3)


def weights_for(kind: str, N: int, N2: int, A: int, rng: np.random.Generator, biased: bool = True) -> dict[str, np.ndarray]:
    """Parameters of one kind of attention; sums of their products are of order one."""
    hidden = {"query.weight": (A, N), "key.weight": (A, N2), "score.weight": (A,)}
    bias = {"bias": (A,)} if biased and kind == "additive" else {}
    shapes = {"dot": {}, "general": {"weight": (N, N2)}, "concat": hidden, "additive": {**hidden, **bias}}[kind]
    return {name: rng.normal(size=shape) / np.sqrt(max(shape[-1], 1)) for name, shape in shapes.items()}


@st.composite
def attended(draw: Any, kind: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """queries [B,T,N], states [B,S,N'], parameters, and a mask [B,T,S] with some steps that see nothing."""
    B, T, S, N, N2, A = (draw(st.integers(1, 4), label=name) for name in ("B", "T", "S", "N", "N'", "A"))
    N2 = N if kind == "dot" else N2
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    parameters = weights_for(kind, N, N2, A, rng, biased=draw(st.booleans(), label="biased"))
    mask = rng.random((B, T, S)) < draw(st.sampled_from([0.5, 1.0]), label="share that is visible")
    return rng.normal(size=(B, T, N)), rng.normal(size=(B, S, N2)), parameters, mask


def check_gradients(
    forward: Callable[..., np.ndarray], inputs: tuple[np.ndarray, ...], parameters: Parameters,
    gradients: tuple[Any, ...], cotangent: np.ndarray, terms: float,
) -> None:  # fmt: skip
    """Compares gradients, parameters last, with central differences of sum(forward(*inputs, parameters) * cotangent)."""
    *of_inputs, of_parameters = gradients
    arrays = {**{str(i): x for i, x in enumerate(inputs)}, **parameters}
    assert set(of_parameters) == set(parameters)
    for name, got in {**{str(i): x for i, x in enumerate(of_inputs)}, **of_parameters}.items():
        want = np.empty_like(arrays[name])
        for index in np.ndindex(want.shape):
            change = 0.0
            for sign in (1, -1):
                moved = {**arrays, name: arrays[name].copy()}
                moved[name][index] += sign * STEP
                out = forward(*(moved[str(i)] for i in range(len(inputs))), {key: moved[key] for key in parameters})
                change = change + sign * out
            want[index] = np.sum(change * cotangent) / (2 * STEP)
        assert_close(got, want, terms=terms / STEP)  # u^(2/3) is u / step
