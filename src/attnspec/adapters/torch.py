"""PyTorch: tensors, and `torch:scaled_dot_product_attention` on each backend that can be selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attnspec.adapters import STORAGES, Adapter, Array, Recorded, nested, repeats, stored
from attnspec.errors import UsageError
from attnspec.properties.subject import DTYPES, FloatArray

SDPA = "scaled_dot_product_attention"
BACKENDS = ("default", "flash", "math", "efficient", "cudnn")


class TorchArrays:
    """Tensors of PyTorch on one device; gradients by autograd."""

    name: str = "torch"
    dtypes: tuple[str, ...] = DTYPES
    storages: tuple[str, ...] = STORAGES

    def __init__(self, device: str = "cpu") -> None:
        import torch

        torch.set_num_threads(1)  # one thread a worker: sums in one order, and no fight for cores
        self._torch = torch
        self._paired = _paired(torch)
        self.device = _checked(device, torch)

    def make(self, x: npt.NDArray[Any], dtype: str, storage: str = "plain", *, gradient: bool = False) -> Array:
        torch = self._torch
        once = storage == "expanded" and repeats(x)
        # torch copies and narrows, into memory of its own that is aligned as its kernels expect; NumPy has no bfloat16. The
        # narrowing is exact, as the values of a case are exact in `dtype`.
        plain = torch.from_numpy(np.array(x[:1] if once else x, order="C"))
        tensor = plain.to(self.device, getattr(torch, dtype), copy=True)
        if once:
            tensor = tensor.expand(x.shape)
        elif storage != "plain":
            tensor = stored(
                tensor, storage, lambda shape, value: torch.full(shape, value, dtype=tensor.dtype, device=self.device)
            )
        return tensor.requires_grad_() if gradient else tensor

    def widen(self, x: Array) -> FloatArray:
        return np.array(x.detach().to(self._torch.float64).cpu().numpy())

    def owns(self, x: object) -> bool:
        return isinstance(x, self._torch.Tensor)

    def dtype_of(self, x: Array) -> str:
        return str(x.dtype).removeprefix("torch.")

    def shares_memory(self, x: Array, y: Array) -> bool:
        return bool(x.numel() and y.numel() and x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr())

    def recorded(self, call: Callable[..., Any], inputs: Sequence[Array], output: Callable[[Any], Array]) -> Recorded:
        returned = call(*inputs)

        def pull(cotangent: Array) -> list[Array | None]:
            out = output(returned)
            if not out.requires_grad:
                return [None for _ in inputs]
            paired = self._paired(out, cotangent.to(out.dtype))
            return list(self._torch.autograd.grad(paired, list(inputs), allow_unused=True))

        return Recorded(returned, pull)

    def literal(self, x: npt.NDArray[Any], dtype: str) -> str:
        shaped = "" if x.size else f".reshape({x.shape})"  # a list without numbers does not tell its shape
        placed = "" if self.device == "cpu" else f', device="{self.device}"'
        return f"torch.tensor({nested(x)}, dtype=torch.{dtype}{placed}){shaped}"

    def imports(self, dtype: str) -> str:
        del dtype
        return "import torch"

    def versions(self) -> dict[str, str]:
        return {"torch": str(self._torch.__version__)}


def _paired(torch: Any) -> Callable[[Array, Array], Array]:
    """A scalar whose gradient for the output is the cotangent itself, strides included.

    `torch.autograd.grad(out, inputs, cotangent)` is the same, and imports SymPy at its first call: half a second a worker.
    """

    class Paired(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, out: Array, cotangent: Array) -> Array:
            ctx.cotangent = cotangent
            return out.new_zeros(())

        @staticmethod
        def backward(ctx: Any, one: Array) -> tuple[Array, None]:
            del one
            return ctx.cotangent, None

    apply: Callable[[Array, Array], Array] = Paired.apply
    return apply


def _checked(device: str, torch: Any) -> str:
    """The device if its tensors hold numbers here. Errors: UsageError with the reason."""
    if device == "meta":
        raise UsageError("device=meta: a meta tensor has a shape and no numbers, so nothing can be checked; drop the option")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device={device}: this PyTorch ({torch.__version__}) finds no GPU here; drop the option")
    return device


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    function = getattr(torch.nn.functional, name)
    backend = options.get("backend", "default")
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend}: torch:{name} has {', '.join(BACKENDS)}")
    declared = {"contract": "torch", "arrays": "torch"}
    if backend == "default":
        return function, declared
    members = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "math": SDPBackend.MATH,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
    }

    def on_one_backend(
        query: Array,
        key: Array,
        value: Array,
        attn_mask: Array = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Array:
        with sdpa_kernel(members[backend]):
            return function(
                query,
                key,
                value,
                attn_mask=attn_mask,
                dropout_p=dropout_p,
                is_causal=is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )

    return on_one_backend, declared


def _owned(candidate: object) -> str | None:
    import sys

    torch = sys.modules.get("torch")
    return SDPA if torch is not None and candidate is torch.nn.functional.scaled_dot_product_attention else None


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Import lines and the expression of the call, for a script."""
    backend = {
        "flash": "FLASH_ATTENTION",
        "math": "MATH",
        "efficient": "EFFICIENT_ATTENTION",
        "cudnn": "CUDNN_ATTENTION",
    }
    chosen = options.get("backend", "default")
    if chosen == "default":
        return f"from torch.nn.functional import {name} as attention", "attention"
    return (
        f"from torch.nn.attention import SDPBackend, sdpa_kernel\nfrom torch.nn.functional import {name} as attention\n"
        f"sdpa_kernel(SDPBackend.{backend[chosen]}).__enter__()",
        "attention",
    )


ADAPTER = Adapter(
    name="torch",
    arrays=TorchArrays,
    targets={SDPA: "torch.nn.functional.scaled_dot_product_attention; -o backend=flash|math selects one kernel"},
    options=("backend",),
    load=_load,
    owned=_owned,
    expression=_expression,
)
