"""The activations of feed-forward layers: ReLU, GELU in both forms, SiLU; and the error function, which NumPy lacks."""

import numpy as np

from attnspec.reference.shapes import FloatArray
from attnspec.reference.sigmoid import sigmoid

ORDER = np.arange(1, 26)  # n in (2) of erf; the term of n = 26 is below 2^-64
CUBIC = 0.044715  # of the tanh form of GELU; arXiv:1606.08415 sec. 2


def erf(x: FloatArray) -> FloatArray:
    """Integrates the bell curve, scaled so that all of it is one.

        erf(x) = 2/sqrt(pi) int_0^x exp(-r^2) dr,  exp(-r^2) = 1/sqrt(pi) int exp(-s^2) cos(2 s r) ds     (1)
               = 2/pi (x/4 + sum_n exp(-n^2/16) sin(n x / 2) / n),  n = 1, 2, ...                         (2)

    Shapes:  x [...] -> the same shape.
    Units:   none; the result lies in -1..1 and is off by at most 2^-50, in absolute and in relative terms.
    Empty:   an empty array stays empty.
    Errors:  none; NaN stays NaN.
    Source:  dlmf.nist.gov 7.2.1 for (1); 3.5(i), the trapezoidal rule with s = n/4, for (2).
    Differs: (2) has the period 8 pi up to a slope, so x is cut at 6: there the rule's own error is erfc(4 pi - 6) < 2^-65,
             and erf differs from one by less than 2^-55.
    """
    x = np.maximum(np.minimum(np.asarray(x, dtype=np.float64), 6.0), -6.0)
    waves = np.exp(-np.square(ORDER / 4)) * np.sin(x[..., None] * ORDER / 2) / ORDER
    out: FloatArray = 2 / np.pi * (x / 4 + np.sum(waves, axis=-1))
    return out


def relu(x: FloatArray) -> FloatArray:
    """Keeps what is positive.

        relu(x) = max(x, 0)                                                              (1)

    Shapes:  x [...] -> the same shape.
    Units:   those of x.
    Empty:   an empty array stays empty.
    Errors:  none; NaN stays NaN.
    Source:  arXiv:1706.03762 eq. 2.
    Differs: n/a.
    """
    return np.maximum(np.asarray(x, dtype=np.float64), 0.0)


def gelu(x: FloatArray) -> FloatArray:
    """Weights each number by the share of a standard normal population that lies below it.

        gelu(x) = x P(X <= x) = x/2 (1 + erf(x / sqrt(2)))                               (1)

    Shapes:  x [...] -> the same shape.
    Units:   none: x counts standard deviations.
    Empty:   an empty array stays empty.
    Errors:  none; NaN stays NaN.
    Source:  arXiv:1606.08415 sec. 2.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x: FloatArray) -> FloatArray:
    """Approximates gelu with a hyperbolic tangent; another function, off by up to 5e-4.

        gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))                     (1)

    Shapes:  x [...] -> the same shape.
    Units:   none: x counts standard deviations.
    Empty:   an empty array stays empty.
    Errors:  none; NaN stays NaN.
    Source:  arXiv:1606.08415 sec. 2.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    out: FloatArray = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + CUBIC * x * np.square(x))))
    return out


def silu(x: FloatArray) -> FloatArray:
    """Weights each number by its own sigmoid; also called swish.

        silu(x) = x sigmoid(x)                                                           (1)

    Shapes:  x [...] -> the same shape.
    Units:   none.
    Empty:   an empty array stays empty.
    Errors:  none; NaN stays NaN.
    Source:  arXiv:1606.08415 sec. 2; arXiv:1702.03118.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    return x * sigmoid(x)


ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu}


def activate(x: FloatArray, activation: str) -> FloatArray:
    """Applies the activation of that name, entry by entry.

        out = activation(x)                                                              (1)

    Shapes:  x [...] -> the same shape.
    Units:   those of the activation.
    Empty:   an empty array stays empty.
    Errors:  ValueError if there is no activation of that name.
    Source:  that of the activation.
    Differs: n/a.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: it is one of {', '.join(ACTIVATIONS)}; pass one of these")
    return ACTIVATIONS[activation](x)
