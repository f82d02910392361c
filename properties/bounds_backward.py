"""The allowed error of the gradients of softmax attention (docs/bounds.md, 'Gradients').

The subject may recompute the weights from a stored log-sum-exp L or read them back, take D as rowsum(dO * O) or as
sum_j P dP, and differentiate through the subtracted maximum. Everything up to the soft cap is [F,B,H,T,S] unless noted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnspec.properties.bounds import C_TANH, Analysis, infinite_if_unknown, nothing_to_bound, w, x
from attnspec.properties.bounds_classes import LARGEST, Formats, Precision
from attnspec.properties.bounds_oracle import BLOCK, Array, Attention, attention
from attnspec.properties.bounds_weights import log_sum_error


@dataclass(frozen=True)
class BackwardBound:
    """The allowed errors of the gradients. A row without a visible key gets 0; hidden entries of the bias get 0."""

    q: Array  # [B,H,T,D]
    k: Array  # [B,G,S,D]
    v: Array  # [B,G,S,E]
    bias: Array  # [B,H,T,S]: of the bias before it was broadcast; `summed` gives the bound for a broadcast one
    undecided: str | None  # why nothing is decided

    @property
    def vacuous(self) -> bool:
        """Nothing is decided."""
        return self.undecided is not None


@dataclass(frozen=True)
class Gradient:
    """The exact gradients and what they are made of."""

    do: Array  # dO, [B,H,T,E]: the cotangent
    dp: Array  # dP, of the weights
    d: Array  # D, [B,H,T,1]: sum_j p_j dP_j
    dt: Array  # of the biased score, so of the bias
    slope: Array  # of the soft cap
    ds: Array  # dS, of the score before the soft cap


def gradient(a: Attention, cotangent: ArrayLike) -> Gradient:
    """The oracle: dS = p (dP - D), dP = dO v (Gradients)."""
    dO = np.where(a.n > 0, np.asarray(cotangent, dtype=np.float64), 0.0)
    dP = np.where(a.visible, dO @ a.v.swapaxes(-1, -2), 0.0)
    D = (a.p * dP).sum(-1, keepdims=True)
    dT = a.p * (dP - D)
    slope = np.ones_like(a.s) if a.softcap is None else 1 - np.tanh(np.where(a.visible, a.s, 0.0) / a.softcap) ** 2
    return Gradient(dO, dP, D, dT, slope, dT * slope)


def weights_error(y: Analysis) -> tuple[Array, Array, Array]:
    """r of a weight recomputed from L, its error R, and the error R' of the weight as stored (Gradients)."""
    a, f = y.a, y.f
    r = y.moved.e + log_sum_error(y) + w(3, f.w_a) * np.abs(a.log_p)  # |t - L| = |ln p|
    R = a.shown(np.exp(a.log_p + r + np.log(-np.expm1(-r))) + f.l_a)
    of_stored = w(f.k_p, f.w_p)
    stored = a.shown(R * np.exp(of_stored) + a.p * x(of_stored) + (f.k_p + 1) * f.l_p)
    return r, np.where(f.stores > 0, stored, R), stored


