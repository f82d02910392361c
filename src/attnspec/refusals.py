"""What a refusal depends on: found by asking again with less, never by its words (engine 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attnspec.properties.subject import FloatArray

# Conditions that make a refusal uneven: the same features work otherwise.
UNEVEN = ("the sizes", "the batch", "gradients", "the storage")
OPTIONS = ("mask", "bias", "causal", "scale", "window", "softcap", "sinks", "dropout")  # what a call may be asked for
MISFIT, ZERO = "inputs that do not fit each other", "a size of zero"
EDGE = (MISFIT, ZERO)  # conditions under which any error will do
SMALL = {"T": 3, "S": 3, "D": 4, "E": 4}

Works = Callable[..., bool]  # works(q, k, v, options, dtype, storage, gradient)


def condition(
    works: Works,
    inputs: Mapping[str, FloatArray],
    asked: Mapping[str, Any],
    dtype: str,
    storage: str,
    *,
    gradient: bool,
) -> str:
    """What a call, refused for zeros too, is refused because of.

    One thing is taken away at a time, in the order in which a caller would look: the dtype, gradients, the storage, the
    batch, the sizes, each option. `inputs` are the arrays in layout bhtd.
    """
    if not _fit(inputs, asked):
        return MISFIT
    if any(x.size == 0 for x in inputs.values()):
        return ZERO
    zeros = {n: np.zeros_like(x) for n, x in inputs.items()}
    if dtype != "float32" and works(**zeros, asked=asked, dtype="float32", storage=storage, gradient=gradient):
        return "the dtype"
    if gradient and works(**zeros, asked=asked, dtype=dtype, storage=storage, gradient=False):
        return "gradients"
    if storage != "plain" and works(**zeros, asked=asked, dtype=dtype, storage="plain", gradient=gradient):
        return "the storage"
    same = {"dtype": dtype, "storage": storage, "gradient": gradient}
    sizes = _sizes(zeros)
    if sizes["B"] > 1 and works(**_shaped(zeros, sizes | {"B": 1}), asked=_resized(asked, sizes, {"B": 1}), **same):
        return "the batch"
    for smaller in (SMALL, SMALL | {"T": 2, "S": 5}):
        if works(**_shaped(zeros, sizes | smaller), asked=_resized(asked, sizes, smaller), **same):
            return "the sizes"
    options = given(asked)
    if len(options) > 1 and all(works(**zeros, asked={n: asked[n]}, **same) for n in options):
        return " beside ".join(options)
    return "the feature itself"


def _fit(inputs: Mapping[str, FloatArray], asked: Mapping[str, Any]) -> bool:
    """Whether shapes are those of attention at all."""
    (b, h, t, d), (c, g, s, e), (f, i, z, _) = (inputs[n].shape for n in "qkv")
    masks = [x.shape for n in ("mask", "bias") if (x := asked.get(n)) is not None]
    scores = (b, h, t, s)
    broadcast = all(n in (1, m) for shape in masks for n, m in zip(shape, scores[-len(shape) :], strict=True))
    return broadcast and b == c == f and d == e and g == i and s == z and g > 0 and h % g == 0


def given(asked: Mapping[str, Any]) -> list[str]:
    """The options that a call has."""
    return [n for n in OPTIONS if (x := asked.get(n)) is not None and x is not False and (n != "dropout" or x)]


def _sizes(inputs: Mapping[str, FloatArray]) -> dict[str, int]:
    (b, h, t, d), (_, g, s, _), (*_, e) = (inputs[n].shape for n in "qkv")
    return {"B": b, "H": h, "G": g, "T": t, "S": s, "D": d, "E": e}


def _shaped(inputs: Mapping[str, FloatArray], sizes: Mapping[str, int]) -> dict[str, FloatArray]:
    width = sizes["D"] if inputs["q"].shape[3] == inputs["v"].shape[3] else sizes["E"]
    shapes = {"q": "BHTD", "k": "BGSD"}
    made = {n: np.zeros([sizes[a] for a in axes]) for n, axes in shapes.items()}
    return made | {"v": np.zeros((sizes["B"], sizes["G"], sizes["S"], width))}


def _resized(asked: Mapping[str, Any], sizes: Mapping[str, int], changed: Mapping[str, int]) -> dict[str, Any]:
    """The options with masks of the new sizes, that hide nothing and add nothing."""
    found = dict(asked)
    for name, letters in (("mask", "BHTS"), ("bias", "BHTS")):
        if (x := asked.get(name)) is not None:
            full = dict(sizes) | dict(changed)
            shape = [1 if n == 1 else full[a] for n, a in zip(x.shape, letters[-x.ndim :], strict=True)]
            found[name] = np.ones(shape, dtype=bool) if name == "mask" else np.zeros(shape)
    return found
