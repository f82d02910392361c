"""The only place with tolerances: how far a correct floating-point computation of attention may be from the exact one.

Class `wide` of docs/bounds.md (float64 and float32): any order and blocking of sums, fused multiply-add or not, the scale
folded into q and k or into the scores, exp or exp2, normalising before or after the product with the values or by the
logarithm of the sum, scores
shifted by the row's or a running maximum. The same values go to the oracle, so input rounding never enters. A subject
passes where

    |got - want| <= forward(...).error                                                          (r <= 1)

`bounds_backward.py` has the gradients, `bounds_oracle.py` the exact values that both start from. Letters are those of
docs/bounds.md; `w` and `x` are its two functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnspec.properties.bounds_oracle import Array, Attention, attention

# Declared errors of exp, log and tanh in units of u_a (Constants; exp measured 1.0 to 2.9, one machine).
C_EXP, C_LOG, C_TANH = 4, 4, 8
NORMALISER = 2.0**-6  # declared: reached at scores of 1e5 in float32, whose own rounding moves weights by that much
CHUNK = 1 << 22  # numbers in the largest temporary array, 32 MiB


@dataclass(frozen=True)
class Precision:
    """What a class of programs rounds: roundoffs u, underflow losses l, and how often each value is rounded."""

    name: str
    u_a: float  # inner sums
    u_s: float  # scores
    u_p: float  # weights
    u_o: float  # output
    l_a: float
    l_s: float
    l_p: float
    l_o: float
    k_pre: int  # roundings of q and k scaled beforehand
    k_s: int  # of a stored score
    k_p: int  # of a stored weight
    k_b: int  # of the accumulators, per block
    k_g: int  # of stored dP and of dS, each
    k_out: int  # of the output and of gradients

    @property
    def largest(self) -> float:
        """The largest finite number of the format."""
        return float(np.finfo(self.name).max)


def wide(dtype: str) -> Precision:
    """The class `wide`, the only one here: everything in one dtype (Constants)."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype={dtype!r}: bounds cover 'float64' and 'float32' only; run the subject in one of them")
    u = float(np.finfo(dtype).eps) / 2
    loss = 2 * float(np.finfo(dtype).tiny)  # results and operands may both be flushed to zero
    return Precision(dtype, u, u, u, u, loss, loss, loss, loss, k_pre=2, k_s=4, k_p=2, k_b=2, k_g=2, k_out=3)


ORACLE = wide("float64")


def w(n: float | Array, u: float) -> Array:
    """Log-error budget of n roundings: a product of n factors 1 + delta, |delta| <= u, lies in exp(±w(n, u)) (Constants)."""
    return np.asarray(n * u / (1 - u))


def x(y: float | Array) -> Array:
    """Turns a budget into a relative error (Constants)."""
    return np.expm1(np.asarray(y, dtype=np.float64))


def infinite_if_unknown(error: Array) -> Array:
    """An error that was inf · 0 or inf / inf is not known to be small (Forward)."""
    return np.where(np.isnan(error), np.inf, error)


def score_error(a: Attention, f: Precision) -> tuple[Array, Array]:
    """Error of a stored score before the soft cap, and e_j of the capped and biased score t (Forward)."""
    d, c = a.q.shape[-1], abs(a.scale)
    lost = 2 * f.l_s + d * f.l_a * (1 + c)
    if f.k_pre:
        lost = lost + f.l_s * np.sqrt(c) * (np.abs(a.q).sum(-1)[..., None] + np.abs(a.k).sum(-1)[..., None, :])
    e = x(w(d + 6, f.u_a) + w(f.k_pre, f.u_s)) * a.a + lost
    e_score = e = e + x(w(f.k_s, f.u_s)) * (np.abs(a.s) + e)
    if a.softcap is not None:
        e = e * (1 - np.tanh(np.maximum(np.abs(a.s) - e, 0) / a.softcap) ** 2)
        e = e + x(w(C_TANH + 3, f.u_a) + w(f.k_s, f.u_s)) * (np.abs(a.capped) + e)
    if a.bias is not None:
        e = e + x(w(3, f.u_a)) * np.abs(a.bias) + x(w(3, f.u_a) + w(1, f.u_s)) * (np.abs(a.t) + e)
    return np.where(a.visible, e_score, 0.0), np.where(a.visible, e, 0.0)


def others(y: Array) -> Array:
    """sum_{k != j} y_k. Subtracting y_j from the total cancels where y_j is most of it, as one key of a row may be."""
    total = y.sum(-1, keepdims=True)
    most = 2 * y > total
    without = np.where(most, 0.0, y).sum(-1, keepdims=True)
    return np.asarray(np.where(most, without, total - y))


