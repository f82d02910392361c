"""How the error of each elementary operation follows from the errors of its operands.

A number x is carried with e >= |x' - x|, where x' is what any correct computation of the same formula with roundoff u may
have in its place: sums in any order, products fused or not, exp, log and tanh good to a few units (numerics of
`bounds.py`, C_EXP, C_LOG, C_TANH). Each rule here is a proven inequality: what the operand errors can do to the exact
operation, plus its own rounding. First-order shortcuts are not taken. Source: Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., sec. 3.3 (running error analysis), lemma 3.1 (gamma_n).

bfloat16 is a format to store numbers in: what an elementary operation makes is rounded to it once, and the operation itself,
with all partial sums, exponentials and the like, works in float32 (`inner`), as the kernels of every library do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnspec.properties.bounds import C_EXP, C_LOG, C_TANH

Array = NDArray[np.float64]
Pair = tuple[Array, Array]  # a value and its error
C_OTHER = 4  # declared error of sqrt, sin, cos and power in units of u; correctly rounded would be 1
BFLOAT16, FLOAT32, FLOAT64 = 2.0**-8, 2.0**-24, 2.0**-53
_TINY = float(np.finfo(np.float32).tiny)
SMALLEST = {BFLOAT16: _TINY, FLOAT32: _TINY, FLOAT64: float(np.finfo(np.float64).tiny)}  # normal numbers
# Constants of so few bits, as 0.5, 2 and 3, are exact in every format, and in bfloat16.
DYADIC, DYADIC_BFLOAT16 = 2.0**11, 2.0**8


def gamma(n: float, u: float) -> float:
    """n u / (1 - n u): the relative error of n roundings."""
    return n * u / (1 - n * u)


def inner(u: float) -> float:
    """The roundoff inside of an operation whose result is rounded to u."""
    return FLOAT32 if u == BFLOAT16 else u


def stored(value: Array, error: Array, u: float) -> Array:
    """The error after a result is rounded from the inner format to u, if that is another."""
    return error if inner(u) == u else error + u * (np.abs(value) + error) + lost(u)


def constant(x: Any, u: float) -> Pair:
    """A number of the formula, not of the data: exact if short or an integer, else it was rounded or computed."""
    value = np.asarray(x, dtype=np.float64)
    if np.asarray(x).dtype.kind in "biu":
        return value, np.zeros_like(value)
    return value, np.where(~np.isfinite(value) | is_short(value, u), 0.0, 2 * u * np.abs(value))


def is_short(value: Array, u: float) -> NDArray[np.bool_]:
    """Whether numbers have so few bits that no rounding touches them."""
    return np.asarray(np.modf(np.frexp(value)[0] * (DYADIC_BFLOAT16 if u == BFLOAT16 else DYADIC))[0] == 0)


def lost(u: float) -> float:
    """What an underflow may lose: a result below the smallest normal number may become zero."""
    return SMALLEST.get(u, 0.0)


def rounded(value: Array, error: Array, roundings: Any, u: float) -> Pair:
    """Adds the rounding of the result itself; infinities are exact, as they come only from masks."""
    inside = error + roundings * inner(u) * (np.abs(value) + error)
    error = np.where(np.asarray(roundings) == 0, inside, stored(value, inside, u))
    return value, np.where(np.isinf(value), 0.0, error)


def add(a: Pair, b: Pair, u: float) -> Pair:
    return rounded(a[0] + b[0], a[1] + b[1], 1, u)


def subtract(a: Pair, b: Pair, u: float) -> Pair:
    return rounded(a[0] - b[0], a[1] + b[1], 1, u)


def multiply(a: Pair, b: Pair, u: float) -> Pair:
    error = np.abs(a[0]) * b[1] + (np.abs(b[0]) + b[1]) * a[1]
    exact = ((a[1] == 0) & _is_power_of_two(a[0])) | ((b[1] == 0) & _is_power_of_two(b[0]))
    return rounded(a[0] * b[0], error + np.where(exact, 0.0, lost(u)), np.where(exact, 0, 1), u)


def divide(a: Pair, b: Pair, u: float) -> Pair:
    value, rest = a[0] / b[0], np.abs(b[0]) - b[1]
    error = np.where(rest > 0, (a[1] + np.abs(value) * b[1]) / np.where(rest > 0, rest, 1.0), np.inf)
    return rounded(value, error + lost(u), 1, u)


def maximum(a: Pair, b: Pair, _: float) -> Pair:
    return np.maximum(a[0], b[0]), np.maximum(_finite(a), _finite(b))


def minimum(a: Pair, b: Pair, _: float) -> Pair:
    return np.minimum(a[0], b[0]), np.maximum(_finite(a), _finite(b))


def negative(a: Pair, _: float) -> Pair:
    return -a[0], a[1]


def absolute(a: Pair, _: float) -> Pair:
    return np.abs(a[0]), a[1]


def square(a: Pair, u: float) -> Pair:
    return multiply(a, a, u)


def exp(a: Pair, u: float) -> Pair:
    value = np.exp(a[0])
    finite = np.where(np.isinf(a[0]), 0.0, np.abs(a[0]))
    # 3 |x|: exp may be computed as exp2(x log2(e)), whose argument has three roundings
    return rounded(value, value * np.expm1(a[1]) + lost(u), C_EXP + 3 * finite, u)


def expm1(a: Pair, u: float) -> Pair:
    return rounded(np.expm1(a[0]), np.exp(a[0]) * np.expm1(a[1]) + lost(u), C_EXP, u)


def log(a: Pair, u: float) -> Pair:
    relative = np.divide(a[1], a[0], out=np.where(a[1] == 0, 0.0, np.inf), where=a[0] > 0)
    error = np.where(relative < 1, -np.log1p(-np.minimum(relative, 1 - 2**-20)), np.inf)
    return rounded(np.log(a[0]), error, C_LOG, u)


def log1p(a: Pair, u: float) -> Pair:
    relative = np.divide(a[1], 1 + a[0])
    error = np.where(relative < 1, -np.log1p(-np.minimum(relative, 1 - 2**-20)), np.inf)
    return rounded(np.log1p(a[0]), error, C_LOG, u)


def sqrt(a: Pair, u: float) -> Pair:
    value = np.sqrt(a[0])
    below = value + np.sqrt(np.maximum(a[0] - a[1], 0.0))
    error = np.where(below > 0, a[1] / np.where(below > 0, below, 1.0), np.sqrt(a[1]))
    return rounded(value, error, C_OTHER, u)


def tanh(a: Pair, u: float) -> Pair:
    value = np.tanh(a[0])
    slope = (1 - value**2) * a[1] + 0.4 * a[1] ** 2  # |tanh''| <= 0.77
    return rounded(value, np.minimum(slope, a[1]) + lost(u), C_TANH, u)


def sine(function: Callable[[Array], Array]) -> Callable[[Pair, float], Pair]:
    """Of sin and cos: both have slopes of at most one; near a zero the rounding is absolute, as the argument is reduced."""

    def rule(a: Pair, u: float) -> Pair:
        value = function(a[0])
        return value, stored(value, np.minimum(a[1], 2.0) + C_OTHER * inner(u), u)

    return rule


def power(a: Pair, b: Pair, u: float) -> Pair:
    """a^b of a positive a, possibly computed as exp(b ln a); or a small positive integer power of any a."""
    value = np.power(a[0], b[0])
    if np.all(a[0] > 0):
        relative = np.divide(a[1], a[0])
        most = -np.log1p(-np.minimum(relative, 0.5))  # how far the logarithm of a may move
        logarithm = np.abs(b[0]) * most + b[1] * (np.abs(np.log(a[0])) + most)
        return rounded(value, value * np.expm1(logarithm), C_OTHER + 3 * np.abs(b[0] * np.log(a[0])), u)
    if np.any(b[1] > 0) or np.any(b[0] < 1) or np.any(b[0] % 1):
        raise NotImplementedError(f"power({a[0]}, {b[0]}): only positive bases or positive integer exponents")
    return rounded(value, b[0] * (np.abs(a[0]) + a[1]) ** (b[0] - 1) * a[1], b[0], u)


def total(a: Pair, axis: Any, keepdims: bool, u: float) -> Pair:
    """A sum of n terms in any order: at most n - 1 roundings reach a term."""
    value = np.sum(a[0], axis=axis, keepdims=keepdims)
    n = a[0].size / max(value.size, 1)
    error = np.sum(a[1], axis=axis, keepdims=keepdims)
    moved = np.sum(np.abs(a[0]) + a[1], axis=axis, keepdims=keepdims)
    return value, np.where(np.isinf(value), 0.0, stored(value, error + gamma(max(n - 1, 0), inner(u)) * moved, u))


def contraction(subscripts: str, pairs: Sequence[Pair], u: float, folded: bool = False) -> Pair:
    """einsum: sums of n products of k factors in any order; at most n - 1 + k - 1 roundings reach a term.

    The errors of the factors are replaced one by one, |a||b| -> e_a (|b| + e_b) + |a| e_b, which is exact and does not
    cancel as (|a| + e_a)(|b| + e_b) - |a||b| would. More than two factors may be multiplied pair by pair, and each product
    stored; folded: one of them may be scaled and stored before, as queries are.
    """
    n = summed_terms(subscripts, [value.shape for value, _ in pairs])
    value = np.einsum(subscripts, *(v for v, _ in pairs))
    size = [np.abs(v) for v, _ in pairs]
    widened = [np.abs(v) + e for v, e in pairs]
    error = np.zeros_like(value)
    for i, (_, e) in enumerate(pairs):
        error = error + np.einsum(subscripts, *size[:i], e, *widened[i + 1 :])
    sizes = np.einsum(subscripts, *widened)
    error = error + gamma(max(n - 1, 0) + len(pairs) - 1, inner(u)) * sizes + n * lost(u)
    if inner(u) != u:
        error = error + gamma(len(pairs) - 2 + folded, u) * sizes
    return value, stored(value, error, u)


def summed_terms(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> float:
    """How many products an entry of an einsum adds up: the sizes of the letters that its output lacks, multiplied."""
    inputs, output = subscripts.replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for letters, shape in zip(inputs.split(","), shapes, strict=True):
        head, _, tail = letters.partition("...")
        ends = (*shape[: len(head)], *shape[len(shape) - len(tail) :])
        sizes |= dict(zip(head + tail, ends, strict=True))
    return float(np.prod([size for letter, size in sizes.items() if letter not in output]))


def running_total(a: Pair, axis: int, u: float) -> Pair:
    """A cumulative sum: the last of n partial sums has n - 1 roundings, and no other has more."""
    moved = np.cumsum(np.abs(a[0]) + a[1], axis=axis)
    n = a[0].shape[axis]
    value = np.cumsum(a[0], axis=axis)
    return value, stored(value, np.cumsum(a[1], axis=axis) + gamma(max(n - 1, 0), inner(u)) * moved, u)


def _finite(a: Pair) -> Array:
    return np.where(np.isinf(a[0]), 0.0, a[1])


def _is_power_of_two(x: Array) -> NDArray[np.bool_]:
    return np.asarray((x == 0) | (np.abs(np.frexp(x)[0]) == 0.5))


UFUNCS: dict[Any, Callable[..., Pair]] = {
    np.add: add, np.subtract: subtract, np.multiply: multiply, np.divide: divide, np.maximum: maximum,
    np.minimum: minimum, np.negative: negative, np.absolute: absolute, np.square: square, np.exp: exp,
    np.expm1: expm1, np.log: log, np.log1p: log1p, np.sqrt: sqrt, np.tanh: tanh, np.sin: sine(np.sin),
    np.cos: sine(np.cos), np.power: power,
}  # fmt: skip