def mean_error(y: Analysis, g: Gradient, stored: Array, e_dP: Array) -> Array:
    """e_D, [F,B,H,T,1]: the larger of the errors of the two ways to compute D, and what a merge of parts adds (Gradients).

    Where parts of the keys with outputs o_b were merged by their log-sum-exp, autograd adds and subtracts dO·o_b, once as
    rowsum(dO * o_b) and once as sum_j P_b dP; o_b may be as large as the largest value whatever the weight of its part.
    """
    a, f, moved = y.a, y.f, y.moved
    E: Array = sum(y.terms(k_out=1).values(), np.zeros_like(a.o))
    dO, d_v = np.abs(g.do), g.do.shape[-1]
    from_output = dO * E + x(w(d_v + 1, f.w_a) + w(3, f.w_s)) * dO * (np.abs(a.o) + E)
    spread = a.shown(np.abs(g.dp - g.d))
    forms = infinite_if_unknown(np.stack([moved.first * spread, moved.G * spread]).sum(-1, keepdims=True)).min(0)
    scores = np.minimum(forms, spread.max(-1, keepdims=True))  # S of Forward with dP in the place of the values
    rounding = x(moved.w_z + w(a.n + 2, f.w_a) + w(f.k_p, f.w_p) + w(2 * f.k_g, f.w_s))
    products = moved.U * e_dP + rounding * (a.p + stored) * (np.abs(g.dp) + e_dP)
    from_weights = scores + products.sum(-1, keepdims=True)
    largest = np.maximum(from_output.sum(-1, keepdims=True), from_weights)
    parts = x(w(2 * (a.n + d_v) + 20, f.w_a)) * a.shown(dO @ np.abs(a.v).swapaxes(-1, -2)).max(-1, keepdims=True)
    return np.asarray(largest + parts + x(w(2, f.w_s)) * np.abs(g.d) + f.l_s * (a.n + d_v))


def can_be_maximum(a: Attention, e: Array) -> NDArray[np.bool_]:
    """Keys that may be the largest of the row, or of a prefix or suffix of it, in some rounding (Gradients)."""
    high, low = a.t + e, a.t - e
    return np.logical_and(a.visible, high >= np.minimum(*highest_so_far(low)))


def score_gradient_error(y: Analysis, g: Gradient, R: Array, stored: Array) -> tuple[Array, Array]:
    """e_dS of the biased score's gradient, and F, the same before the soft cap (Gradients)."""
    a, f = y.a, y.f
    dO, v, d_v = np.abs(g.do), np.abs(a.v), a.v.shape[-1]
    e_dP = x(w(d_v + 2, f.w_a)) * (dO @ v.swapaxes(-1, -2))
    e_dP = e_dP + x(w(f.k_g, f.w_p)) * (np.abs(g.dp) + e_dP)
    e_dP = e_dP + (f.l_p + d_v * f.l_a) + f.l_s * v.sum(-1)[..., None, :]
    spread = np.abs(g.dp - g.d)
    off = e_dP + mean_error(y, g, stored, e_dP)
    budget = w(3, f.w_a) + w(f.k_g, f.w_s)
    e_dS = a.p * spread * x(budget) + np.exp(budget) * (R * (spread + off) + a.p * off)
    e_dS = a.shown(e_dS + f.l_p * (1 + f.k_g + f.stores * f.k_b * a.blocks) + unnormalised_loss(a, f, g))
    e_dS = e_dS + np.where(can_be_maximum(a, y.moved.e), e_dS.sum(-1, keepdims=True), 0.0)
    return e_dS, e_dS if a.softcap is None else uncapped_error(y, g, e_dS)


def unnormalised_loss(a: Attention, f: Formats, g: Gradient) -> Array:
    """What underflow costs more where autograd crosses the division by z = sum exp(t - m) in a stored format (Gradients).

    Gradients of exponentials are those of weights over z, so a loss l of one counts l exp(t - m), not l p. The gradient of z
    is a sum of n products dP (p / z), stored each, whose p / z underflows too. With running sums m is a maximum so far, and
    each later block multiplies the gradients of the sums, and loses again.
    """
    of_one = f.l_p + f.l_s * np.abs(a.v).sum(-1)[..., None, :]
    of_z = f.l_s * (a.n + a.v.shape[-1]) + f.l_p * np.abs(g.dp).sum(-1, keepdims=True)
    so_far = a.t - np.minimum(*highest_so_far(a.t))  # of a prefix or a suffix, at most 0
    exponentials = np.where(f.blocked > 0, np.exp(so_far), np.exp(a.shifted))
    return np.asarray(f.stores * (exponentials - a.p) * (1 + f.blocked * a.blocks) * (of_one + of_z))


