"""The only place with tolerances: how far a correct floating-point computation of attention may be from the exact one.

A bound belongs to a precision class (`bounds_classes.py`). All classes have in common: any order and blocking of sums, fused
multiply-add or not, the scale folded into q and k or into the scores, exp or exp2, normalising before or after the product
with the values or by the logarithm of the sum, scores shifted by the row's or a running maximum. The same values go to the
oracle, so input rounding never enters. A subject passes where

    |got - want| <= forward(...).error                                                          (r <= 1)

`bounds_weights.py` has the weights and the log-sum-exp, `bounds_backward.py` the gradients, `bounds_preconditions.py` the
inputs to which none of them applies, `bounds_oracle.py` the exact values that all start from. Letters are those of
docs/bounds.md; `w` and `x` are its two functions. Arrays of two classes at once, the subject's and the oracle's, have a
leading axis F.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnspec.properties.bounds_classes import Formats, Precision, formats
from attnspec.properties.bounds_oracle import Array, Attention, attention

# Declared errors of exp, log and tanh in units of u_a (Constants; exp measured 1.0 to 2.9, one machine).
C_EXP, C_LOG, C_TANH = 4, 4, 8
NORMALISER = 2.0**-6  # declared: reached at scores of 1e5 in float32, whose own rounding moves weights by that much
CHUNK = 1 << 22  # numbers in the largest temporary array, 32 MiB


def w(n: float | Array, one: Array) -> Array:
    """Log-error budget of n roundings: a product of n factors 1 + delta, |delta| <= u, lies in exp(±w(n, u)) (Constants).

    `one` is the budget of one rounding, u / (1 - u): Formats has it for each u.
    """
    return n * one


def x(y: float | Array) -> Array:
    """Turns a budget into a relative error (Constants)."""
    return np.asarray(np.expm1(y))


def infinite_if_unknown(error: Array) -> Array:
    """An error that was inf · 0 or inf / inf is not known to be small (Forward)."""
    return np.where(np.isnan(error), np.inf, error)


def score_error(a: Attention, f: Formats) -> tuple[Array, Array]:
    """Error of a stored score before the soft cap, and e_j of the capped and biased score t (Forward)."""
    d, c = a.q.shape[-1], abs(a.scale)
    length = np.abs(a.q).sum(-1)[..., None] + np.abs(a.k).sum(-1)[..., None, :]
    lost = (2 * f.l_s + d * f.l_a * (1 + c)) + (f.prescaled * f.l_s * c**0.5) * length
    e = x(w(d + 6, f.w_a) + w(f.k_pre, f.w_s)) * a.a + lost
    e_score = e = e + x(w(f.k_s, f.w_s)) * (np.abs(a.s) + e)
    if a.softcap is not None:
        e = e * (1 - np.tanh(np.maximum(np.abs(a.s) - e, 0) / a.softcap) ** 2)
        e = e + x(w(C_TANH + 3, f.w_a) + w(f.k_s, f.w_s)) * (np.abs(a.capped) + e)
    if a.bias is not None:
        e = e + x(w(3, f.w_a)) * np.abs(a.bias) + x(w(3, f.w_a) + w(1, f.w_s)) * (np.abs(a.t) + e)
    return e_score if a.softcap is None else a.shown(e_score), a.shown(e)


def others(y: Array) -> Array:
    """sum_{k != j} y_k. Subtracting y_j from the total cancels where y_j is most of it, as one key of a row may be."""
    total = y.sum(-1, keepdims=True)
    most = 2 * y > total
    without = np.where(most, 0.0, y).sum(-1, keepdims=True)
    return np.asarray(np.where(most, without, total - y))


@dataclass(frozen=True)
class Perturbation:
    """What rounding may do to the weights of a row (Forward); [F,B,H,T,S] unless noted."""

    e_score: Array  # error of the score before the soft cap; hidden pairs are 0 only where there is a cap
    e: Array  # of the logarithm of a weight, shared by numerator and denominator
    excess: Array  # p (exp(e) - 1)
    first: Array  # excess / sum p exp(-e): the weights of the first form of S
    G: Array  # |p' - p| of one weight, the weights of the second form of S
    U: Array  # the largest p'
    w_n: Array  # [F,B,H,T,1] budget of a numerator
    w_z: Array  # [F,B,H,T,1] budget of the denominator


def perturbation(a: Attention, f: Formats) -> Perturbation:
    """e, the two ranges of the weights, and the budgets of numerator and denominator (Forward)."""
    e_score, e = score_error(a, f)
    e_m = np.maximum((a.t + e).max(-1, keepdims=True) - a.m, a.m - (a.t - e).max(-1, keepdims=True))
    e = e + x(w(3, f.w_a) + w(1, f.w_s)) * (np.abs(a.shifted) + e + e_m)
    e = a.shown(e + (w(C_EXP * (1 + a.blocks), f.w_a) + w(f.blocked * a.blocks, f.w_s)))
    shrink = -np.expm1(-e)
    log_excess = a.log_p + e + np.log(shrink)
    excess = np.exp(log_excess)
    log_low = a.log_p - e
    h = log_low.max(-1, keepdims=True)
    low = a.shown(np.exp(log_low - h))  # p exp(-e) exp(-h): its largest is 1, so no row underflows
    first = a.shown(np.exp(log_excess - h) / low.sum(-1, keepdims=True))
    rise, fall = weight_range(a, e, shrink, excess, low, h)
    blocks = w(f.k_b * a.blocks, f.w_s)
    w_n = w(a.n + 4, f.w_a) + blocks + w(f.k_p, f.w_p)
    w_z = w(a.n + 3, f.w_a) + blocks + w(1, f.w_s)
    return Perturbation(e_score, e, excess, first, np.maximum(rise, fall), np.minimum(a.p + rise, 1.0), w_n, w_z)


def weight_range(a: Attention, e: Array, shrink: Array, excess: Array, low: Array, h: Array) -> tuple[Array, Array]:
    """U - p and p - L (Forward), without the cancellation of its sigmoids where e is as small as the roundoff of float64.

    U/p = 1/(1 - drop) and L/p = 1/(1 + gain), where drop and gain are sums of positive terms. The maximum with the
    sigmoid is there for the case that p or the sum of the others underflows: then only the sigmoid is exact.
    `shrink` is 1 - exp(-e).
    """
    rest = others(a.p)
    others_low, others_shrunk, others_excess = others(np.stack([low, shrink * a.p, excess]))
    drop = shrink * rest + np.exp(-e) * others_shrunk
    stable = a.p * drop / (a.p + np.exp(h - e) * others_low)
    sigmoid = 1 / (1 + np.exp(np.log(others_low) + h - a.log_p - e))
    gain = np.expm1(e) * rest + np.exp(e) * others_excess
    fall = a.p * np.where(np.isfinite(gain), gain / (1 + gain), 1.0)
    return a.shown(np.fmax(stable, sigmoid - a.p)), fall


def weighted_distances(a: Attention, weights: Array) -> tuple[Array, Array]:
    """sum_j weights_j |v_jc - o_c| for each of the weights [W,B,H,T,S], and the hull max_j |v_jc - o_c|, [B,H,T,E]."""
    sums = np.empty((len(weights), *a.o.shape))
    hull = np.empty_like(a.o)
    stacked = weights.transpose(1, 2, 3, 0, 4)
    rows = max(1, CHUNK // max(1, a.p.size // max(1, a.p.shape[2]) * a.v.shape[3]))
    for start in range(0, a.o.shape[2], rows):
        part = slice(start, start + rows)
        distance = np.abs(a.v[:, :, None] - a.o[:, :, part, None])
        distance = distance if a.dense else distance * a.visible[:, :, part, :, None]
        hull[:, :, part] = distance.max(-2)
        sums[..., part, :] = (stacked[:, :, part] @ distance).transpose(3, 0, 1, 2, 4)
    return infinite_if_unknown(sums), hull


class Analysis:
    """What rounding may do to one case in one class: all that the bounds of output, weights and gradients share.

    Errors of the subject and of the float64 oracle lie side by side on the leading axis F; they add up at the end.
    """

    def __init__(self, a: Attention, of: Precision) -> None:
        self.a, self.of, self.f = a, of, formats(of)

    @cached_property
    def moved(self) -> Perturbation:
        return perturbation(self.a, self.f)

    @cached_property
    def score_term(self) -> tuple[Array, Array]:
        """S, the error due to the scores [F,B,H,T,E], and the hull of the values [B,H,T,E]."""
        y = self.moved
        sums, hull = weighted_distances(self.a, np.concatenate([y.first, y.G]))
        half = len(sums) // 2
        return np.minimum(np.minimum(sums[:half], sums[half:]), hull), hull

    @cached_property
    def stored_terms(self) -> dict[str, Array]:
        """The terms of E0 (Forward), [F,B,H,T,E], and the one of a normaliser that is a logarithm."""
        a, f, moved, S, v = self.a, self.f, self.moved, self.score_term[0], np.abs(self.a.v)
        floor = (a.visible @ v) * (f.l_a + (f.k_p + 1) * f.l_p)
        floor = floor + (2 * (a.n + a.blocks) * f.l_a + (2 * a.blocks + 2) * f.l_s)
        weights = np.exp(moved.w_z) * x(moved.w_n) * (moved.U @ v)
        denominator = x(moved.w_z) * (np.abs(a.o) + S)
        normaliser = np.where(moved.U > 0, moved.U * normaliser_error(a, f), 0.0) @ v
        return {"scores": S, "weights": weights, "denominator": denominator, "underflow": floor, "normaliser": normaliser}

    def terms(self, k_out: float | Array) -> dict[str, Array]:
        """The terms of E (Forward), with so many roundings of the output."""
        found, n = dict(self.stored_terms), self.a.n
        E0 = found["scores"] + found["weights"] + found["denominator"] + found["underflow"]
        found["output"] = x(w(k_out, self.f.w_p)) * (np.abs(self.a.o) + E0)
        found["underflow"] = found["underflow"] + self.f.l_p
        return found if n.all() else {name: np.where(n > 0, term, 0.0) for name, term in found.items()}

    def total(self, shares: Array) -> Array:
        """The subject's error and the oracle's own, added: [F,...] -> [...]."""
        return np.asarray(shares[0] + shares[-1])


def normaliser_error(a: Attention, f: Formats) -> Array:
    """Relative error of a weight that is computed as exp(t - L), L = log sum exp t, instead of by a division.

    Flash kernels and many plain implementations use that form. The roundings of L (one a
    key where it is accumulated by logaddexp) and of t - L and the error of exp then act on each weight alone, where a
    division would cancel what all weights share. The form is granted NORMALISER at most: where scores are so large that
    it loses more, it is not a way to compute attention.
    """
    log_z = a.lse - a.m
    budget = w(C_EXP, f.w_a) + w(3, f.w_a) * (np.abs(a.shifted) + log_z) + w(C_LOG + 2, f.w_a) * log_z
    return a.shown(np.minimum(x(budget + w(a.n + 1, f.w_a) * np.abs(a.lse)), NORMALISER))


@dataclass(frozen=True)
class ForwardBound:
    """The allowed error of the output, the hull of the values, and the six terms of which the error is the sum."""

    error: Array  # [B,H,T,E]; 0 for an empty row
    cap: Array  # max_j |v_jc - o_c|: no choice of weights can do worse
    vacuous: NDArray[np.bool_]  # the scores' term alone may reach any value in the hull
    terms: Mapping[str, Array]

    def largest(self, index: tuple[int, ...]) -> str:
        """The name of the largest term of the error at an index."""
        return max(self.terms, key=lambda name: float(self.terms[name][index]))


@np.errstate(all="ignore")
def of_output(y: Analysis) -> ForwardBound:
    """Element-wise bound E of the error of the output (Forward), the float64 oracle's own error included."""
    shares = y.terms(y.f.k_out)
    terms = {name: y.total(share) for name, share in shares.items() if name != "normaliser"}
    terms["normaliser"] = shares["normaliser"][0]  # the oracle divides
    error: Array = sum(terms.values(), np.zeros_like(y.a.o))
    hull = y.score_term[1]
    vacuous = (error >= hull) & (2 * (terms["scores"] + terms["normaliser"]) >= error) & (hull > 0)
    return ForwardBound(error, hull, vacuous, terms)


def nothing_to_bound(q: ArrayLike, k: ArrayLike, v: ArrayLike) -> bool:
    """No key, or an array without elements: nothing is rounded."""
    return 0 in (np.shape(k)[2], np.size(q), np.size(v))


@np.errstate(all="ignore")
def forward(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    visible: ArrayLike,
    bias: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision,
) -> ForwardBound:
    """The bound of the output of softmax attention (Forward).

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]; visible and bias broadcast to [B,H,T,S] -> [B,H,T,E]
    Empty:   error 0 for a row without a visible key, and for S == 0: the declared policy bit for bit.
    """
    if nothing_to_bound(q, k, v):
        zero = np.zeros((*np.shape(q)[:3], np.shape(v)[3]))
        return ForwardBound(zero, zero, zero > 0, {"output": zero})
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    return of_output(Analysis(a, precision))
