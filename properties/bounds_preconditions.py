"""Inputs to which the bounds do not apply (docs/bounds.md, 'Preconditions'): numbers that a format cannot hold on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attnspec.properties.bounds import nothing_to_bound
from attnspec.properties.bounds_classes import LARGEST, Precision, wide
from attnspec.properties.bounds_oracle import Array, Attention, attention


@np.errstate(all="ignore")
def inapplicable(a: Attention, f: Precision, cotangent: Array | None = None) -> str | None:
    """Why the bounds of a class do not apply to a case, or None. P3 is asked only with a cotangent.

    Products are formed before anything is hidden, and one that overflows may turn 0 into NaN: so P1 and P3 also count what no
    query sees, as far as it is finite. What is not was planted there.

    A bias of -max is allowed on some keys: P1 limits it from above, P5 asks that the row's maximum stays in range.
    """
    parts = [a.q, a.k, a.v] if a.bias is None else [a.q, a.k, a.v, a.bias]
    if any(np.isnan(part).any() for part in parts) or (a.bias is not None and np.isposinf(a.bias).any()):
        return "P4: a visible NaN or a bias of +inf"
    scores, sums, weights = (LARGEST[name] for name in (f.scores, f.accumulators, f.name))
    q, k, v = (np.abs(y) if a.dense else np.nan_to_num(np.abs(y), nan=0.0, posinf=0.0) for y in a.given)
    highest = max(float((q @ k.swapaxes(-1, -2)).max(initial=0.0)) * max(1.0, abs(a.scale)), a.largest(a.t))
    if not highest < scores / 2:
        return f"P1: scores reach {highest:.3g}, half of the largest {f.scores} or more"
    if not a.m.min(initial=0.0) > -scores / 2:
        return f"P5: every score of a row is below minus half of the largest {f.scores}"
    values = np.abs(a.v)
    total = a.visible @ values
    if not max(total.max(initial=0.0), a.n.max(initial=0.0)) < sums / 2:
        return f"P2: values of a row sum to {total.max():.3g}, half of the largest {f.accumulators} or more"
    if cotangent is not None:
        dO = np.where(a.n > 0, np.abs(cotangent), 0.0)
        sums_of_values = float((total * dO.max(-1, keepdims=True)).max(initial=0.0))
        dP = max(float((dO @ v.swapaxes(-1, -2)).max(initial=0.0)), sums_of_values)
        if not dP < weights / 4:
            return f"P3: the gradient of the weights reaches {dP:.3g}, a quarter of the largest {f.name} or more"
    return None


def preconditions(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    visible: ArrayLike,
    bias: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision | None = None,
    dtype: str = "float64",
    cotangent: ArrayLike | None = None,
) -> str | None:
    """`inapplicable` for arrays; without a class, `wide` in the dtype."""
    if nothing_to_bound(q, k, v):
        return None
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    along = None if cotangent is None else np.asarray(cotangent, dtype=np.float64)
    return inapplicable(a, wide(dtype) if precision is None else precision, along)
