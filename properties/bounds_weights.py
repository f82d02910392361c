"""The allowed errors of the attention weights and of their log-sum-exp (docs/bounds.md, 'Weights and log-sum-exp')."""

from __future__ import annotations

import numpy as np

from attnspec.properties.bounds import C_LOG, Analysis, infinite_if_unknown, normaliser_error, w, x
from attnspec.properties.bounds_classes import LOSS, UNIT
from attnspec.properties.bounds_oracle import Array


@np.errstate(all="ignore")
def of_weights(y: Analysis) -> Array:
    """Error of p as it is returned, [B,H,T,S]: 0 for hidden pairs.

    The scores move a weight by at most G. A division, the numerator and the denominator round it, then it is stored k_p
    times. The form exp(t - L) costs what it costs in the output.
    """
    a, f, moved = y.a, y.f, y.moved
    roundings = moved.w_z + w(2, f.w_a) + w(f.k_b * a.blocks, f.w_s) + w(f.k_p, f.w_p)
    error = moved.G + moved.U * x(roundings) + f.l_a + (f.k_p + 1) * f.l_p
    both = y.total(error) + moved.U[0] * normaliser_error(a, f)[0]  # the oracle divides
    return infinite_if_unknown(a.shown(both))


@np.errstate(all="ignore")
def of_lse(y: Analysis, stored: str) -> Array:
    """Error of L = log sum exp t, returned in the dtype `stored`, [B,H,T]; 0 for an empty row, whose L is -inf.

    L moves by at most log sum p exp(e), the sum by w_Z; the logarithm is off by C_LOG u and rounded, and added to the
    maximum. Classes that store scores also store the sum, its logarithm and the result.
    """
    a, f = y.a, y.f
    error = log_sum_error(y, a.blocks)
    error = error + f.stores * w(2, f.w_s) * (a.lse - a.m + error)
    one = UNIT[stored] / (1 - UNIT[stored])
    u, loss = (np.array([own] + [0.0] * (len(error) - 1)).reshape(-1, 1, 1, 1, 1) for own in (one, LOSS[stored]))
    error = error + x(w(1, u)) * (np.abs(a.lse) + error) + loss
    return infinite_if_unknown(np.where(a.n > 0, y.total(error), 0.0))[..., 0]


def log_sum_error(y: Analysis, merges: Array | float = 0.0) -> Array:
    """Error of L before it is stored in a narrower format, [F,B,H,T,1] (Gradients, e_L).

    Each merge of two blocks by logaddexp costs a logarithm, an exponential and a rounding of L more.
    """
    a, f, moved = y.a, y.f, y.moved
    e_L = np.log1p(moved.excess.sum(-1, keepdims=True)) + moved.w_z  # ln sum p exp(e)
    return np.asarray(e_L + w(C_LOG * (1 + merges), f.w_a) * (np.abs(a.lse) + e_L + 1 + np.log(np.maximum(a.n, 1))))