def highest_so_far(y: Array) -> tuple[Array, Array]:
    """The maximum of each prefix and of each suffix of a row, [...,S]."""
    return np.maximum.accumulate(y, axis=-1), np.maximum.accumulate(y[..., ::-1], axis=-1)[..., ::-1]


def uncapped_error(y: Analysis, g: Gradient, e_dS: Array) -> Array:
    """F, the error of the score's gradient after multiplication with the slope of the soft cap (Gradients)."""
    a, f = y.a, y.f
    C = abs(a.softcap or 1.0)
    slope, e = g.slope, y.moved.e_score / C
    tanh = np.abs(a.shown(a.capped)) / C
    e_slope = 2 * tanh * (w(C_TANH + 3, f.w_a) + w(f.k_s, f.w_s)) + 2 * tanh * slope * e + e**2 + w(2, f.w_s) * slope
    budget = w(3, f.w_a) + w(2 * f.k_g, f.w_p)
    error = e_dS * (slope + e_slope) * np.exp(budget)
    error = error + np.abs(g.dt) * (slope * x(budget) + e_slope * np.exp(budget)) + f.l_p * (2 + 2 / C)
    return a.shown(error)


def summed(error: Array, value: Array, shape: tuple[int, ...], precision: Precision) -> Array:
    """The error of a gradient summed to a broadcast shape: its parts may be stored one by one (Gradients)."""
    lead = (1,) * (error.ndim - len(shape)) + shape
    axes = tuple(i for i, (full, kept) in enumerate(zip(error.shape, lead, strict=True)) if kept < full)
    parts = int(np.prod([error.shape[i] for i in axes])) if axes else 0
    rounding = x(parts * precision.u_o / (1 - precision.u_o)) * (np.abs(value) + error)
    return np.asarray((error + rounding).sum(axis=axes).reshape(shape))


def grouped(array: Array, heads: int) -> Array:
    """[...,H,T,D] as [...,G,H//G,T,D]: the query heads of a group share a key/value head."""
    return array.reshape(*array.shape[:-3], heads, -1, *array.shape[-2:])


def stored_error(error: Array, value: Array, heads: int, a: Attention, f: Formats) -> Array:
    """The roundings of the stored gradient added, then summed over each group of query heads (Gradients)."""
    lost = f.l_p * (1 + f.k_out) * max(1.0, abs(a.scale) ** 0.5)
    error = error + x(w(f.k_out, f.w_p)) * (np.abs(value) + error) + lost
    group = a.q.shape[1] // heads
    if group == 1:
        return error
    rounding = x(w(group, f.w_p)) * (np.abs(value) + error)
    return np.asarray(grouped(error + rounding, heads).sum(-3))


@dataclass(frozen=True)
class Sums:
    """How many terms and blocks the sums over keys ([B,H,T,1]) and over queries ([B,H,S,1]) may have."""

    keys: Array
    key_blocks: Array
    queries: Array  # of all query heads of the group: one sum may run over them
    query_blocks: Array


