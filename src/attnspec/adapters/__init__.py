"""Adapters: one file a library, found by listing this folder and by the entry point group `attnspec.adapters`.

An adapter brings arrays (how NumPy becomes the library's arrays and back), or named targets (`torch:NAME`), or both. Its
library is imported inside its functions only, never when the adapter is listed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from attnspec.errors import UsageError
from attnspec.properties.subject import FloatArray

Array = Any  # an array of whatever library; strict typing ends where other people's objects begin


class Recorded(NamedTuple):
    """A call with gradients: what it returned, and the map from a cotangent of its output to one gradient an input.

    `pull(cotangent)` gives the gradients of sum(output * cotangent), None where the output does not depend on an input; the
    cotangent is an array of the library in the dtype of the inputs.
    """

    returned: Any
    pull: Callable[[Array], list[Array | None]]


class Arrays(Protocol):
    """How one array library is spoken to.

    `dtypes` are the dtypes that it has, whatever a function makes of them; `device` is where its arrays lie; `storages` are
    the ways of storing an array that mean something to it: `make` takes every storage, and stores plainly what is not among
    them.
    """

    name: str
    dtypes: tuple[str, ...]
    device: str
    storages: tuple[str, ...]

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        """The library's array of dtype (`bool` for masks) that holds x exactly, stored as asked.

        `gradient` asks for an array that a library which records calls (torch) takes gradients for.
        """
        ...

    def widen(self, x: Array) -> FloatArray:
        """The same values in float64: exact, whatever the dtype."""
        ...

    def owns(self, x: object) -> bool: ...

    def dtype_of(self, x: Array) -> str: ...

    def shares_memory(self, x: Array, y: Array) -> bool: ...

    def recorded(self, call: Callable[..., Any], inputs: Sequence[Array], output: Callable[[Any], Array]) -> Recorded:
        """Runs `call(*inputs)` so that gradients can be taken of `output(returned)` for each input.

        The inputs were made with `gradient=True`. What `call` raises passes through; `output` picks the array among what the
        call returned, and may return anything else unchanged: then only `pull` fails.

        Errors: NotImplementedError where the library does not differentiate.
        """
        ...

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        """Source text that makes this array, for a stand-alone script that begins with `imports(dtype)`."""
        ...

    def imports(self, dtype: str) -> str:
        """Import lines beside `import numpy as np` that a script needs."""
        ...

    def versions(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Adapter:
    """What a library's file exports as ADAPTER.

    `arrays(device)` speaks to its arrays on a device; `targets` maps each name after the prefix to a one-line description;
    `load(name, options)` returns the object and what is declared of it; `owned` maps an object of the library to the target
    name that stands for it; `preload()` imports what takes long, in the process that forks workers, so that they share it.
    """

    name: str
    arrays: Callable[..., Arrays] | None = None
    targets: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    load: Callable[[str, Mapping[str, Any]], tuple[Callable[..., Any], dict[str, Any]]] | None = None
    owned: Callable[[object], str | None] = lambda _: None
    expression: Callable[[str, Mapping[str, Any]], tuple[str, str]] | None = None
    preload: Callable[[], None] | None = None


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by name."""
    own = [importlib.import_module(f"{__name__}.{m.name}").ADAPTER for m in pkgutil.iter_modules(__path__)]
    found: dict[str, Adapter] = {adapter.name: adapter for adapter in own}
    return found | {entry.name: entry.load() for entry in entry_points(group="attnspec.adapters")}


class Listed(Mapping[str, str]):
    """Names with a line on each, listed only when asked: an adapter is made at every start."""

    def __init__(self, names: Callable[[], Sequence[str]], line: Callable[[str], str]) -> None:
        self._names, self._line = names, line

    def __getitem__(self, name: str) -> str:
        return self._line(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def shipped(
    name: str,
    module: ModuleType,
    targets: Mapping[str, str],
    *,
    factories: bool = False,
    declared: Mapping[str, Any] | None = None,
) -> Adapter:
    """The adapter of targets that `module.load(name)` of this project gives: functions, or `factories` of models.

    `declared` holds for all of them, under what a target says of itself in `__attnspec__`.
    """

    def load(target: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
        del options
        try:
            found = module.load(target)
        except ModuleNotFoundError as error:
            needed(error.name or "", f"{name}:{target}")
            raise
        return found() if factories else found, dict(declared or {}) | getattr(found, "__attnspec__", {})

    def expression(target: str, options: Mapping[str, Any]) -> tuple[str, str]:
        del options
        imported, made = f"from {module.__name__} import load", f"load({target!r})"
        return (imported, f"{made}()") if factories else (f"{imported}\nattention = {made}", "attention")

    return Adapter(name=name, targets=targets, load=load, expression=expression)


STORAGES = ("plain", "strided", "offset", "transposed", "expanded", "poisoned")


def stored(x: Array, storage: str, filled: Callable[[tuple[int, ...], float], Array]) -> Array:
    """The array x as a view of a larger buffer, or as it is (engine 1).

    `filled(shape, value)` makes a buffer of the library. Storage: `strided` takes every second element of the last axis,
    `offset` starts behind other content, `transposed` swaps the last two axes in memory, `poisoned` surrounds with NaN.
    `expanded`, which each library has a word of its own for, is left to the caller.
    """
    if storage == "plain":
        return x
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


def repeats(x: npt.NDArray[Any]) -> bool:
    """Whether x is the same all along its first axis, so that storing it once and expanding it keeps its values.

    The first axis is the batch in every layout that has one. Where content planted in one batch row makes the rows differ,
    the array is stored plainly: values come before storage.
    """
    return x.ndim > 0 and x.shape[0] > 0 and np.array_equal(x, np.broadcast_to(x[:1], x.shape), equal_nan=x.dtype.kind == "f")


def needed(module: str, target: str) -> Any:
    """The module, imported. Errors: UsageError with what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UsageError(f"{target}: {package} is not installed; `pip install {package}`") from None


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
