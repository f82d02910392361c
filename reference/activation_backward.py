"""The slopes of the activations of feed-forward layers."""

import numpy as np

from attnspec.reference.activation import CUBIC, activate, erf
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.shapes import FloatArray
from attnspec.reference.sigmoid import sigmoid


def relu_slope(x: FloatArray) -> FloatArray:
    """Differentiates relu.

        relu'(x) = 1 where x > 0, else 0                                                 (1)

    Shapes:  x [...] -> the same shape.
    Units:   none.
    Empty:   an empty array stays empty.
    Errors:  none.
    Source:  arXiv:1706.03762 eq. 2, differentiated.
    Differs: relu has no derivative at zero; here it is 0, as in torch.
    """
    return np.where(np.asarray(x, dtype=np.float64) > 0, 1.0, 0.0)


def gelu_slope(x: FloatArray) -> FloatArray:
    """Differentiates gelu.

        gelu'(x) = P(X <= x) + x p(x),  p(x) = exp(-x^2/2) / sqrt(2 pi)                  (1)

    Shapes:  x [...] -> the same shape.
    Units:   none.
    Empty:   an empty array stays empty.
    Errors:  none.
    Source:  arXiv:1606.08415 sec. 2, differentiated.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    slope: FloatArray = 0.5 * (1 + erf(x / np.sqrt(2))) + x * np.exp(-np.square(x) / 2) / np.sqrt(2 * np.pi)
    return slope


def gelu_tanh_slope(x: FloatArray) -> FloatArray:
    """Differentiates gelu_tanh.

        gelu_tanh'(x) = 1/2 (1 + tanh u) + x/2 u' (1 - tanh(u)^2)                        (1)
        u = sqrt(2/pi) (x + 0.044715 x^3),  u' = sqrt(2/pi) (1 + 0.134145 x^2)           (2)

    Shapes:  x [...] -> the same shape.
    Units:   none.
    Empty:   an empty array stays empty.
    Errors:  none.
    Source:  arXiv:1606.08415 sec. 2, differentiated.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    u = np.sqrt(2 / np.pi) * (x + CUBIC * x * np.square(x))
    du = np.sqrt(2 / np.pi) * (1 + 3 * CUBIC * np.square(x))
    slope: FloatArray = 0.5 * (1 + np.tanh(u)) + 0.5 * x * du * (1 - np.square(np.tanh(u)))
    return slope


def silu_slope(x: FloatArray) -> FloatArray:
    """Differentiates silu.

        silu'(x) = s (1 + x (1 - s)),  s = sigmoid(x)                                    (1)

    Shapes:  x [...] -> the same shape.
    Units:   none.
    Empty:   an empty array stays empty.
    Errors:  none.
    Source:  arXiv:1702.03118, the dSiLU.
    Differs: 1 - s is written sigmoid(-x), which does not cancel.
    """
    x = np.asarray(x, dtype=np.float64)
    return sigmoid(x) * (1 + x * sigmoid(-x))


SLOPES = {"relu": relu_slope, "gelu": gelu_slope, "gelu_tanh": gelu_tanh_slope, "silu": silu_slope}


def activate_backward(x: FloatArray, cotangent: FloatArray, activation: str) -> FloatArray:
    """Pulls a cotangent of the output of activate back to its input.

        dx = do activation'(x),  do = cotangent                                          (1)

    Shapes:  x [...]  cotangent [...] -> [...].
    Units:   those of the cotangent times those of the slope.
    Empty:   an empty array stays empty.
    Errors:  ValueError if there is no activation of that name; ShapeError if the shapes differ.
    Source:  the chain rule.
    Differs: n/a.
    """
    do = np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, activate(x, activation).shape)
    return do * SLOPES[activation](x)