@dataclass(frozen=True)
class Perturbation:
    """What rounding may do to the weights of a row (Forward); [B,H,T,S] unless noted."""

    e_score: Array  # error of the score before the soft cap
    e: Array  # of the logarithm of a weight, shared by numerator and denominator
    excess: Array  # p (exp(e) - 1)
    first: Array  # excess / sum p exp(-e): the weights of the first form of S
    G: Array  # |p' - p| of one weight, the weights of the second form of S
    U: Array  # the largest p'
    w_n: Array  # [B,H,T,1] budget of a numerator
    w_z: Array  # [B,H,T,1] budget of the denominator


def perturbation(a: Attention, f: Precision) -> Perturbation:
    """e, the two ranges of the weights, and the budgets of numerator and denominator (Forward)."""
    e_score, e = score_error(a, f)
    e_m = np.maximum((a.t + e).max(-1, keepdims=True) - a.m, a.m - (a.t - e).max(-1, keepdims=True))
    e = e + x(w(3, f.u_a) + w(1, f.u_s)) * (np.abs(a.shifted) + e + e_m) + w(C_EXP * (1 + a.blocks), f.u_a)
    e = np.where(a.visible, e + (w(a.blocks, f.u_s) if f.k_b else 0.0), 0.0)
    log_excess = a.log_p + e + np.log(-np.expm1(-e))
    excess = np.exp(log_excess)
    log_low = a.log_p - e
    h = log_low.max(-1, keepdims=True)
    low = np.where(a.visible, np.exp(log_low - h), 0.0)  # p exp(-e) exp(-h): its largest is 1, so no row underflows
    first = np.where(a.visible, np.exp(log_excess - h) / low.sum(-1, keepdims=True), 0.0)
    rise, fall = weight_range(a, e, excess, low, h)
    n, blocks = a.n, a.blocks
    w_n = w(n + 4, f.u_a) + w(f.k_b * blocks, f.u_s) + w(f.k_p, f.u_p)
    w_z = w(n + 3, f.u_a) + w(f.k_b * blocks + 1, f.u_s)
    return Perturbation(e_score, e, excess, first, np.maximum(rise, fall), np.minimum(a.p + rise, 1.0), w_n, w_z)


def weight_range(a: Attention, e: Array, excess: Array, low: Array, h: Array) -> tuple[Array, Array]:
    """U - p and p - L (Forward), without the cancellation of its sigmoids where e is as small as the roundoff of float64.

    U/p = 1/(1 - drop) and L/p = 1/(1 + gain), where drop and gain are sums of positive terms. The maximum with the
    sigmoid is there for the case that p or the sum of the others underflows: then only the sigmoid is exact.
    """
    rest, others_low = others(a.p), others(low)
    drop = -np.expm1(-e) * rest + np.exp(-e) * others(-np.expm1(-e) * a.p)
    stable = a.p * drop / (a.p + np.exp(h - e) * others_low)
    sigmoid = 1 / (1 + np.exp(np.log(others_low) + h - a.log_p - e))
    gain = np.expm1(e) * rest + np.exp(e) * others(excess)
    fall = a.p * np.where(np.isfinite(gain), gain / (1 + gain), 1.0)
    return np.where(a.visible, np.fmax(stable, sigmoid - a.p), 0.0), fall


