"""The allowed error of the gradients of softmax attention, class `wide` (docs/bounds.md, 'Gradients').

The subject may recompute the weights from a stored log-sum-exp L or read them back, take D as rowsum(dO * O) or as
sum_j P dP, and differentiate through the subtracted maximum. Everything up to the soft cap is [B,H,T,S] unless noted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnspec.properties.bounds import (
    C_TANH,
    ORACLE,
    Perturbation,
    Precision,
    infinite_if_unknown,
    output_terms,
    perturbation,
    w,
    weighted_distances,
    x,
)
from attnspec.properties.bounds_oracle import BLOCK, Array, Attention, attention


@dataclass(frozen=True)
class BackwardBound:
    """The allowed errors of the gradients. A row without a visible key gets 0; hidden entries of the bias get 0."""

    q: Array  # [B,H,T,D]
    k: Array  # [B,G,S,D]
    v: Array  # [B,G,S,E]
    bias: Array  # [B,H,T,S]: of the bias before it was broadcast; `summed` gives the bound for a broadcast one
    vacuous: bool  # a weight that matters may change by a factor e, or an error exceeds sqrt(max): nothing is decided


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


def weights_error(a: Attention, f: Precision, moved: Perturbation) -> tuple[Array, Array, Array]:
    """r of a weight recomputed from L, its error R, and the error R' of the weight as stored (Gradients)."""
    log_sum = np.log1p(moved.excess.sum(-1, keepdims=True))  # ln sum p exp(e)
    e_L = log_sum + moved.w_z
    e_L = e_L + w(4, f.u_a) * (np.abs(a.lse) + e_L + 1 + np.log(np.maximum(a.n, 1)))
    r = moved.e + e_L + w(3, f.u_a) * np.abs(a.log_p)  # |t - L| = |ln p|
    R = np.where(a.visible, np.exp(a.log_p + r + np.log(-np.expm1(-r))) + f.l_a, 0.0)
    stored = R * np.exp(w(f.k_p, f.u_p)) + a.p * x(w(f.k_p, f.u_p)) + (f.k_p + 1) * f.l_p
    stored = np.where(a.visible, stored, 0.0)
    return r, (stored if f.u_s == f.u_p else R), stored


def mean_error(a: Attention, f: Precision, moved: Perturbation, y: Gradient, stored: Array, e_dP: Array) -> Array:
    """e_D, [B,H,T,1]: the larger of the errors of the two ways to compute D (Gradients)."""
    sums, hull = weighted_distances(a, [moved.first, moved.G])
    E: Array = np.sum(list(output_terms(a, f, moved, np.minimum(sums.min(0), hull), k_out=1).values()), axis=0)
    dO, d_v = np.abs(y.do), y.do.shape[-1]
    from_output = dO * E + x(w(d_v + 1, f.u_a) + w(3, f.u_s)) * dO * (np.abs(a.o) + E)
    spread = np.where(a.visible, np.abs(y.dp - y.d), 0.0)
    forms = infinite_if_unknown(np.stack([moved.first * spread, moved.G * spread]).sum(-1, keepdims=True)).min(0)
    scores = np.minimum(forms, spread.max(-1, keepdims=True))  # S of Forward with dP in the place of the values
    rounding = x(moved.w_z + w(a.n + 2, f.u_a) + w(f.k_p, f.u_p) + w(2 * f.k_g, f.u_s))
    products = moved.U * e_dP + rounding * (a.p + stored) * (np.abs(y.dp) + e_dP)
    from_weights = scores + products.sum(-1, keepdims=True)
    largest = np.maximum(from_output.sum(-1, keepdims=True), from_weights)
    return np.asarray(largest + x(w(2, f.u_s)) * np.abs(y.d) + f.l_s * (a.n + d_v))


def can_be_maximum(a: Attention, e: Array) -> NDArray[np.bool_]:
    """Keys that may be the largest of the row, or of a prefix or suffix of it, in some rounding (Gradients)."""
    high, low = a.t + e, a.t - e
    forward = np.maximum.accumulate(low, axis=-1)
    backward = np.maximum.accumulate(low[..., ::-1], axis=-1)[..., ::-1]
    return np.logical_and(a.visible, high >= np.minimum(forward, backward))


