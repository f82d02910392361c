"""Correct implementations in torch; each public function is a variant."""

import math
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

INF = float("inf")


class _Options(TypedDict, total=False):
    mask: Tensor | None
    bias: Tensor | None
    causal: bool
    scale: float | None
    window: int | None
    softcap: float | None


def _hidden(q: Tensor, T: int, S: int, options: _Options, shift: int = 0) -> Tensor:
    """True where a key may not be attended to; at least [T,S]."""
    t = torch.arange(T, device=q.device).unsqueeze(-1) + shift
    s = torch.arange(S, device=q.device)
    hidden = torch.zeros(T, S, dtype=torch.bool, device=q.device)
    if options.get("causal"):
        hidden = hidden | (s > t)
    window, mask = options.get("window"), options.get("mask")
    if window is not None:
        hidden = hidden | (s > t) | (s <= t - window)
    return hidden if mask is None else hidden | ~mask


def _finish(raw: Tensor, q: Tensor, options: _Options) -> Tensor:
    """q·k to biased scores."""
    scale, softcap, bias = options.get("scale"), options.get("softcap"), options.get("bias")
    s = raw * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    s = s if softcap is None else torch.tanh(s / softcap) * softcap
    return s if bias is None else s + bias.to(s.dtype)


def _grouped(x: Tensor, H: int) -> Tensor:
    """Key/value heads repeated without a copy."""
    B, G, S, width = x.shape
    return x[:, :, None].expand(B, G, H // G, S, width).flatten(1, 2)


def _scores(q: Tensor, k: Tensor, options: _Options) -> Tensor:
    """Biased scores with minus infinity where a key is hidden: [B,H,T,S]."""
    s = _finish(q @ _grouped(k, q.shape[1]).transpose(-1, -2), q, options)
    return s.masked_fill(_hidden(q, q.shape[2], k.shape[2], options), -INF)


def _top(s: Tensor) -> Tensor:
    """Row maximum, 0 for an empty row."""
    top = s.detach().max(dim=-1, keepdim=True).values
    return torch.where(top == -INF, torch.zeros_like(top), top)


def _weights(s: Tensor) -> Tensor:
    """Softmax; an empty row gets zeros. The sum of any other row is at least exp(0)."""
    e = torch.exp(s - _top(s))
    return e / e.sum(-1, keepdim=True).clamp(min=1.0)


def online_blocks(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Online softmax over blocks of three keys, larger ones where there are thousands of keys."""
    s, w = _scores(q, k, options), _grouped(v, q.shape[1])
    top = torch.full_like(s[..., :1], -INF).detach()
    total, out = torch.zeros_like(s[..., :1]), torch.zeros_like(s[..., :1] * w[..., :1, :])
    block = max(3, s.shape[-1] // 512)
    for i in range(0, s.shape[-1], block):
        part, values = s[..., i : i + block], w[..., i : i + block, :]
        new = torch.maximum(top, part.detach().amax(-1, keepdim=True))
        base = new.masked_fill(new == -INF, 0.0)
        e, keep = (part - base).exp(), (top - base).exp()
        total, out, top = total * keep + e.sum(-1, keepdim=True), out * keep + e @ values, new
    return out / total.masked_fill(total == 0, 1.0)


def split_keys(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Even and odd keys apart, merged by their log-sum-exp."""
    s, w = _scores(q, k, options), _grouped(v, q.shape[1])
    out, lse = [], []
    for start in range(min(2, s.shape[-1])):
        part = s[..., start::2]
        e = torch.exp(part - _top(part))
        total = e.sum(-1, keepdim=True)
        out.append(e @ w[..., start::2, :] / total.masked_fill(total == 0, 1.0))
        lse.append((_top(part) + total.masked_fill(total == 0, 1.0).log()).masked_fill(total == 0, -INF))
    both = torch.cat(lse, -1)
    return (_weights(both).unsqueeze(-1) * torch.stack(out, dim=-2)).sum(-2)


def row_by_row(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """One query at a time, over its visible keys only."""
    B, H, T, _ = q.shape
    G, S, E = v.shape[1:]
    seen = ~_hidden(q, T, S, options).expand(B, H, T, S)
    bias = options.pop("bias", None)
    bias = None if bias is None else bias.expand(B, H, T, S)
    rows = []
    for b, h, t in ((b, h, t) for b in range(B) for h in range(H) for t in range(T)):
        keys = torch.nonzero(seen[b, h, t]).squeeze(-1)
        g = h // (H // G)
        s = _finish(k[b, g, keys] @ q[b, h, t], q, options)
        s = s if bias is None else s + bias[b, h, t, keys].to(s.dtype)
        e = torch.exp(s - _top(s)) if len(keys) else s
        rows.append(e @ v[b, g, keys] / e.sum().masked_fill(e.sum() == 0, 1.0))
    return torch.stack(rows).reshape(B, H, T, E)


def base_two(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """exp2 with log2(e) folded into the scores."""
    s = _scores(q, k, options) * math.log2(math.e)
    e = torch.exp2(s - _top(s))
    total = e.sum(-1, keepdim=True)
    return (e / torch.where(total == 0, torch.ones_like(total), total)) @ _grouped(v, q.shape[1])


def float64_inside(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Computed in float64, returned in the dtype of q."""
    return (_weights(_scores(q.double(), k.double(), options)) @ _grouped(v.double(), q.shape[1])).to(q.dtype)


def prescaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Queries and keys each multiplied by the root of the scale."""
    scale = options.get("scale")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    root, sign = math.sqrt(abs(scale)), math.copysign(1.0, scale)
    options["scale"] = 1.0
    s = _scores(q * (sign * root), k * root, options)
    return _weights(s) @ _grouped(v, q.shape[1])


def einsum_in_groups(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Heads folded into [G, H/G]; keys and values are never repeated."""
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    raw = torch.einsum("bgntd,bgsd->bgnts", q.reshape(B, G, H // G, T, D), k)
    s = _finish(raw.reshape(B, H, T, S), q, options).masked_fill(_hidden(q, T, S, options), -INF)
    weights = _weights(s).reshape(B, G, H // G, T, S)
    return torch.einsum("bgnts,bgse->bgnte", weights, v).reshape(B, H, T, v.shape[-1])


def divided_last(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """The sum of the weights is a column of ones beside the values, divided out at the end."""
    s, w = _scores(q, k, options), _grouped(v, q.shape[1])
    mixed = torch.exp(s - _top(s)) @ torch.cat([w, torch.ones_like(w[..., :1])], dim=-1)
    return mixed[..., :-1] / mixed[..., -1:].clamp(min=1.0)


def minus_infinity_added(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Hiding by an additive mask of 0 and minus infinity; empty rows replaced before the softmax."""
    T, S = q.shape[2], k.shape[2]
    added = torch.zeros((), dtype=q.dtype).masked_fill(_hidden(q, T, S, options), -INF)
    s = _finish(q @ _grouped(k, q.shape[1]).mT, q, options) + added
    empty = (s == -INF).all(-1, keepdim=True)
    weights = torch.softmax(s.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)
    return weights @ _grouped(v, q.shape[1])


def log_softmax(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """exp of the log-softmax."""
    s = _scores(q, k, options)
    empty = (s == -INF).all(-1, keepdim=True)
    weights = torch.log_softmax(s.masked_fill(empty, 0.0), -1).exp()
    return torch.where(empty, 0.0, weights) @ _grouped(v, q.shape[1])


def positions_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Queries, keys, values and result are [B,T,H,·]."""
    n = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(n, dim=2), v.repeat_interleave(n, dim=2)
    s = _finish(torch.einsum("bthd,bshd->bhts", q, k), q, options)
    s = s.masked_fill(_hidden(q, q.shape[1], k.shape[1], options), -INF)
    return torch.einsum("bhts,bshe->bthe", _weights(s), v)


positions_first.__attnspec__ = {"layout": "bthd"}  # type: ignore[attr-defined]


def list_of_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """A python list of heads, each computed from [B,T,S] scores by batched products."""
    B, H, T, _ = q.shape
    n, S = H // k.shape[1], k.shape[2]
    hidden = _hidden(q, T, S, options).expand(B, H, T, S)
    bias = options.pop("bias", None)
    heads = []
    for h in range(H):
        s = _finish(torch.bmm(q[:, h], k[:, h // n].transpose(1, 2)), q, options)
        s = s if bias is None else s + bias.expand(B, H, T, S)[:, h].to(s.dtype)
        heads.append(torch.bmm(_weights(s.masked_fill(hidden[:, h], -INF)), v[:, h // n]))
    return torch.stack(heads, dim=1)


def torch_fused(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """torch's own function; under a soft cap it gets zeros as queries and the finished scores as a mask."""
    T, S, H = q.shape[2], k.shape[2], q.shape[1]
    k, v = _grouped(k, H), _grouped(v, H)
    bias, scale = options.get("bias"), options.get("scale")
    if options.get("softcap") is None:
        added = torch.zeros((), dtype=q.dtype) if bias is None else bias.to(q.dtype)
    else:
        added, q, scale = _finish(q @ k.mT, q, options), torch.zeros_like(q), 1.0
    added = added.masked_fill(_hidden(q, T, S, options), -INF)
    return scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)


class _ByHand(torch.autograd.Function):
    """softmax(s) v with a backward pass from the formulas."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, v: Tensor) -> Tensor:
        weights = _weights(s)
        out = weights @ v
        ctx.save_for_backward(weights, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        weights, v, out = ctx.saved_tensors
        row = (grads[0] * out).sum(-1, keepdim=True)
        return weights * (grads[0] @ v.mT - row), weights.mT @ grads[0]


def backward_by_hand(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """A hand-written gradient: dS = P * (dP - rowsum(dO * O))."""
    out: Tensor = _ByHand.apply(_scores(q, k, options), _grouped(v, q.shape[1]))  # type: ignore[no-untyped-call]
    return out


def empty_row_mean(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """A large finite number in place of minus infinity: an empty row is the mean of all values."""
    low = max(-1e30, torch.finfo(q.dtype).min)
    s = _finish(q @ _grouped(k, q.shape[1]).mT, q, options).clamp(min=low)
    s = s.masked_fill(_hidden(q, q.shape[2], k.shape[2], options), low)
    return torch.softmax(s, -1) @ _grouped(v, q.shape[1])


empty_row_mean.__attnspec__ = {"empty_row": "mean"}  # type: ignore[attr-defined]


def last_aligned(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[_Options]) -> Tensor:
    """Causal and window count positions so that the last query meets the last key."""
    T, S = q.shape[2], k.shape[2]
    s = _finish(q @ _grouped(k, q.shape[1]).mT, q, options)
    s = s.masked_fill(_hidden(q, T, S, options, shift=S - T), -INF)
    return _weights(s) @ _grouped(v, q.shape[1])


last_aligned.__attnspec__ = {"alignment": "bottom-right"}  # type: ignore[attr-defined]
