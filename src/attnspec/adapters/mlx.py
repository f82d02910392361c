"""MLX: arrays, and `mlx:scaled_dot_product_attention`, the fast one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.adapters import Adapter, Array, Recorded, needed, nested
from attnspec.errors import UsageError
from attnspec.properties.subject import FloatArray

ATTENTION = "scaled_dot_product_attention"


class MlxArrays:
    """Arrays of MLX on its default device; gradients by `mx.vjp`.

    float64 is not among its dtypes: MLX has it on the CPU alone, and its default device is a GPU where there is one.
    """

    name: str = "mlx"
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    storages: tuple[str, ...] = ("plain",)

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise UsageError(f"device={device}: MLX arrays are taken on its default device; drop the option")
        self._mx = needed("mlx.core", "arrays=mlx")
        self.device = device

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        del storage, gradient
        if dtype == "bool":
            return self._mx.array(np.array(x, dtype=bool))
        if dtype == "float64":
            raise TypeError("MLX has float64 on the CPU alone")
        # By way of float32, which holds every number of the two narrower ones.
        return self._mx.array(np.array(x, dtype=np.float32)).astype(getattr(self._mx, dtype))

    def widen(self, x: Array) -> FloatArray:
        return np.array(x.astype(self._mx.float32), dtype=np.float64)

    def owns(self, x: object) -> bool:
        return isinstance(x, self._mx.array)

    def dtype_of(self, x: Array) -> str:
        return str(x.dtype).removeprefix("mlx.core.").removesuffix("_")

    def shares_memory(self, x: Array, y: Array) -> bool:
        return x is y

    def recorded(self, call: Callable[..., Any], inputs: Sequence[Array], output: Callable[[Any], Array]) -> Recorded:
        def pull(cotangent: Array) -> list[Array | None]:
            out = output(returned)
            weight = cotangent.astype(out.dtype)
            return list(self._mx.vjp(lambda *arrays: output(call(*arrays)), list(inputs), [weight])[1])

        returned = call(*inputs)
        return Recorded(returned, pull)

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        shaped = "" if x.size else f".reshape({x.shape})"  # a list without numbers does not tell its shape
        return f"mx.array({nested(x)}, dtype=mx.{dtype}{'_' if dtype == 'bool' else ''}){shaped}"

    def imports(self, dtype: str) -> str:
        del dtype
        return "import mlx.core as mx"

    def versions(self) -> dict[str, str]:
        return {"mlx": str(self._mx.__version__)}


def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    bias: Any = None,
    causal: bool = False,
    scale: float | None = None,
    sinks: Any = None,
) -> Any:
    import mlx.core as mx

    if sum((mask is not None, bias is not None, causal)) > 1:
        raise NotImplementedError('mask is one argument: a boolean array, an additive one, or "causal"')
    chosen = "causal" if causal else bias if mask is None else mask
    return mx.fast.scaled_dot_product_attention(
        q, k, v, scale=q.shape[-1] ** -0.5 if scale is None else scale, mask=chosen, sinks=sinks
    )


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    needed("mlx.core", f"mlx:{name}")
    return attention, {"contract": "mlx", "arrays": "mlx"}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del name, options
    return f"from typing import Any\n\n\n{inspect.getsource(attention)}", "attention"


TARGETS = {ATTENTION: "mlx.core.fast.scaled_dot_product_attention, its mask argument split into mask, bias and causal"}
ADAPTER = Adapter(name="mlx", arrays=MlxArrays, targets=TARGETS, load=_load, expression=_expression)
