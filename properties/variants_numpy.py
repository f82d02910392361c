"""Correct implementations in NumPy, arrays in and out, in the dtype of q; each public function is a variant."""

import math
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class _Options(TypedDict, total=False):
    mask: Array | None
    bias: Array | None
    causal: bool
    scale: float | None
    window: int | None
    softcap: float | None


def _scores(q: Array, k: Array, options: _Options) -> Array:
    """Biased scores with minus infinity where a key is hidden: [B,H,T,S]."""
    s = q @ np.swapaxes(np.repeat(k, q.shape[1] // k.shape[1], axis=1), -1, -2)
    scale, softcap, bias = options.get("scale"), options.get("softcap"), options.get("bias")
    s = s * q.dtype.type(1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap is not None:
        s = q.dtype.type(softcap) * np.tanh(s / q.dtype.type(softcap))
    if bias is not None:
        s = s + bias.astype(s.dtype)
    behind = np.subtract.outer(np.arange(s.shape[-2]), np.arange(s.shape[-1]))
    allowed = np.ones_like(behind, dtype=bool)
    if options.get("causal"):
        allowed &= behind >= 0
    window, mask = options.get("window"), options.get("mask")
    if window is not None:
        allowed &= (behind >= 0) & (behind < window)
    if mask is not None:
        allowed = allowed & mask
    hidden: Array = np.where(allowed, s, s.dtype.type(-np.inf))
    return hidden


def _shifted(s: Array) -> Array:
    """exp(s - row maximum); zeros for an empty row."""
    top = s.max(axis=-1, keepdims=True)
    e: Array = np.exp(s - np.where(np.isinf(top), s.dtype.type(0), top))
    return e


def numpy_direct(q: Array, k: Array, v: Array, **options: Unpack[_Options]) -> Array:
    """The whole score matrix at once."""
    e = _shifted(_scores(q, k, options))
    weights = e / np.maximum(e.sum(axis=-1, keepdims=True), e.dtype.type(1))
    out: Array = weights @ np.repeat(v, q.shape[1] // v.shape[1], axis=1)
    return out


def numpy_numbers(q: Array, k: Array, v: Array, **options: Unpack[_Options]) -> Array:
    """Python numbers, one score and one sum at a time, added exactly by fsum."""
    (B, H, T, D), (G, S, E) = q.shape, v.shape[1:]
    scale, softcap, bias = options.get("scale"), options.get("softcap"), options.get("bias")
    window, mask, causal = options.get("window"), options.get("mask"), options.get("causal", False)
    scale = 1 / math.sqrt(D) if scale is None else scale
    bias = None if bias is None else np.broadcast_to(bias, (B, H, T, S))
    mask = None if mask is None else np.broadcast_to(mask, (B, H, T, S))
    out = np.zeros((B, H, T, E), dtype=q.dtype)
    for b, h, t in np.ndindex(B, H, T):
        g, row = h // (H // G), {}
        for s in range(S):
            if (causal and s > t) or (window is not None and not t - window < s <= t):
                continue
            if mask is not None and not mask[b, h, t, s]:
                continue
            x = scale * math.fsum(float(q[b, h, t, d]) * float(k[b, g, s, d]) for d in range(D))
            x = x if softcap is None else softcap * math.tanh(x / softcap)
            x = x if bias is None else x + float(bias[b, h, t, s])
            if x > -math.inf:
                row[s] = x
        if row:
            top = max(row.values())
            weights = {s: math.exp(x - top) for s, x in row.items()}
            total = math.fsum(weights.values())
            for c in range(E):
                out[b, h, t, c] = math.fsum(w * float(v[b, g, s, c]) for s, w in weights.items()) / total
    return out


def numpy_key_by_key(q: Array, k: Array, v: Array, **options: Unpack[_Options]) -> Array:
    """Online softmax, one key at a time, last key first."""
    s, w = _scores(q, k, options), np.repeat(v, q.shape[1] // v.shape[1], axis=1)
    top = np.full((*s.shape[:-1], 1), -np.inf, dtype=s.dtype)
    total, out = np.zeros_like(top), np.zeros((*s.shape[:-1], v.shape[-1]), dtype=s.dtype)
    for i in reversed(range(s.shape[-1])):
        new = np.maximum(top, s[..., [i]])
        base = np.where(np.isinf(new), new.dtype.type(0), new)
        keep, e = np.exp(top - base), np.exp(s[..., [i]] - base)
        total, out, top = total * keep + e, out * keep + e * w[..., i, None, :], new
    return out / np.where(total == 0, total.dtype.type(1), total)


def numpy_sorted(q: Array, k: Array, v: Array, **options: Unpack[_Options]) -> Array:
    """Weights added from the smallest to the largest."""
    e = _shifted(_scores(q, k, options))
    order = np.argsort(e, axis=-1)
    # In float32 at least: one by one in float16, a sum of ones stops at 2048.
    total = np.cumsum(np.take_along_axis(e, order, axis=-1), axis=-1, dtype=np.result_type(e, np.float32))[..., -1:]
    total = total.astype(e.dtype)
    w = np.repeat(v, q.shape[1] // v.shape[1], axis=1)
    weights = e / np.where(total == 0, total.dtype.type(1), total)
    out: Array = np.einsum("bhts,bhse->bhte", weights, w, optimize=True)
    return out
