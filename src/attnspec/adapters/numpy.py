"""NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.adapters import Adapter, Array, aligned, nested, stored
from attnspec.properties.subject import FloatArray


class NumpyArrays:
    """Arrays of NumPy; it differentiates nothing, so gradients come from a declared `vjp` only."""

    name: str = "numpy"
    dtypes: tuple[str, ...] = ("float64", "float32")

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        del gradient
        own = aligned(x.astype(dtype, copy=False))
        return stored(own, storage, lambda shape, value: np.full(shape, value, dtype=dtype))

    def widen(self, x: Array) -> FloatArray:
        return np.array(x, dtype=np.float64)

    def owns(self, x: object) -> bool:
        return isinstance(x, np.ndarray)

    def dtype_of(self, x: Array) -> str:
        return str(x.dtype)

    def shares_memory(self, x: Array, y: Array) -> bool:
        return np.shares_memory(x, y)

    def vjp(self, out: Array, inputs: Sequence[Array], cotangent: Array) -> list[Array | None]:
        raise NotImplementedError("NumPy does not differentiate; declare `vjp`")

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        return f'np.array({nested(x)}, dtype="{dtype}")'

    def versions(self) -> dict[str, str]:
        return {}


ADAPTER = Adapter(name="numpy", arrays=NumpyArrays)
