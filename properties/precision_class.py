"""How exact a subject is, from outputs that it gave: the class that its errors fit, and its precision in bits.

Both are reported, never used for a verdict: a subject is judged by the class that it declares. They say something for small
cases (4 to 64 keys, scores of a few units) of a subject that computes the right thing; a wrong one fits no class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.bounds import of_output
from attnspec.properties.bounds_classes import CLASSES, WIDE, Precision, precision
from attnspec.properties.bounds_preconditions import inapplicable
from attnspec.properties.case import Inputs
from attnspec.properties.oracle import Call
from attnspec.properties.subject import FloatArray, Profile

Samples = Sequence[tuple[Inputs, FloatArray]]  # inputs of one dtype and the subject's output for each
FINEST, COARSEST, STEP = -53.0, 0.0, 0.125  # of log2 u


def fitting_class(profile: Profile, samples: Samples) -> str | None:
    """The most exact precision class whose bound no sample exceeds; None where each is exceeded, or nothing is decided.

    Limits: `fused` wins ties, and on many keys of random sign a class that stores its scores may pass for `fused`, since
    their roundings average out; half accumulation hides inside `stored-blocks`. A subject that computes float64 in
    float32 fits no class.
    """
    known = _compared(profile, samples)
    if not known:
        return None
    dtype = known[0].x.dtype
    for kind in ("wide",) if dtype in WIDE else CLASSES:
        if _worst(known, precision(kind, dtype)) <= 1:
            return kind
    return None


def equivalent_bits(profile: Profile, samples: Samples) -> float | None:
    """The significand that a subject seems to compute with, in bits: 24 for float32, 53 for float64, 11 and 8 for the halves.

    It is the smallest roundoff u with which the bound of class `wide` covers all samples, compared with the same for an
    emulated float32 computation of the same samples. None where nothing is decided or no u will do.

    Limits: right to about two bits for 4 to 64 keys and a handful of samples; the errors of stored weights average out over
    more keys, and rounding of the output alone leaves one to three bits more than its format has. What is as exact as
    float64 gives 45 or more. A result that is exact (one key, equal values) tells nothing.
    """
    known = _compared(profile, samples)
    own = _smallest_unit(known)
    if own is None:
        return None
    emulated = [_Compared(y.x, y.call, _in_float32(y.call)) for y in _compared(profile, _as_float32(samples))]
    theirs = _smallest_unit(emulated)
    return None if theirs is None else 24.0 + theirs - own


@dataclass(frozen=True)
class _Compared:
    x: Inputs
    call: Call
    got: FloatArray

    def ratio(self, f: Precision) -> float:
        """The largest error in units of the bound, where a query sees a key."""
        y = self.call.analysis(f)
        if y is None:
            return 0.0
        error, seen = of_output(y).error, y.a.n[..., 0] > 0
        with np.errstate(all="ignore"):
            off = np.abs(np.where(np.isfinite(self.got), self.got, np.inf) - y.a.o)[seen]
            return float(np.where(off == 0, 0.0, off / error[seen]).max(initial=0.0))


def _compared(profile: Profile, samples: Samples) -> list[_Compared]:
    """The samples to which the bounds of every class of the dtype apply: `stored-blocks` asks most."""
    found = []
    for x, got in samples:
        call = Call.of(profile, x)
        f = precision("wide" if x.dtype in WIDE else "stored-blocks", x.dtype)
        y = call.analysis(f)
        if y is not None and not x.dropout and inapplicable(y.a, f) is None:
            found.append(_Compared(x, call, got))
    if len({y.x.dtype for y in found}) > 1:
        raise ValueError("samples of several dtypes; give those of one")
    return found


def _worst(known: Sequence[_Compared], f: Precision) -> float:
    return max((y.ratio(f) for y in known), default=math.inf)


def _smallest_unit(known: Sequence[_Compared]) -> float | None:
    """log2 of the smallest u that covers all: the bound grows with u, so halving the interval finds it."""

    def covers(log_u: float) -> bool:
        # float64 in name, since every format has the same u: only its underflow is too small to matter
        f = Precision("float64", "wide", "float64", "float64", 2, 4, 2, 2, 2, 3, unit=2.0**log_u)
        return _worst(known, f) <= 1

    low, high = FINEST, COARSEST - 1
    if not known or not covers(high):
        return None
    while high - low > STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if covers(middle) else (middle, high)
    return high


def _as_float32(samples: Samples) -> list[tuple[Inputs, FloatArray]]:
    """The same inputs, rounded to float32; the outputs are not used."""

    def held(array: FloatArray | None) -> FloatArray | None:
        return None if array is None else numbers.rounded(array, "float32")

    return [
        (x.but(q=held(x.q), k=held(x.k), v=held(x.v), bias=held(x.bias), sinks=held(x.sinks), dtype="float32"), out)
        for x, out in samples
    ]


def _in_float32(call: Call) -> FloatArray:
    """Attention computed in float32, as plainly as can be."""
    q, k, v = (array.astype(np.float32) for array in (call.q, call.k, call.v))
    k, v = (np.repeat(array, q.shape[1] // array.shape[1], axis=1) for array in (k, v))
    scale = q.shape[3] ** -0.5 if call.scale is None else call.scale
    s = (q @ k.swapaxes(-1, -2)) * np.float32(scale)
    s = s if call.softcap is None else np.float32(call.softcap) * np.tanh(s / np.float32(call.softcap))
    s = s if call.bias is None else s + np.where(call.seen, call.bias, 0.0).astype(np.float32)
    s = np.where(call.seen, s, np.float32(-np.inf))
    m = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isneginf(m), np.float32(0), m))
    z = e.sum(-1, keepdims=True)
    return np.asarray((e / np.where(z == 0, np.float32(1), z)) @ v, dtype=np.float64)