def weighted_distances(a: Attention, weights: list[Array]) -> tuple[Array, Array]:
    """sum_j weights_j |v_jc - o_c| for each of the weights, [F,B,H,T,E], and the hull max_j |v_jc - o_c|, [B,H,T,E]."""
    sums = np.empty((len(weights), *a.o.shape))
    hull = np.empty_like(a.o)
    rows = max(1, CHUNK // max(1, a.p.size // max(1, a.p.shape[2]) * a.v.shape[3]))
    for start in range(0, a.o.shape[2], rows):
        part = slice(start, start + rows)
        distance = np.abs(a.v[:, :, None] - a.o[:, :, part, None]) * a.visible[:, :, part, :, None]
        hull[:, :, part] = distance.max(-2)
        stacked = np.stack([weight[:, :, part] for weight in weights], axis=-2)
        sums[..., part, :] = np.moveaxis(stacked @ distance, -2, 0)
    return infinite_if_unknown(sums), hull


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


def output_terms(a: Attention, f: Precision, moved: Perturbation, S: Array, k_out: int) -> dict[str, Array]:
    """The terms of E (Forward) in one precision, from S, the error due to the scores; the oracle's own error not added."""
    v = np.abs(a.v)
    floor = (a.visible @ v) * (f.l_a + (f.k_p + 1) * f.l_p)
    floor = floor + 2 * (a.n + a.blocks) * f.l_a + (2 * a.blocks + 2) * f.l_s
    stored = np.exp(moved.w_z) * x(moved.w_n) * (moved.U @ v)
    denominator = x(moved.w_z) * (np.abs(a.o) + S)
    output = x(w(k_out, f.u_o)) * (np.abs(a.o) + (S + stored + denominator + floor))
    terms = {"scores": S, "weights": stored, "denominator": denominator, "underflow": floor + f.l_o, "output": output}
    terms["normaliser"] = np.where(moved.U > 0, moved.U * normaliser_error(a, f), 0.0) @ v
    return {name: np.where(a.n > 0, term, 0.0) for name, term in terms.items()}


def normaliser_error(a: Attention, f: Precision) -> Array:
    """Relative error of a weight that is computed as exp(t - L), L = log sum exp t, instead of by a division.

    Numerics.md leaves this form out; flash kernels and many plain implementations use it. The roundings of L (one a key
    where it is accumulated by logaddexp) and of t - L and the error of exp then act on each weight alone, where a
    division would cancel what all weights share. The form is granted NORMALISER at most: where scores are so large that
    it loses more, it is not a way to compute attention.
    """
    log_z = a.lse - a.m
    budget = w(C_EXP, f.u_a) + w(3, f.u_a) * (np.abs(a.shifted) + log_z) + w(C_LOG + 2, f.u_a) * log_z
    return np.where(a.visible, np.minimum(x(budget + w(a.n + 1, f.u_a) * np.abs(a.lse)), NORMALISER), 0.0)


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
    """Element-wise bound E of the error of softmax attention (Forward), the float64 oracle's own error included.

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]; visible and bias broadcast to [B,H,T,S] -> [B,H,T,E]
    Empty:   error 0 for a row without a visible key, and for S == 0: the declared policy bit for bit.
    """
    if 0 in (np.shape(k)[2], np.size(q), np.size(v)):
        zero = np.zeros((*np.shape(q)[:3], np.shape(v)[3]))
        return ForwardBound(zero, zero, zero > 0, {"output": zero})
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    classes = [precision] if precision == ORACLE else [precision, ORACLE]
    moved = [perturbation(a, f) for f in classes]
    sums, hull = weighted_distances(a, [weights for y in moved for weights in (y.first, y.G)])
    shares = [
        output_terms(a, f, y, np.minimum(sums[2 * i : 2 * i + 2].min(0), hull), f.k_out)
        for i, (f, y) in enumerate(zip(classes, moved, strict=True))
    ]
    terms = {name: shares[0][name] + shares[-1][name] for name in shares[0]}
    terms["normaliser"] = shares[0]["normaliser"]  # the oracle divides
    error = np.sum(list(terms.values()), axis=0)
    vacuous = (error >= hull) & (2 * (terms["scores"] + terms["normaliser"]) >= error) & (hull > 0)
    return ForwardBound(error, hull, vacuous, terms)


@np.errstate(all="ignore")
def preconditions(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    visible: ArrayLike,
    bias: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    dtype: str,
    cotangent: ArrayLike | None = None,
) -> str | None:
    """Why the bounds do not apply to these inputs in this dtype (Constants), or None. P3 is asked only with a cotangent.

    A bias of -max is allowed on some keys: P1 limits it from above, P5 asks that the row's maximum stays in range.
    """
    if 0 in (np.shape(k)[2], np.size(q), np.size(v)):
        return None
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    largest = wide(dtype).largest

    def worst(values: Array) -> float:
        return float(values.max(initial=0.0, where=a.visible))

    parts = [a.q, a.k, a.v] + ([] if a.bias is None else [a.bias])
    if any(np.isnan(part).any() for part in parts) or (a.bias is not None and np.isposinf(a.bias).any()):
        return "P4: a visible NaN or a bias of +inf"
    products = np.abs(a.q) @ np.abs(a.k).swapaxes(-1, -2) * max(1.0, abs(a.scale))
    if not max(worst(products), worst(a.t)) < largest / 2:
        return f"P1: scores reach {max(worst(products), worst(a.t)):.3g}, half of the largest {dtype} or more"
    if not (a.m > -largest / 2).all():
        return f"P5: every score of a row is below minus half of the largest {dtype}"
    values = np.abs(a.v)
    total = a.visible @ values
    if not total.max() < largest / 2:
        return f"P2: values of a row sum to {total.max():.3g}, half of the largest {dtype} or more"
    if cotangent is not None:
        dO = np.where(a.n > 0, np.abs(np.asarray(cotangent, dtype=np.float64)), 0.0)
        dP = max(worst(dO @ values.swapaxes(-1, -2)), float((total * dO.max(-1, keepdims=True)).max()))
        if not dP < largest / 4:
            return f"P3: the gradient of the weights reaches {dP:.3g}, a quarter of the largest {dtype} or more"
    return None
