"""One correct attention in small pieces; a mutant calls it with one piece replaced.

    out = softmax(hide(score(q, k), see(...))) · v        scores as in docs/notation.md, (1) to (5)

16-bit inputs are computed in float32, and the result has the dtype of q.
"""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

INF = float("inf")


class Options(TypedDict, total=False):
    """The keyword arguments of every mutant."""

    mask: Tensor | None
    bias: Tensor | None
    causal: bool
    scale: float | None
    window: int | None
    softcap: float | None


def wide(x: Tensor) -> Tensor:
    """16-bit numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def repeat_heads(x: Tensor, H: int) -> Tensor:
    """[B,G,S,·] -> [B,H,S,·]: query head h reads key/value head h // (H // G)."""
    return x.repeat_interleave(H // x.shape[1], dim=1)


def factor(q: Tensor, scale: float | None) -> float:
    """The factor on q·k."""
    return float(q.shape[-1] ** -0.5) if scale is None else scale


def cap(s: Tensor, softcap: float | None) -> Tensor:
    """Soft-caps scores."""
    return s if softcap is None else softcap * torch.tanh(s / softcap)


def plus(s: Tensor, bias: Tensor | None) -> Tensor:
    """Adds the bias in the dtype of the scores."""
    return s if bias is None else s + bias.to(s.dtype)


def score(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
    """Scaled, then soft-capped, then biased: [B,H,T,S]."""
    return plus(cap(factor(q, scale) * (q @ k.mT), softcap), bias)


def distance(s: Tensor, shift: int = 0) -> Tensor:
    """[T,S]: how far key s lies behind query t; `shift` is the position of query 0."""
    T, S = s.shape[-2:]
    return torch.arange(T, device=s.device)[:, None] + shift - torch.arange(S, device=s.device)


def visible(s: Tensor, mask: Tensor | None, causal: bool, window: int | None, *, shift: int = 0, future: int = 0) -> Tensor:
    """True where a query may attend; `shift` is the position of query 0, `future` how far causal looks ahead."""
    behind = distance(s, shift)
    allowed = torch.ones_like(behind, dtype=torch.bool)
    if causal:
        allowed = allowed & (behind >= -future)
    if window is not None:
        allowed = allowed & (behind >= 0) & (behind < window)
    return allowed if mask is None else allowed & mask


def hide(s: Tensor, allowed: Tensor) -> Tensor:
    """Minus infinity where a key is hidden."""
    return s.masked_fill(~allowed, -INF)


def row_max(s: Tensor) -> Tensor:
    """The largest score of each row, 0 for an empty row; a constant for the gradient, as a shift may be."""
    top = s.detach().amax(-1, keepdim=True)
    return top.masked_fill(top == -INF, 0.0)


def nonzero(z: Tensor) -> Tensor:
    """A denominator with 1 for 0, so that an empty row is 0 and not NaN."""
    return z.masked_fill(z == 0, 1.0)


def softmax_zero(s: Tensor) -> Tensor:
    """Softmax over the keys; an empty row gets zeros."""
    e = torch.exp(s - row_max(s))
    return e / nonzero(e.sum(-1, keepdim=True))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    repeat: Callable[[Tensor, int], Tensor] = repeat_heads,
    score: Callable[[Tensor, Tensor, float | None, float | None, Tensor | None], Tensor] = score,
    see: Callable[[Tensor, Tensor | None, bool, int | None], Tensor] = visible,
    hide: Callable[[Tensor, Tensor], Tensor] = hide,
    softmax: Callable[[Tensor], Tensor] = softmax_zero,
    mix: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Attention; `mix` takes hidden scores and values to the output in place of `softmax(...) @ v`."""
    H, dtype = q.shape[1], q.dtype
    q, k, v = wide(q), repeat(wide(k), H), repeat(wide(v), H)
    s = score(q, k, scale, softcap, bias)
    s = hide(s, see(s, mask, causal, window))
    out = softmax(s) @ v if mix is None else mix(s, v)
    return out.to(dtype)


def decay(old: Tensor, new: Tensor) -> Tensor:
    """What an online sum is multiplied by when the row maximum grows from old to new."""
    return torch.exp(old - new)


Factor = Callable[[Tensor, Tensor], Tensor]


def online(s: Tensor, v: Tensor, block: int, *, start: float = -INF, out: Factor = decay, total: Factor = decay) -> Tensor:
    """Softmax over blocks of keys with running row maximum, running sum and running output."""
    top = torch.full_like(s[..., :1], start).detach()
    y, z = torch.zeros_like(s @ v), torch.zeros_like(s[..., :1])
    for i in range(0, s.shape[-1], block):
        part = s[..., i : i + block]
        new = torch.maximum(top, part.detach().amax(-1, keepdim=True))
        base = new.masked_fill(new == -INF, 0.0)
        e = torch.exp(part - base)
        y = y * out(top, base) + e @ v[..., i : i + block, :]
        z = z * total(top, base) + e.sum(-1, keepdim=True)
        top = new
    return y / nonzero(z)


class _Swap(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, _gradient: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def swap(gradient: Tensor, value: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another: a backward pass that does not fit its forward pass."""
    result: Tensor = _Swap.apply(gradient, value.detach())  # type: ignore[no-untyped-call]
    return result


def on_backward(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """x itself, with its gradient changed on the way back."""
    if x.requires_grad:
        x = x.clone()
        x.register_hook(change)  # type: ignore[no-untyped-call]
    return x


def memory_order(x: Tensor) -> list[int]:
    """The axes of x from the outermost in memory to the innermost."""
    strides = [x.stride(axis) for axis in range(x.ndim)]
    return sorted(range(x.ndim), key=lambda axis: -strides[axis])
