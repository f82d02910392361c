"""One correct attention in small pieces; a mutant calls it with one piece replaced.

    out = drop(softmax(hide(score(q, k), see(...))) · share) · v        scores as in docs/notation.md, (1) to (5)

16-bit inputs are computed in float32; output and weights have the dtype of q, the log-sum-exp that of the scores.
"""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

INF = float("inf")
Output = Tensor | tuple[Tensor, ...]  # the output, then the weights and the log-sum-exp where asked for


class Options(TypedDict, total=False):
    """The keyword arguments of every mutant."""

    mask: Tensor | None
    bias: Tensor | None
    causal: bool
    scale: float | None
    window: int | None
    softcap: float | None
    sinks: Tensor | None
    dropout: float
    seed: int
    need_weights: bool
    return_lse: bool


def wide(x: Tensor) -> Tensor:
    """16-bit numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def repeat_heads(x: Tensor, H: int) -> Tensor:
    """[B,G,S,·] -> [B,H,S,·]: query head h reads key/value head h // (H // G)."""
    return x.repeat_interleave(H // x.shape[1], dim=1)


def factor(q: Tensor, scale: float | None) -> float:
    """The factor on q·k."""
    return float(max(q.shape[-1], 1) ** -0.5) if scale is None else scale


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
    top = s.detach().amax(-1, keepdim=True) if s.shape[-1] else s.new_zeros((*s.shape[:-1], 1))
    return top.masked_fill(top == -INF, 0.0)


def nonzero(z: Tensor) -> Tensor:
    """A denominator with 1 for 0, so that an empty row is 0 and not NaN."""
    return z.masked_fill(z == 0, 1.0)


def softmax_zero(s: Tensor) -> Tensor:
    """Softmax over the keys; an empty row gets zeros."""
    e = torch.exp(s - row_max(s))
    return e / nonzero(e.sum(-1, keepdim=True))


def share(s: Tensor, sinks: Tensor) -> Tensor:
    """[B,H,T,1]: what the keys keep of a row's weight beside one more column, the sink of the head."""
    return share_beside(s, sinks[:, None, None])


def share_beside(s: Tensor, sink: Tensor) -> Tensor:
    """The same for a column that broadcasts to the rows."""
    sink = sink.to(s.dtype)
    top = torch.maximum(row_max(s), sink.detach())
    total = torch.exp(s - top).sum(-1, keepdim=True)
    return total / (total + torch.exp(sink - top))


def kept(shape: torch.Size, dropout: float, seed: int, device: torch.device) -> Tensor:
    """True where dropout keeps a weight; each with probability 1 - dropout, on its own."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=device) >= dropout


def drop(weights: Tensor, dropout: float, seed: int) -> Tensor:
    """Weights after dropout: zero, or divided by the probability of being kept."""
    keep = kept(weights.shape, dropout, seed, weights.device)
    return weights.masked_fill(~keep, 0.0) * (1 / (1 - dropout) if dropout < 1 else 0.0)


def log_sum_exp(s: Tensor, sinks: Tensor | None) -> Tensor:
    """[B,H,T]: the logarithm of a row's denominator, with the sink; minus infinity for an empty row without one."""
    if sinks is not None:
        s = torch.cat([s, sinks.to(s.dtype)[:, None, None].expand(*s.shape[:-1], 1)], dim=-1)
    total = torch.exp(s - row_max(s)).sum(-1)
    return (row_max(s)[..., 0] + torch.log(nonzero(total))).masked_fill(total == 0, -INF)


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
    sinks: Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    need_weights: bool = False,
    return_lse: bool = False,
    repeat: Callable[[Tensor, int], Tensor] = repeat_heads,
    score: Callable[[Tensor, Tensor, float | None, float | None, Tensor | None], Tensor] = score,
    see: Callable[[Tensor, Tensor | None, bool, int | None], Tensor] = visible,
    hide: Callable[[Tensor, Tensor], Tensor] = hide,
    softmax: Callable[[Tensor], Tensor] = softmax_zero,
    mix: Callable[[Tensor, Tensor], Tensor] | None = None,
    share: Callable[[Tensor, Tensor], Tensor] = share,
    drop: Callable[[Tensor, float, int], Tensor] = drop,
    show: Callable[[Tensor], Tensor] = lambda weights: weights,
    lse: Callable[[Tensor, Tensor | None], Tensor] = log_sum_exp,
) -> Output:
    """Attention; `mix` takes hidden scores and values to the output in place of `softmax(...) @ v`, without dropout.

    Returns the output; with need_weights also the weights [B,H,T,S] before dropout, with return_lse also the log-sum-exp.
    """
    H, dtype = q.shape[1], q.dtype
    q, k, v = wide(q), repeat(wide(k), H), repeat(wide(v), H)
    s = score(q, k, scale, softcap, bias)
    s = hide(s, see(s, mask, causal, window))
    part = None if sinks is None else share(s, sinks)
    whole = mix is None or dropout > 0 or need_weights
    weights = scaled(softmax(s), part) if whole else s
    if mix is None or dropout > 0:
        out = (drop(weights, dropout, seed) if dropout > 0 else weights) @ v
    else:
        out = scaled(mix(s, v), part)
    asked = [show(weights).to(dtype)] if need_weights else []
    asked += [lse(s, sinks)] if return_lse else []
    return (out.to(dtype), *asked) if asked else out.to(dtype)


def scaled(x: Tensor, part: Tensor | None) -> Tensor:
    """x times a factor, if there is one."""
    return x if part is None else x * part


def on_output(result: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """Changes the output and leaves what was returned beside it."""
    return (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)


def on_all(result: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """Changes everything that was returned."""
    return tuple(map(change, result)) if isinstance(result, tuple) else change(result)


def alone(options: Options) -> Options:
    """The same options, asking for the output alone."""
    return {**options, "need_weights": False, "return_lse": False}


def decay(old: Tensor, new: Tensor) -> Tensor:
    """What an online sum is multiplied by when the row maximum grows from old to new."""
    return torch.exp(old - new)


Factor = Callable[[Tensor, Tensor], Tensor]


def online(s: Tensor, v: Tensor, block: int, *, start: float = -INF, out: Factor = decay, total: Factor = decay) -> Tensor:
    """Softmax over blocks of keys with running row maximum, running sum and running output."""
    top = s.new_full((*s.shape[:-1], 1), start)
    y, z = torch.zeros_like(s @ v), torch.zeros_like(top)
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


def swap_all(gradient: Output, value: Output) -> Output:
    """`swap` for each thing returned."""
    if isinstance(gradient, tuple) and isinstance(value, tuple):
        return tuple(swap(g, x) for g, x in zip(gradient, value, strict=True))
    assert isinstance(gradient, Tensor)
    assert isinstance(value, Tensor)
    return swap(gradient, value)


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