def score_gradient_error(
    a: Attention, f: Precision, moved: Perturbation, y: Gradient, R: Array, stored: Array
) -> tuple[Array, Array]:
    """e_dS of the biased score's gradient, and F, the same before the soft cap (Gradients)."""
    dO, v, d_v = np.abs(y.do), np.abs(a.v), a.v.shape[-1]
    e_dP = x(w(d_v + 2, f.u_a)) * (dO @ v.swapaxes(-1, -2))
    e_dP = e_dP + x(w(f.k_g, f.u_p)) * (np.abs(y.dp) + e_dP)
    e_dP = e_dP + f.l_p + d_v * f.l_a + f.l_s * v.sum(-1)[..., None, :]
    spread = np.abs(y.dp - y.d)
    off = e_dP + mean_error(a, f, moved, y, stored, e_dP)
    budget = w(3, f.u_a) + w(f.k_g, f.u_s)
    e_dS = a.p * spread * x(budget) + np.exp(budget) * (R * (spread + off) + a.p * off)
    e_dS = e_dS + f.l_p * (1 + f.k_g + (f.k_b * a.blocks if f.u_s == f.u_p else 0))
    e_dS = np.where(a.visible, e_dS, 0.0)
    e_dS = e_dS + np.where(can_be_maximum(a, moved.e), e_dS.sum(-1, keepdims=True), 0.0)
    return e_dS, e_dS if a.softcap is None else uncapped_error(a, f, moved, y, e_dS)


def uncapped_error(a: Attention, f: Precision, moved: Perturbation, y: Gradient, e_dS: Array) -> Array:
    """F, the error of the score's gradient after multiplication with the slope of the soft cap (Gradients)."""
    C = abs(a.softcap or 1.0)
    slope, e = y.slope, moved.e_score / C
    tanh = np.abs(np.where(a.visible, a.capped, 0.0)) / C
    e_slope = 2 * tanh * (w(C_TANH + 3, f.u_a) + w(f.k_s, f.u_s)) + 2 * tanh * slope * e + e**2 + w(2, f.u_s) * slope
    budget = w(3, f.u_a) + w(2 * f.k_g, f.u_p)
    error = e_dS * (slope + e_slope) * np.exp(budget)
    error = error + np.abs(y.dt) * (slope * x(budget) + e_slope * np.exp(budget)) + f.l_p * (2 + 2 / C)
    return np.where(a.visible, error, 0.0)


def summed(error: Array, value: Array, shape: tuple[int, ...], precision: Precision) -> Array:
    """The error of a gradient summed to a broadcast shape: its parts may be stored one by one (Gradients)."""
    lead = (1,) * (error.ndim - len(shape)) + shape
    axes = tuple(i for i, (full, kept) in enumerate(zip(error.shape, lead, strict=True)) if kept < full)
    parts = int(np.prod([error.shape[i] for i in axes])) if axes else 0
    rounding = x(w(parts, precision.u_o)) * (np.abs(value) + error)
    return np.asarray((error + rounding).sum(axis=axes).reshape(shape))


def grouped(array: Array, heads: int) -> Array:
    """[B,H,...] as [B,G,H//G,...]: the query heads of a group share a key/value head."""
    return array.reshape(array.shape[0], heads, -1, *array.shape[2:])


