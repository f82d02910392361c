"""Correct implementations in torch that return more than the output, or take sinks and dropout; each is a variant."""

import math

import torch
from torch import Tensor

INF = float("inf")


def _scores(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Biased scores, minus infinity where a key is hidden, in float32 for 16-bit inputs: [B,H,T,S]."""
    q, k = _wide(q), _wide(k).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    s = torch.einsum("bhtd,bhsd->bhts", q * (1 / math.sqrt(q.shape[-1]) if scale is None else scale), k)
    s = s if softcap is None else torch.tanh(s / softcap) * softcap
    s = s if bias is None else s + bias.to(s.dtype)
    behind = torch.arange(s.shape[2])[:, None] - torch.arange(s.shape[3])
    hidden = torch.zeros_like(behind, dtype=torch.bool) if mask is None else ~mask
    if causal:
        hidden = hidden | (behind < 0)
    if window is not None:
        hidden = hidden | (behind < 0) | (behind >= window)
    return s.masked_fill(hidden, -INF)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.element_size() == 2 else x


def _softmax(s: Tensor) -> Tensor:
    """torch's softmax; zeros for an empty row."""
    empty = (s == -INF).all(-1, keepdim=True)
    return torch.softmax(s.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def _mixed(weights: Tensor, v: Tensor) -> Tensor:
    return weights @ _wide(v).repeat_interleave(weights.shape[1] // v.shape[1], dim=1)


def with_weights(
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
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Always a pair, whose second is None unless weights are asked for."""
    weights = _softmax(_scores(q, k, mask, bias, causal, scale, window, softcap))
    return _mixed(weights, v).to(q.dtype), weights.to(q.dtype) if need_weights else None


def with_lse(
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
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """torch.logsumexp beside the output where it is asked for, else the output alone."""
    s = _scores(q, k, mask, bias, causal, scale, window, softcap)
    out = _mixed(_softmax(s), v).to(q.dtype)
    return (out, torch.logsumexp(s, -1)) if return_lse else out


def with_sinks_and_dropout(
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
) -> Tensor:
    """The sink is a column that is cut off after the softmax; dropout draws one number for each weight, in float32."""
    s = _scores(q, k, mask, bias, causal, scale, window, softcap)
    if sinks is None:
        weights = _softmax(s)
    else:
        column = sinks.to(s.dtype).reshape(1, -1, 1, 1).expand(*s.shape[:3], 1)
        weights = _softmax(torch.cat([s, column], dim=-1))[..., :-1]
    if dropout > 0:
        draw = torch.Generator().manual_seed(seed)
        keep = torch.empty(weights.shape).uniform_(generator=draw) > dropout
        weights = torch.where(keep, weights / (1 - dropout), 0.0)
    return _mixed(weights, v).to(q.dtype)
