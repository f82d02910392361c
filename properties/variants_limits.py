"""Correct implementations in torch with limits and conventions of their own; each public function is a variant."""

import math

import torch
from torch import Tensor

INF = float("inf")


def _hidden(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
    behind = torch.arange(s.shape[-2])[:, None] - torch.arange(s.shape[-1])
    hidden = torch.zeros_like(behind, dtype=torch.bool) if mask is None else ~mask
    if causal:
        hidden = hidden | (behind < 0)
    return hidden if window is None else hidden | (behind < 0) | (behind >= window)


def _finished(raw: Tensor, D: int, scale: float | None, softcap: float | None) -> Tensor:
    s = raw * (1 / math.sqrt(D) if scale is None else scale)
    return s if softcap is None else torch.tanh(s / softcap) * softcap


def _weights(s: Tensor, hidden: Tensor) -> Tensor:
    """Softmax of what is visible; zeros for an empty row."""
    empty = ((s == -INF) | hidden).all(-1, keepdim=True)
    return torch.softmax(s.masked_fill(hidden, -INF).masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def _wide(x: Tensor, H: int) -> Tensor:
    """Heads repeated, 16 bits as float32."""
    return (x.float() if x.element_size() == 2 else x).repeat_interleave(H // x.shape[1], dim=1)


def copied_first(
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
) -> Tensor:
    """Reads flat memory, so everything is copied into contiguous memory first; batched products of [B*H,·,·]."""
    (B, H, T, D), S, E = q.shape, k.shape[2], v.shape[3]
    flat = [_wide(x, H).contiguous().view(-1) for x in (q, k, v)]
    raw = torch.bmm(flat[0].view(B * H, T, D), flat[1].view(B * H, S, D).transpose(1, 2)).view(B, H, T, S)
    s = _finished(raw, D, scale, softcap)
    s = s if bias is None else s + bias.to(s.dtype)
    weights = _weights(s, _hidden(s, mask, causal, window)).view(B * H, T, S)
    return torch.bmm(weights, flat[2].view(B * H, S, E)).view(B, H, T, E).to(q.dtype)


def refuses_bias(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """A parameter for the bias, and a clear error where it is used."""
    if bias is not None:
        raise NotImplementedError("this kernel takes no bias; add it to the scores yourself")
    H = q.shape[1]
    s = _finished(_wide(q, H) @ _wide(k, H).mT, q.shape[-1], scale, None)
    return (_weights(s, _hidden(s, mask, causal, None)) @ _wide(v, H)).to(q.dtype)


def empty_row_nan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """An empty row is 0/0, and says so."""
    H = q.shape[1]
    s = _finished(_wide(q, H) @ _wide(k, H).mT, q.shape[-1], scale, None)
    s = s if bias is None else s + bias.to(s.dtype)
    return (torch.softmax(s.masked_fill(_hidden(s, mask, causal, None), -INF), -1) @ _wide(v, H)).to(q.dtype)


empty_row_nan.__attnspec__ = {"empty_row": "nan"}  # type: ignore[attr-defined]


def always_causal(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """A decoder's attention: no flag, key s is seen by query t where s <= t."""
    H = q.shape[1]
    s = _finished(_wide(q, H) @ _wide(k, H).mT, q.shape[-1], scale, softcap)
    return (_weights(s, _hidden(s, mask, True, None)) @ _wide(v, H)).to(q.dtype)


always_causal.__attnspec__ = {"causal": "always", "alignment": "top-left"}  # type: ignore[attr-defined]
