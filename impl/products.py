"""Products with weights: oneDNN's where it is faster than the BLAS that PyTorch takes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional


class Linear(nn.Linear):
    """nn.Linear, with the same weights and names, through the products of this file."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies (linear)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Maps each position by a matrix.

        out[..., v] = sum_m x[..., m] weight[v, m] + bias[v]                             (1)

    PyTorch multiplies float32 matrices on a CPU by MKL or OpenBLAS, and keeps oneDNN for other formats. Measured on an AMD
    EPYC with AVX-512 and two threads, oneDNN takes half of the time for 1 to 8 rows, and 5 to 20 % less for 512.

    Shapes:  x [...,M]  weight [V,M]  bias [V] -> [...,V].
    Units:   those of x times those of weight.
    Empty:   no positions, no output.
    Errors:  those of torch.nn.functional.linear, which it is wherever the operator of oneDNN is not known to work.
    Source:  torch.nn.functional.linear; torch.ops.mkldnn._linear_pointwise, which torch.compile uses on CPUs.
    Differs: another order of summation than that of torch.nn.functional.linear.
    """
    if not _takes(x, weight, bias):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
        product: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return _onednn(x, weight, bias)


def _takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    kind = x.dtype == weight.dtype == torch.float32 and (bias is None or bias.dtype == torch.float32)
    place = x.device.type == weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    size = x.ndim >= 2 and weight.ndim == 2 and x.shape[-1] == weight.shape[1] and x.numel() > 0 and weight.numel() > 0
    return WORKS and kind and place and size and not _transformed()


def _transformed() -> bool:
    """Inside torch.compile, torch.func, forward-mode derivatives and modes such as FlopCounterMode, made for its own."""
    inside = torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    return inside or torch._C._len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _works() -> bool:
    """Whether this build of PyTorch has the operator, tried on whole numbers, whose sums are exact."""
    x, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3) - 5, torch.arange(4.0)
    try:
        return torch.equal(_onednn(x, weight, bias), functional.linear(x, weight, bias))
    except (AttributeError, RuntimeError, TypeError):  # no such operator, no oneDNN, other arguments
        return False


class _Product(torch.autograd.Function):
    """(1) of `linear` and its derivatives: dx = d weight, dweight = d^T x, dbias = sum of d."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, needs = d.flatten(0, -2), ctx.needs_input_grad
        dx = linear(d, weight.t()) if needs[0] else None
        dweight = rows.t() @ x.flatten(0, -2) if needs[1] else None  # here oneDNN was no faster
        return dx, dweight, rows.sum(dim=0) if needs[2] else None


WORKS = _works()