def stored_error(error: Array, value: Array, heads: int, a: Attention, f: Precision) -> Array:
    """The roundings of the stored gradient added, then summed over each group of query heads (Gradients)."""
    lost = f.l_o * (1 + f.k_out) * max(1.0, abs(a.scale) ** 0.5)
    error = error + x(w(f.k_out, f.u_o)) * (np.abs(value) + error) + lost
    shape = (error.shape[0], heads, 1, *error.shape[2:])
    return np.squeeze(summed(grouped(error, heads), grouped(value, heads), shape, f), axis=2)


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
    queries = grouped(a.visible.sum(-2, dtype=np.float64), heads).sum(2).repeat(group, axis=1)[..., None]
    return Sums(a.n, a.blocks, queries, np.minimum(queries, group * -(-a.q.shape[2] // BLOCK)))


def product_error(a: Attention, f: Precision, dS: Array, F: Array, other: Array, n: Array, budget: Array) -> Array:
    """E_dQ, or E_dK from the transposes: dS times the keys or queries, the scale applied on the way (Gradients)."""
    c, A, other = abs(a.scale), dS + F, np.abs(other)
    seen = (F != 0).astype(np.float64)  # F is exactly 0 for hidden pairs only
    summing = w(f.k_g, f.u_p) + w(f.k_pre, f.u_s) + w(4, f.u_a) + budget  # ln y, and the sum
    error = c * (F + A * x(summing)) @ other + (1 + c) * (f.l_p + f.l_s) * (seen @ other)
    if f.k_pre:
        error = error + c**0.5 * f.l_s * A.sum(-1, keepdims=True)
    return np.asarray(error + (f.l_p * n if f.u_s == f.u_p else 0.0))


def errors(a: Attention, y: Gradient, heads: int, f: Precision) -> tuple[list[Array], bool]:
    """Errors of dq, dk, dv and dbias in one precision, and whether a weight that matters is undecided (Gradients)."""
    moved, count = perturbation(a, f), sums(a, heads)
    r, R, stored = weights_error(a, f, moved)
    e_bias, F = score_gradient_error(a, f, moved, y, R, stored)
    by_rows = w(count.keys, f.u_a) + w(f.k_b * count.key_blocks, f.u_s)
    looped = w(count.queries, f.u_p) if f.u_s == f.u_p else w(0, f.u_p)  # a loop over queries stores its sums
    by_columns = w(count.queries, f.u_a) + looped
    dS, dST, FT = np.abs(y.ds), np.abs(y.ds).swapaxes(-1, -2), F.swapaxes(-1, -2)
    e_q = product_error(a, f, dS, F, a.k, count.key_blocks, by_rows)
    columns = by_columns + w(f.k_b * count.query_blocks, f.u_s)
    e_k = product_error(a, f, dST, FT, a.q, count.queries, columns)
    P, off = a.p.swapaxes(-1, -2), stored.swapaxes(-1, -2)
    e_v = (off * np.exp(by_columns) + P * x(by_columns)) @ np.abs(y.do)
    e_v = e_v + (f.l_p * count.queries if f.u_s == f.u_p else 0.0)
    e_q = np.where(a.n > 0, stored_error(e_q, a.scale * y.ds @ a.k, a.q.shape[1], a, f), 0.0)
    e_k = stored_error(e_k, a.scale * y.ds.swapaxes(-1, -2) @ a.q, heads, a, f)
    e_v = stored_error(e_v, P @ y.do, heads, a, f)
    e_bias = np.where(a.visible, stored_error(e_bias, y.dt, a.q.shape[1], a, f), 0.0)
    return [e_q, e_k, e_v, e_bias], bool(np.any((r > 1) & (a.p + R > f.u_a)))


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
    """Element-wise bounds of the errors of the gradients (Gradients), the float64 oracle's own error included.

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  cotangent [B,H,T,E]; visible and bias broadcast to [B,H,T,S]
    Empty:   error 0 for everything when there is no query, key or value at all.
    """
    shapes = [np.shape(q), np.shape(k), np.shape(v), (*np.shape(q)[:3], np.shape(k)[2])]
    if any(0 in shape for shape in shapes):
        zero_q, zero_k, zero_v, zero_bias = (np.zeros(shape) for shape in shapes)
        return BackwardBound(zero_q, zero_k, zero_v, zero_bias, vacuous=False)
    a = attention(q, k, v, visible=visible, bias=bias, scale=scale, softcap=softcap)
    y, heads = gradient(a, cotangent), np.shape(k)[1]
    own, undecided = errors(a, y, heads, precision)
    oracle = own if precision == ORACLE else errors(a, y, heads, ORACLE)[0]
    of_q, of_k, of_v, of_bias = (infinite_if_unknown(mine + its) for mine, its in zip(own, oracle, strict=True))
    limit = precision.largest**0.5
    vacuous = undecided or not all((error <= limit).all() for error in (of_q, of_k, of_v, of_bias))
    return BackwardBound(of_q, of_k, of_v, of_bias, vacuous)
