"""NumPy arrays; bfloat16 where the package ml_dtypes is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.adapters import STORAGES, Adapter, Array, Recorded, aligned, nested, repeats, stored
from attnspec.errors import UsageError
from attnspec.properties.subject import FloatArray


class NumpyArrays:
    """Arrays of NumPy; it differentiates nothing, so gradients come from a declared `vjp` only.

    An `expanded` array is read-only: NumPy has no other array of stride 0 that is safe to hand out, so a function that writes
    to its inputs refuses it.
    """

    name: str = "numpy"
    storages: tuple[str, ...] = STORAGES

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise UsageError(f"device={device}: NumPy arrays lie on the CPU only; drop the option")
        self.device = device
        self.dtypes = ("float64", "float32", *(["bfloat16"] if find_spec("ml_dtypes") else []), "float16")

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        del gradient
        native = _dtype(dtype)
        if storage == "expanded":
            return np.broadcast_to(aligned(x[:1].astype(native)), x.shape) if repeats(x) else aligned(x.astype(native))
        own = aligned(x.astype(native, copy=False))
        return stored(own, storage, lambda shape, value: np.full(shape, value, dtype=native))

    def widen(self, x: Array) -> FloatArray:
        return np.array(x, dtype=np.float64)

    def owns(self, x: object) -> bool:
        return isinstance(x, np.ndarray)

    def dtype_of(self, x: Array) -> str:
        return str(x.dtype)

    def shares_memory(self, x: Array, y: Array) -> bool:
        return np.shares_memory(x, y)

    def recorded(self, call: Callable[..., Any], inputs: Sequence[Array], output: Callable[[Any], Array]) -> Recorded:
        raise NotImplementedError("NumPy does not differentiate; declare `vjp`")

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        shaped = "" if x.size else f".reshape({x.shape})"  # a list without numbers does not tell its shape
        return f'np.array({nested(x)}, dtype="{dtype}"){shaped}'

    def imports(self, dtype: str) -> str:
        return "import ml_dtypes  # gives NumPy its bfloat16" if dtype == "bfloat16" else ""

    def versions(self) -> dict[str, str]:
        return {}


def _dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; it learns bfloat16 from ml_dtypes."""
    if name == "bfloat16":
        importlib.import_module("ml_dtypes")
    return np.dtype(name)


ADAPTER = Adapter(name="numpy", arrays=NumpyArrays)
