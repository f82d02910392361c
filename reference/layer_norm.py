"""Layer normalisation: each position is centred and scaled by its own mean and variance. Forward and backward."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.parameters import Gradients, Parameters, check_names
from attnspec.reference.shapes import FloatArray, ShapeError


def layer_norm(x: FloatArray, parameters: Parameters, eps: float = 1e-5) -> FloatArray:
    """Centres and scales each position, then gives each channel its own scale and shift.

        out[..., m] = n[..., m] weight[m] + bias[m]                                      (1)
        n[m] = (x[m] - mean) / sqrt(variance + eps)                                      (2)
        mean = 1/M sum_m x[m],  variance = 1/M sum_m (x[m] - mean)^2                     (3)

    Shapes:  x [...,M]  weight [M]  bias [M], optional -> [...,M].
    Units:   eps has those of x squared; the variance is the biased one, divided by M.
    Empty:   any other axis may be zero; a mean needs M > 0.
    Errors:  ValueError if weight is missing, a name unknown, or eps < 0; ShapeError if M differs or is zero.
    Source:  arXiv:1607.06450 eq. 3 for (3), eq. 4 for (1), (2).
    Differs: the paper has no eps; without it a position of equal numbers would be 0 / 0.
    """
    check_names(parameters, ("weight",), ("bias",))
    x = np.asarray(x, dtype=np.float64)
    affine = {name: per_channel(name, parameters, x) for name in parameters}
    scaled = _normalised(x, eps)[0] * affine["weight"]
    return scaled + affine["bias"] if "bias" in affine else scaled


def layer_norm_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, eps: float = 1e-5
) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the output back to the input and the parameters.

        dbias[m] = sum_... do[..., m],  dweight[m] = sum_... do[..., m] n[..., m],  do = cotangent     (1)
        dx[m] = (dn[m] - mean(dn) - n[m] mean(dn n)) / sqrt(variance + eps),  dn = do weight           (2)

    Shapes:  x, cotangent [...,M] -> dx [...,M] and the gradients under the parameters' names, each [M].
    Units:   those of the cotangent over those of the input.
    Empty:   no positions give gradients of zero.
    Errors:  those of layer_norm; ShapeError if cotangent has not the shape of x.
    Source:  the chain rule on (1)-(3) of layer_norm: the mean and the variance depend on every channel.
    Differs: n/a.
    """
    check_names(parameters, ("weight",), ("bias",))
    x, do = np.asarray(x, dtype=np.float64), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, x.shape)
    affine = {name: per_channel(name, parameters, x) for name in parameters}
    n, deviation = _normalised(x, eps)
    dn = do * affine["weight"]
    dx = (dn - np.mean(dn, axis=-1, keepdims=True) - n * np.mean(dn * n, axis=-1, keepdims=True)) / deviation
    rows = tuple(range(x.ndim - 1))
    gradients: Gradients = {"weight": np.sum(do * n, axis=rows), "bias": np.sum(do, axis=rows)}
    return dx, {name: gradients[name] for name in affine}


def per_channel(name: str, parameters: Parameters, x: FloatArray) -> FloatArray:
    """Takes a parameter that has one entry for each channel.

        parameters[name] has the shape [M], M > 0                                        (1)

    Shapes:  x [...,M] -> [M].
    Units:   those of the parameter.
    Empty:   M = 0 is refused: there is nothing to take a mean of.
    Errors:  ShapeError if the shape is another or M = 0.
    Source:  arXiv:1607.06450 eq. 4: gain and bias have the dimension of the input.
    Differs: n/a.
    """
    array = np.asarray(parameters[name], dtype=np.float64)
    if x.shape[-1:] in ((), (0,)):
        raise ShapeError(f"x.shape={x.shape}: a norm takes means over the last axis, so M > 0; pass at least one channel")
    if array.shape != x.shape[-1:]:
        raise ShapeError(f"{name}.shape={array.shape}: it has one entry for each channel of x; pass {x.shape[-1:]}")
    return array


def check_eps(eps: float) -> None:
    """Refuses a number that could turn a variance negative.

        eps >= 0                                                                         (1)

    Shapes:  n/a.
    Units:   those of x squared.
    Empty:   with eps = 0 a position of equal numbers is 0 / 0, which is NaN.
    Errors:  ValueError if eps < 0.
    Source:  arXiv:1607.06450 eq. 4, a square root.
    Differs: n/a.
    """
    if not eps >= 0:
        raise ValueError(f"eps={eps}: it is added to a variance, so it is at least 0; pass 1e-5")


def _normalised(x: FloatArray, eps: float) -> tuple[FloatArray, FloatArray]:
    """n as in (2) of layer_norm, and its denominator."""
    check_eps(eps)
    centred = x - np.mean(x, axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + eps)
    return centred / deviation, deviation