def sums(a: Attention, heads: int) -> Sums:
    """Counts of visible keys and queries (Gradients: per row and per column its own count)."""
    group = a.q.shape[1] // heads
    queries = a.visible.sum(-2, dtype=np.float64)
    if group > 1:
        queries = queries.reshape(queries.shape[0], heads, group, -1).sum(2).repeat(group, axis=1)
    queries = queries[..., None]
    return Sums(a.n, a.blocks, queries, np.minimum(queries, group * -(-a.q.shape[2] // BLOCK)))


def product_error(a: Attention, f: Formats, A: Array, F: Array, other: Array, n: Array, budget: Array) -> Array:
    """E_dQ, or E_dK from the transposes: dS times the keys or queries, the scale applied on the way (Gradients)."""
    c, other = abs(a.scale), np.abs(other)
    seen = (F[0] != 0).astype(np.float64)  # F is exactly 0 for hidden pairs only
    summing = w(f.k_g, f.w_p) + w(f.k_pre, f.w_s) + w(4, f.w_a) + budget  # ln y, and the sum
    error = c * (F + A * x(summing)) @ other + (1 + c) * (f.l_p + f.l_s) * (seen @ other)
    error = error + f.prescaled * c**0.5 * f.l_s * A.sum(-1, keepdims=True)
    return np.asarray(error + f.stores * f.l_p * n)


@np.errstate(all="ignore")
def of_gradients(y: Analysis, cotangent: ArrayLike, heads: int) -> BackwardBound:
    """Element-wise bounds of the errors of the gradients (Gradients), the float64 oracle's own error included."""
    a, f = y.a, y.f
    g, count = gradient(a, cotangent), sums(a, heads)
    r, R, stored = weights_error(y)
    e_bias, F = score_gradient_error(y, g, R, stored)
    by_rows = w(count.keys, f.w_a) + w(f.k_b * count.key_blocks, f.w_s)
    by_columns = w(count.queries, f.w_a) + f.stores * w(count.queries, f.w_p)  # a loop over queries stores its sums
    A = np.abs(g.ds) + F
    AT, FT, P = A.swapaxes(-1, -2), F.swapaxes(-1, -2), a.p.swapaxes(-1, -2)
    dO = np.abs(g.do)
    e_q = product_error(a, f, A, F, a.k, count.key_blocks, by_rows)
    e_k = product_error(a, f, AT, FT, a.q, count.queries, by_columns + w(f.k_b * count.query_blocks, f.w_s))
    e_v = (stored.swapaxes(-1, -2) * np.exp(by_columns) + P * x(by_columns)) @ dO
    e_v = e_v + f.stores * f.l_p * count.queries
    dq, dk, dv = a.scale * g.ds @ a.k, a.scale * g.ds.swapaxes(-1, -2) @ a.q, P @ g.do
    e_q = np.where(a.n > 0, stored_error(e_q, dq, a.q.shape[1], a, f), 0.0)
    e_k, e_v = stored_error(e_k, dk, heads, a, f), stored_error(e_v, dv, heads, a, f)
    e_bias = a.shown(stored_error(e_bias, g.dt, a.q.shape[1], a, f))
    of_q, of_k, of_v, of_bias = errors = [infinite_if_unknown(y.total(e)) for e in (e_q, e_k, e_v, e_bias)]
    parts = [A[0] @ np.abs(a.k), AT[0] @ np.abs(a.q), P @ dO]
    largest = max(1.0, abs(a.scale)) * max(float(part.max(initial=0.0)) for part in parts) * (a.q.shape[1] // heads)
    undecided = None
    if bool(np.any((r[0] > 1) & (a.p + R[0] > y.of.u_a))):
        undecided = "scores are so large that rounding moves a weight by a factor e"
    elif not largest < LARGEST[y.of.name] / 2:
        undecided = f"P3: a sum of gradients reaches {largest:.3g}, half of the largest {y.of.name} or more"
    elif not all((error <= y.of.largest**0.5).all() for error in errors):
        undecided = f"the error of a gradient may exceed {y.of.largest**0.5:.3g}"
    return BackwardBound(of_q, of_k, of_v, of_bias, undecided)


@np.errstate(all="ignore")
def backward(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    cotangent: ArrayLike,
    *,
    visible: ArrayLike,
    bias: ArrayLike | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    precision: Precision,
) -> BackwardBound:
    """The bounds of the gradients (Gradients).

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  cotangent [B,H,T,E]; visible and bias broadcast to [B,H,T,S]
    Empty:   error 0 for everything when there is no query, key or value at all.
    """
    if nothing_to_bound(q, k, v):
        shapes = [np.shape(q), np.shape(k), np.shape(v), (*np.shape(q)[:3], np.shape(k)[2])]
        zero_q, zero_k, zero_v, zero_bias = (np.zeros(shape) for shape in shapes)
        return BackwardBound(zero_q, zero_k, zero_v, zero_bias, None)
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    return of_gradients(Analysis(a, precision), cotangent, np.shape(k)[1])
