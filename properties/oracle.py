"""What the reference says under a subject's conventions, and how far a correct subject may be from it.

Values come from `attnspec.reference`, allowed errors from `bounds`; the profile supplies the conventions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from attnspec.properties import bounds
from attnspec.properties.bounds_backward import backward
from attnspec.properties.case import Inputs
from attnspec.properties.subject import Attention, BoolArray, FloatArray, Profile
from attnspec.reference.attention import attention
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.mask import visible_keys, window_mask
from attnspec.reference.shapes import EmptyRow


@dataclass(frozen=True)
class Expected:
    """A value, the error allowed around it, and the derivation in a line."""

    out: FloatArray
    error: FloatArray
    why: str


@dataclass
class Clock:
    """Seconds spent in the oracle since the start of this process."""

    seconds: float = 0.0


CLOCK = Clock()
P = ParamSpec("P")
R = TypeVar("R")


def _timed(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            CLOCK.seconds += time.perf_counter() - start

    return run


def visible(profile: Profile, x: Inputs) -> BoolArray:
    """True where a query may attend to a key: the intersection of mask, -inf bias, causal flag and window; [B,H,T,S]."""
    queries, keys = x.q.shape[2], x.k.shape[2]
    alignment = profile.alignment
    seen = visible_keys(queries, keys, mask=x.mask, bias=x.bias, causal=alignment if x.causal else None)
    if x.window is not None:
        seen = seen & window_mask(queries, keys, x.window, alignment, profile.get("window", "left"))
    return np.broadcast_to(seen, (*x.q.shape[:3], keys))


def output(profile: Profile, x: Inputs) -> FloatArray:
    """The reference's output under the subject's conventions, without a bound."""
    seen = visible(profile, x)
    return attention(x.q, x.k, x.v, mask=seen, bias=x.bias, scale=x.scale, softcap=x.softcap, empty_row=_policy(profile, x))


@_timed
def expected(profile: Profile, x: Inputs) -> Expected:
    """The reference's output and the bound E of docs/bounds.md on a correct subject's distance from it."""
    seen = visible(profile, x)
    policy = _policy(profile, x)
    out = attention(x.q, x.k, x.v, mask=seen, bias=x.bias, scale=x.scale, softcap=x.softcap, empty_row=policy)
    error = _allowed(x, seen)
    empty = ~seen.any(-1, keepdims=True)
    if empty.any() and policy == "mean":  # all scores count as equal, whatever hid them
        error = np.where(empty, _allowed(x.but(q=np.zeros_like(x.q), bias=None), np.ones_like(seen)), error)
    if empty.any() and policy == "unmasked":
        bias = None if x.bias is None else np.where(np.isneginf(x.bias), 0.0, x.bias)
        error = np.where(empty, _allowed(x.but(bias=bias), np.ones_like(seen)), error)
    return Expected(out, error, derivation(x))


@_timed
def expected_gradients(profile: Profile, x: Inputs, cotangent: FloatArray) -> dict[str, Expected]:
    """The reference's vector-Jacobian products for q, k, v with the bounds of docs/bounds.md."""
    seen = visible(profile, x)
    values = attention_backward(x.q, x.k, x.v, cotangent, mask=seen, bias=x.bias, scale=x.scale, softcap=x.softcap)
    allowed = backward(
        x.q,
        x.k,
        x.v,
        cotangent,
        visible=seen,
        bias=x.bias,
        scale=x.scale,
        softcap=x.softcap,
        precision=bounds.wide(x.dtype),
    )
    why = derivation(x).replace("Forward", "Gradients")
    errors = (allowed.q, allowed.k, allowed.v)
    return {name: Expected(value, e, why) for name, value, e in zip("qkv", values[:3], errors, strict=True)}


def _allowed(x: Inputs, seen: BoolArray) -> FloatArray:
    precision = bounds.wide(x.dtype)
    return bounds.forward(
        x.q, x.k, x.v, visible=seen, bias=x.bias, scale=x.scale, softcap=x.softcap, precision=precision
    ).error


def _policy(profile: Profile, x: Inputs) -> EmptyRow:
    """What an empty row becomes; where a subject raises, no case has one, and zero stands for it."""
    declared = profile.get("empty_row", "zero")
    if x.bias is not None and not profile.promises("empty_row"):
        declared = profile.get("empty_row_bias", declared)
    policies: tuple[EmptyRow, ...] = ("zero", "mean", "unmasked", "nan")
    return next((p for p in policies if p == declared), "zero")


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
    return f"bound E of docs/bounds.md (Forward), class wide, u = {u}, {x.k.shape[2]} keys, D = {x.q.shape[3]}"
