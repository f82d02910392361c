"""Softmax and its normaliser, shifted by the maximum and divided, as an oracle must."""

import numpy as np

from attnspec.reference.shapes import FloatArray


def softmax(x: FloatArray, axis: int = -1) -> FloatArray:
    """Turns scores into positive weights that sum to one.

        softmax(x)[s] = exp(x[s] - m) / z,  m = max_s x[s],  z = sum_s exp(x[s] - m)     (1)

    Shapes:  x [...] -> the same shape.
    Units:   scores are natural-log weights, finite or -inf (weight zero); NaN makes its whole row NaN.
    Empty:   a row of nothing but -inf returns zeros; an axis of size zero returns an empty array.
    Errors:  numpy.exceptions.AxisError if x has no such axis.
    Source:  arXiv:1706.03762 eq. 1; arXiv:1805.02867 eq. 2 for the shift.
    Differs: the papers have no -inf. Divided by z, not multiplied by exp(-log z): that would lose |log z| roundings.
    """
    p, _ = _shifted(x, axis)
    z = np.sum(p, axis=axis, keepdims=True)
    return p / np.where(z == 0, 1.0, z)


def log_sum_exp(x: FloatArray, axis: int = -1) -> FloatArray:
    """Takes the logarithm of the sum of exponentials, which normalises softmax.

        lse(x) = m + log sum_s exp(x[s] - m),  m = max_s x[s]                            (1)

    Shapes:  x [...] -> the same shape without the axis.
    Units:   natural logarithm; scores are finite or -inf.
    Empty:   a row of nothing but -inf, or of no entry, returns -inf, the logarithm of zero.
    Errors:  numpy.exceptions.AxisError if x has no such axis.
    Source:  arXiv:2307.08691 sec. 3.1; arXiv:1805.02867 eq. 2 for the shift.
    Differs: the papers have no -inf.
    """
    p, m = _shifted(x, axis)
    z = np.sum(p, axis=axis, keepdims=True)
    lse: FloatArray = m + np.log(z, out=np.full_like(z, -np.inf), where=z != 0)
    return np.squeeze(lse, axis=axis)


def _shifted(x: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """exp(x - m) and m, with m = 0 in rows without a finite entry, where -inf - -inf would be NaN."""
    x = np.asarray(x, dtype=np.float64)
    m = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(m == -np.inf, 0.0, m)
    return np.exp(x - m), m
