"""Adapters: one file a library, found by listing this folder and by the entry point group `attnspec.adapters`.

An adapter brings arrays (how NumPy becomes the library's arrays and back), or named targets (`torch:NAME`), or both. Its
library is imported inside its functions only, never when the adapter is listed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from attnspec.properties.subject import FloatArray

Array = Any  # an array of whatever library; strict typing ends where other people's objects begin


class Arrays(Protocol):
    """How one array library is spoken to."""

    name: str
    dtypes: tuple[str, ...]

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        """The library's array of dtype (`bool` for masks) that holds x, stored as asked."""
        ...

    def widen(self, x: Array) -> FloatArray: ...

    def owns(self, x: object) -> bool: ...

    def dtype_of(self, x: Array) -> str: ...

    def shares_memory(self, x: Array, y: Array) -> bool: ...

    def vjp(self, out: Array, inputs: Sequence[Array], cotangent: Array) -> list[Array | None]:
        """Gradients of sum(out * cotangent) for each input, None where the output does not depend on it."""
        ...

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        """Source text that makes this array, for a stand-alone script."""
        ...

    def versions(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Adapter:
    """What a library's file exports as ADAPTER.

    `targets` maps each name after the prefix to a one-line description; `load(name, options)` returns the object and what is
    declared of it; `owned` maps an object of the library to the target name that stands for it.
    """

    name: str
    arrays: Callable[[], Arrays] | None = None
    targets: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    load: Callable[[str, Mapping[str, Any]], tuple[Callable[..., Any], dict[str, Any]]] | None = None
    owned: Callable[[object], str | None] = lambda _: None
    expression: Callable[[str, Mapping[str, Any]], tuple[str, str]] | None = None


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by name."""
    found = {m.name: importlib.import_module(f"{__name__}.{m.name}").ADAPTER for m in pkgutil.iter_modules(__path__)}
    found |= {entry.name: entry.load() for entry in entry_points(group="attnspec.adapters")}
    return found


def stored(x: Array, storage: str, filled: Callable[[tuple[int, ...], float], Array]) -> Array:
    """The array x as a view of a larger buffer, or as it is (engine 1).

    `filled(shape, value)` makes a buffer of the library. Storage: `strided` takes every second element of the last axis,
    `offset` starts behind other content, `transposed` swaps the last two axes in memory, `poisoned` surrounds with NaN.
    """
    *lead, rows, columns = x.shape
    match storage:
        case "strided":
            view = filled((*lead, rows, 2 * columns), 0.0)[..., ::2]
        case "offset":
            view = filled((*lead, rows + 1, columns), 0.0)[..., 1:, :]
        case "poisoned":
            view = filled((*lead, rows + 2, columns + 2), float("nan"))[..., 1:-1, 1:-1]
        case "transposed":
            view = filled((*lead, columns, rows), 0.0).swapaxes(-1, -2)
        case _:
            return x
    view[...] = x
    return view


def nested(x: npt.NDArray[Any]) -> str:
    """Nested lists that hold exactly these numbers, as source text."""
    text = str(x.tolist())
    return text.replace("nan", "float('nan')").replace("inf", "float('inf')")


def aligned(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A C-ordered copy whose memory starts at a multiple of 64 bytes.

    Vector code may sum in another order at another alignment; a fixed one keeps two calls on equal arrays bit-identical.
    """
    x = np.ascontiguousarray(x)
    buffer = np.empty(x.nbytes + 64, dtype=np.uint8)
    start = -buffer.ctypes.data % 64
    copy = buffer[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy
