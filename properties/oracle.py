"""What the reference says under a subject's conventions, and how far a correct subject may be from it.

Values come from `attnspec.reference`, allowed errors from `bounds`; the profile supplies the conventions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnspec.properties import bounds
from attnspec.properties.bounds_backward import backward
from attnspec.properties.case import Inputs
from attnspec.properties.subject import Attention, BoolArray, FloatArray, Profile
from attnspec.reference.attention import attention
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.mask import visible_keys, window_mask


@dataclass(frozen=True)
class Expected:
    """A value, the error allowed around it, and the derivation in a line."""

    out: FloatArray
    error: FloatArray
    why: str


def visible(profile: Profile, x: Inputs) -> BoolArray:
    """True where a query may attend to a key: the intersection of mask, -inf bias, causal flag and window; [B,H,T,S]."""
    queries, keys = x.q.shape[2], x.k.shape[2]
    alignment = profile.get("alignment", "top-left")
    seen = visible_keys(queries, keys, mask=x.mask, bias=x.bias, causal=alignment if x.causal else None)
    if x.window is not None:
        seen = seen & window_mask(queries, keys, x.window, alignment, profile.get("window", "left"))
    return np.broadcast_to(seen, (*x.q.shape[:3], keys))


def expected(profile: Profile, x: Inputs) -> Expected:
    """The reference's output and the bound E of numerics.md 5.2 on a correct subject's distance from it."""
    seen = visible(profile, x)
    policy = profile.get("empty_row", "zero")
    policy = policy if policy in ("zero", "mean", "unmasked", "nan") else "zero"
    options = {"bias": x.bias, "scale": x.scale, "softcap": x.softcap}
    out = attention(x.q, x.k, x.v, mask=seen, empty_row=policy, **options)
    error = bounds.forward(x.q, x.k, x.v, visible=seen, precision=bounds.wide(x.dtype), **options).error
    empty = ~seen.any(-1, keepdims=True)
    if empty.any() and policy in ("mean", "unmasked"):
        q = np.zeros_like(x.q) if policy == "mean" else x.q
        # As if nothing were masked; for the mean all scores are equal, whatever hid them.
        bias = None if policy == "mean" or x.bias is None else np.where(np.isneginf(x.bias), 0.0, x.bias)
        everywhere = bounds.forward(
            q, x.k, x.v, visible=np.ones_like(seen), precision=bounds.wide(x.dtype), **(options | {"bias": bias})
        ).error
        error = np.where(empty, everywhere, error)
    return Expected(out, error, derivation(x))


def expected_gradients(profile: Profile, x: Inputs, cotangent: FloatArray) -> dict[str, Expected]:
    """The reference's vector-Jacobian products for q, k, v with the bounds of numerics.md 5.3."""
    seen = visible(profile, x)
    options = {"bias": x.bias, "scale": x.scale, "softcap": x.softcap}
    values = attention_backward(x.q, x.k, x.v, cotangent, mask=seen, **options)
    allowed = backward(x.q, x.k, x.v, cotangent, visible=seen, precision=bounds.wide(x.dtype), **options)
    why = derivation(x).replace("5.2", "5.3")
    return {name: Expected(value, getattr(allowed, name), why) for name, value in zip("qkv", values[:3], strict=True)}


def rounding(profile: Profile, x: Inputs) -> FloatArray:
    """What rounding alone may add to a weighted mean of values as large as the largest in `v`; [B,H,T,1].

    The bound E for values that are all equal to max|v|: then the error of the scores cancels and only the rounding of the
    weights, the sums and the division is left.
    """
    flat = x.but(v=np.full((*x.v.shape[:3], 1), np.abs(x.v).max(initial=0.0)))
    return expected(profile, flat).error


def noise(subject: Attention, x: Inputs) -> FloatArray | None:
    """What two runs of a subject that is not deterministic may differ by; None for one that is (engine 4)."""
    if subject.profile.get("deterministic", True):
        return None
    return 2 * expected(subject.profile, x).error


def derivation(x: Inputs) -> str:
    """The bound in a line, for messages."""
    u = {"float64": "2^-53", "float32": "2^-24"}[x.dtype]
    return f"bound E of numerics.md 5.2, class wide, u = {u}, {x.k.shape[2]} keys, D = {x.q.shape[3]}"
