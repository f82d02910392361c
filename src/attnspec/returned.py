"""Which of the values that a function returns are the output, the attention weights and the log-sum-exp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from attnspec.properties.subject import FloatArray

Extra = Literal["weights", "lse"]
SWITCHES: dict[Extra, str] = {"weights": "return_weights", "lse": "return_lse"}
OUTPUT = ("out", "output", "attn_output")  # what the output is called in a dict
# The axes that may be met, the likeliest first; a layout that lacks an axis has one of size 1 there.
AXES: dict[Extra, tuple[str, ...]] = {
    "weights": ("bhts", "bths", "bts", "hts", "ts"),
    "lse": ("bht", "bth", "bht1", "bth1", "bt", "bt1", "ht", "th", "t", "t1"),
}


class Returned(msgspec.Struct, frozen=True):
    """Where a value beside the output is found: its position or name, the order of its axes, the switch that asks for it."""

    at: int | str
    axes: str
    switch: str | None = None

    def __str__(self) -> str:
        return f"value {self.at}, {self.axes}" + (f", by {self.switch}" if self.switch else "")


def values(native: Any) -> dict[int | str, Any]:
    """What a function returned, by position or name."""
    if isinstance(native, Mapping):
        return dict(native)
    return dict(enumerate(native)) if isinstance(native, (tuple, list)) else {0: native}


def output_at(native: Any) -> int | str:
    """The position or name of the output: the entry that is called so, else the first."""
    found = values(native)
    return next((name for name in OUTPUT if name in found), next(iter(found), 0))


def output(native: Any) -> Any:
    """The output among what a function returns; what is empty is given back as it is."""
    found = values(native)
    return found.get(output_at(native), native)


def arranged(x: FloatArray, axes: str, extra: Extra) -> FloatArray:
    """An array with these axes as [B,H,T,S] (weights) or [B,H,T] (lse)."""
    letters = axes.removesuffix("1")
    x = x.reshape(x.shape[: len(letters)])
    order = [a for a in ("bhts" if extra == "weights" else "bht") if a in letters]
    x = np.transpose(x, [letters.index(a) for a in order])
    for place, letter in enumerate("bhts" if extra == "weights" else "bht"):
        x = x if letter in letters else np.expand_dims(x, place)
    return x


def fitting(shape: tuple[int, ...], extra: Extra, sizes: Mapping[str, int], layout: str) -> Iterator[str]:
    """The orders of axes in which an array of this shape may be the extra."""
    needed = {"td": "t", "btd": "bt"}.get(layout, "bht")
    for axes in AXES[extra]:
        if set(needed) <= set(axes) <= {*needed, "s", "1"} and shape == tuple(sizes[a] for a in axes):
            yield axes
