"""Root-mean-square normalisation: each position is scaled to a mean square of one. Forward and backward."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.layer_norm import check_eps, per_channel
from attnspec.reference.parameters import Gradients, Parameters, check_names
from attnspec.reference.shapes import FloatArray


def rms_norm(x: FloatArray, parameters: Parameters, eps: float = 1e-5) -> FloatArray:
    """Divides each position by its root mean square, then gives each channel its own scale.

        out[..., m] = x[..., m] / rms weight[m],  rms = sqrt(1/M sum_m x[..., m]^2 + eps)     (1)

    Shapes:  x [...,M]  weight [M] -> [...,M].
    Units:   eps has those of x squared.
    Empty:   any other axis may be zero; a mean needs M > 0.
    Errors:  ValueError if weight is missing, a name unknown, or eps < 0; ShapeError if M differs or is zero.
    Source:  arXiv:1910.07467 eq. 4.
    Differs: the paper has no eps; without it a position of zeros would be 0 / 0.
    """
    check_names(parameters, ("weight",))
    x = np.asarray(x, dtype=np.float64)
    weight = per_channel("weight", parameters, x)
    return x / _root_mean_square(x, eps) * weight


def rms_norm_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, eps: float = 1e-5
) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the output back to the input and the weight.

        dweight[m] = sum_... do[..., m] n[..., m],  n = x / rms,  do = cotangent         (1)
        dx[m] = (dn[m] - n[m] mean(dn n)) / rms,  dn = do weight                         (2)

    Shapes:  x, cotangent [...,M] -> dx [...,M] and the gradient of weight [M] under its name.
    Units:   those of the cotangent over those of the input.
    Empty:   no positions give gradients of zero.
    Errors:  those of rms_norm; ShapeError if cotangent has not the shape of x.
    Source:  the chain rule on (1) of rms_norm: the root mean square depends on every channel.
    Differs: n/a.
    """
    check_names(parameters, ("weight",))
    x, do = np.asarray(x, dtype=np.float64), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, x.shape)
    weight, rms = per_channel("weight", parameters, x), _root_mean_square(x, eps)
    n, dn = x / rms, do * weight
    dx = (dn - n * np.mean(dn * n, axis=-1, keepdims=True)) / rms
    return dx, {"weight": np.sum(do * n, axis=tuple(range(x.ndim - 1)))}


def _root_mean_square(x: FloatArray, eps: float) -> FloatArray:
    """The root of the mean square and eps."""
    check_eps(eps)
    root: FloatArray = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    return root
