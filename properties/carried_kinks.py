"""What the rules of `carried_rules.py` leave to say for enclosures: functions whose rule is no majorant of their derivative.

An enclosure (`carried_enclosure.py`) has the derivative J of each operation, and needs a bound on the rest: for operands that
are off by a, |a| <= r,

    |f(x + a) - f(x) - J a| + rounding <= again(r) - |J| r                               (1)

For sums, products, quotients, exp, log, sqrt and powers again is the interval rule itself: it majorises the power series of
f, so that what it has beyond the linear term covers all terms beyond it. Others need a remainder of their own:

    tanh: 0.4 a^2, as |tanh''| <= 0.77;  sin, cos: a^2 / 2                               (2)
    max(x, y): max(0, r_x + r_y - |x - y|), as the larger one changes only within that;  |x|: 2 max(0, r - |x|)     (3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attnspec.properties import carried_rules as rules
from attnspec.properties.bounds import C_TANH
from attnspec.properties.carried_rules import Array, Pair
from attnspec.properties.carried_tape import Slope

REMAINDERS: dict[Any, Callable[..., Array]] = {
    np.tanh: lambda a: 0.4 * a[1] ** 2,
    np.sin: lambda a: 0.5 * a[1] ** 2,
    np.cos: lambda a: 0.5 * a[1] ** 2,
    np.maximum: lambda a, b: _overlap(a, b),
    np.minimum: lambda a, b: _overlap(a, b),
    np.absolute: lambda a: 2 * np.maximum(0.0, a[1] - np.abs(a[0])),
}
ROUNDINGS = {np.tanh: C_TANH, np.sin: rules.C_OTHER, np.cos: rules.C_OTHER}


def widened(
    function: Any, operands: Sequence[Pair], slopes: Sequence[Slope], errors: Sequence[Array], unit: float
) -> Array:  # fmt: skip
    """again of (1), for an elementwise function; errors are those of the operands that slopes belong to."""
    if function not in REMAINDERS:
        return rules.UFUNCS[function](*operands, unit)[1]
    value = np.asarray(function(*(value for value, _ in operands)))
    linear = sum((by.spread(error) for by, error in zip(slopes, errors, strict=True)), start=np.zeros(value.shape))
    error = linear + REMAINDERS[function](*operands)
    if function not in ROUNDINGS:
        return np.where(np.isinf(value), linear, error)
    size = np.abs(value) + error if function is np.tanh else 1.0
    return rules.stored(value, error + ROUNDINGS[function] * rules.inner(unit) * size + rules.lost(unit), unit)


def widened_max(value: Array, error: Array, slope: Array, axis: Any, keepdims: bool) -> Array:
    """again of (1), for the largest entry along an axis: another may take its place if their errors reach each other."""
    top = np.max(value, axis=axis, keepdims=True)
    largest, of_top = slope > 0, np.max(np.where(slope > 0, error, 0.0), axis=axis, keepdims=True)
    alone = np.sum(largest, axis=axis, keepdims=True) == 1
    gap = np.where(np.isinf(value), np.inf, top - value)
    rest = np.maximum(0.0, np.where(largest & alone, 0.0, error + of_top - gap))
    widest: Array = np.sum(error * slope, axis=axis, keepdims=keepdims) + np.max(rest, axis=axis, keepdims=keepdims)
    return widest


def _overlap(a: Pair, b: Pair) -> Array:
    reach = np.where(np.isinf(a[0]), 0.0, a[1]) + np.where(np.isinf(b[0]), 0.0, b[1])
    beyond: Array = np.maximum(0.0, reach - np.abs(a[0] - b[0]))
    return beyond
