"""Correct implementations in torch that stay in 16 bits where the inputs have 16; each public function is a variant.

What a class of precision allows to be rounded is rounded here (docs/bounds.md), so that a bound that is too tight is seen.
"""

import math
from typing import TypedDict, Unpack

import torch
from torch import Tensor

INF = float("inf")


class _Options(TypedDict, total=False):
    mask: Tensor | None
    bias: Tensor | None
    causal: bool
    scale: float | None
    window: int | None
    softcap: float | None


def _hidden(T: int, S: int, options: _Options) -> Tensor:
    """True where a key may not be attended to; at least [T,S]."""
    behind = torch.arange(T)[:, None] - torch.arange(S)
    hidden = torch.zeros(T, S, dtype=torch.bool)
    if options.get("causal"):
        hidden |= behind < 0
    window, mask = options.get("window"), options.get("mask")
    if window is not None:
        hidden |= (behind < 0) | (behind >= window)
    return hidden if mask is None else hidden | ~mask


def _repeated(x: Tensor, H: int) -> Tensor:
    return x.repeat_interleave(H // x.shape[1], dim=1)


def _finished(raw: Tensor, D: int, options: _Options) -> Tensor:
    """q·k to biased scores, in the dtype of q·k."""
    scale, softcap, bias = options.get("scale"), options.get("softcap"), options.get("bias")
    s = raw * (1 / math.sqrt(D) if scale is None else scale)
    s = s if softcap is None else torch.tanh(s / softcap) * softcap
    return s if bias is None else s + bias.to(s.dtype)


def _softmax(s: Tensor, hidden: Tensor) -> Tensor:
    """torch's softmax, which sums in float32; zeros for an empty row."""
    empty = ((s == -INF) | hidden).all(-1, keepdim=True)
    return torch.softmax(s.masked_fill(hidden, -INF).masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def half_stored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """matmul, softmax, matmul: scores and weights are stored in the dtype of q."""
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    s = _finished(q @ k.mT, q.shape[-1], options)
    return _softmax(s, _hidden(q.shape[2], k.shape[2], options)) @ v


half_stored.__attnspec__ = {"precision": "stored"}  # type: ignore[attr-defined]


def half_online(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Online softmax over blocks of 16 keys, whose maximum, sum and output are stored in the dtype of q."""
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    s = _finished(q @ k.mT, q.shape[-1], options).masked_fill(_hidden(q.shape[2], k.shape[2], options), -INF)
    top = s.new_full((*s.shape[:-1], 1), -INF)
    total, out = torch.zeros_like(top), torch.zeros_like(top * v[..., :1, :] if k.shape[2] else s @ v)
    for i in range(0, s.shape[-1], 16):
        part = s[..., i : i + 16]
        new = torch.maximum(top, part.detach().amax(-1, keepdim=True))
        base = new.masked_fill(new == -INF, 0.0)
        e, keep = torch.exp(part - base), torch.exp(top - base)
        total, out, top = total * keep + e.sum(-1, keepdim=True), out * keep + e @ v[..., i : i + 16, :], new
    return out / total.masked_fill(total == 0, 1.0)


half_online.__attnspec__ = {"precision": "stored-blocks"}  # type: ignore[attr-defined]


def half_fused(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Scores and softmax in float32 for 16-bit inputs; the weights are cast back before they meet the values."""
    wide = torch.float32 if q.element_size() == 2 else q.dtype
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    s = _finished(q.to(wide) @ k.to(wide).mT, q.shape[-1], options)
    return _softmax(s, _hidden(q.shape[2], k.shape[2], options)).to(q.dtype) @ v


half_fused.__attnspec__ = {"precision": "fused"}  # type: ignore[attr-defined]


def half_positions_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """[B,T,H,·], made for bfloat16: the softmax in float32, its weights cast to the dtype of the values."""
    H = q.shape[2]
    k, v = k.repeat_interleave(H // k.shape[2], 2), v.repeat_interleave(H // v.shape[2], 2)
    s = _finished(torch.einsum("bthd,bshd->bhts", q.float(), k.float()), q.shape[-1], options)
    weights = _softmax(s, _hidden(q.shape[1], k.shape[1], options)).to(v.dtype)
    return torch.einsum("bhts,bshe->bthe", weights, v)


half_positions_first.__attnspec__ = {  # type: ignore[attr-defined]
    "layout": "bthd",
    "dtypes": ("bfloat16",),
    "precision": "fused",
}
