"""Layouts: the order of axes in which a function takes queries, keys and values (docs/notation.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.properties.subject import FloatArray

LAYOUTS = ("bhtd", "bthd", "btm", "btd", "td")


def laid_out(x: FloatArray, layout: str) -> FloatArray:
    """An array of layout bhtd in the given layout; B and H are 1 where the layout has no such axis."""
    match layout:
        case "bthd":
            return np.swapaxes(x, 1, 2)
        case "btm":
            folded: FloatArray = np.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])
            return folded
        case "btd":
            return np.asarray(x[:, 0])
        case "td":
            return np.asarray(x[0, 0])
    return x


def brought_back(x: FloatArray, layout: str, heads: int) -> FloatArray:
    """The inverse of `laid_out`."""
    match layout:
        case "bthd":
            return np.swapaxes(x, 1, 2)
        case "btm":
            return np.swapaxes(x.reshape(x.shape[0], x.shape[1], heads, -1), 1, 2)
        case "btd":
            return x[:, None]
        case "td":
            return x[None, None]
    return x


def mask_laid_out(mask: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """A mask without the axes that the layout lacks."""
    if mask.ndim == 4 and layout == "btd":
        return mask[:, 0]
    return mask[0, 0] if mask.ndim == 4 and layout == "td" else mask
