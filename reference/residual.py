"""The residual connection around every sub-layer of a Transformer, with its norm after it or before it, and its gradients."""

from collections.abc import Callable
from typing import Literal, TypeAlias, TypedDict, TypeVar, get_args

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.layer_norm import layer_norm, layer_norm_backward
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.rms_norm import rms_norm, rms_norm_backward
from attnspec.reference.shapes import FloatArray, ShapeError

Order: TypeAlias = Literal["post", "pre"]
Norm: TypeAlias = Literal["layer", "rms"]
Rest = TypeVar("Rest")


class NormOptions(TypedDict, total=False):
    """The keyword arguments of add_and_norm, which every layer takes and passes on."""

    order: Order
    norm: Norm
    eps: float


def normalise(x: FloatArray, parameters: Parameters, norm: Norm = "layer", eps: float = 1e-5) -> FloatArray:
    """Applies the norm of that name, if there is one.

        out = layer_norm(x) or rms_norm(x), or x without parameters                      (1)

    Shapes:  x [...,M] -> the same shape; parameters are those of the norm, or none.
    Units:   eps has the units of x squared.
    Empty:   without parameters there is no norm: pre-norm models end in one, post-norm models do not.
    Errors:  ValueError if norm is not one of the two; those of layer_norm and rms_norm.
    Source:  arXiv:1607.06450 eq. 4; arXiv:1910.07467 eq. 4.
    Differs: n/a.
    """
    if norm not in get_args(Norm):
        raise ValueError(f"norm={norm!r}: it is one of {', '.join(get_args(Norm))}; pass one of these")
    if not parameters:
        return np.asarray(x, dtype=np.float64)
    return layer_norm(x, parameters, eps) if norm == "layer" else rms_norm(x, parameters, eps)


def normalise_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, norm: Norm = "layer", eps: float = 1e-5
) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the normalised back to the input and the parameters.

        dx = cotangent d out / d x                                                       (1)

    Shapes:  x, cotangent [...,M] -> dx as x, gradients as the parameters.
    Units:   those of the cotangent over those of x.
    Empty:   without parameters dx is the cotangent.
    Errors:  those of normalise; ShapeError if cotangent has not the shape of x.
    Source:  arXiv:1607.06450 eq. 4 and arXiv:1910.07467 eq. 4, differentiated.
    Differs: n/a.
    """
    check_cotangent(cotangent, normalise(x, parameters, norm, eps).shape)
    if not parameters:
        return np.asarray(cotangent, dtype=np.float64), {}
    backward = layer_norm_backward if norm == "layer" else rms_norm_backward
    return backward(x, parameters, cotangent, eps)


def add_and_norm(
    x: FloatArray, sublayer: Callable[[FloatArray], FloatArray], parameters: Parameters, *,
    order: Order = "post", norm: Norm = "layer", eps: float = 1e-5,
) -> FloatArray:  # fmt: skip
    """Adds what a sub-layer finds to its input.

        out = norm(x + sublayer(x))  (post)  or  x + sublayer(norm(x))  (pre)            (1)

    Shapes:  x [B,T,M], sublayer keeps the shape -> the same shape; parameters are those of the norm.
    Units:   those of x.
    Empty:   without parameters there is no norm, and both orders are x + sublayer(x).
    Errors:  ValueError if order is not one of the two; ShapeError if sublayer changes the shape; those of normalise.
    Source:  arXiv:1706.03762 sec. 3.1 for post; arXiv:2002.04745 table 1 for pre.
    Differs: the first paper drops out entries of the sub-layer's output in training; here nothing is random.
    """
    if order not in get_args(Order):
        raise ValueError(f"order={order!r}: it is one of {', '.join(get_args(Order))}; pass one of these")
    if order == "post":
        return normalise(_sum(x, sublayer(x)), parameters, norm, eps)
    return _sum(x, sublayer(normalise(x, parameters, norm, eps)))


def add_and_norm_backward(
    x: FloatArray, sublayer: Callable[[FloatArray], FloatArray],
    sublayer_backward: Callable[[FloatArray, FloatArray], tuple[FloatArray, Rest]], parameters: Parameters,
    cotangent: FloatArray, *, order: Order = "post", norm: Norm = "layer", eps: float = 1e-5,
) -> tuple[FloatArray, Gradients, Rest]:  # fmt: skip
    """Pulls a cotangent of the output back to the input, the norm and whatever the sub-layer has gradients for.

        dx = ds + sublayer'(x)·ds,  ds = norm'(x + sublayer(x))·cotangent  (post)        (1)
        dx = cotangent + norm'(x)·sublayer'(norm(x))·cotangent             (pre)         (2)

    Shapes:  x, cotangent [B,T,M]; sublayer_backward maps its input and a cotangent to the input's gradient and the rest
             -> dx as x, the gradients of the norm's parameters, the rest.
    Units:   f'(x)·c is the cotangent c of f(x), pulled back to x.
    Empty:   as in add_and_norm.
    Errors:  those of add_and_norm; ShapeError if cotangent has not the shape of x.
    Source:  arXiv:1706.03762 sec. 3.1 and arXiv:2002.04745 table 1, differentiated.
    Differs: n/a.
    """
    check_cotangent(cotangent, add_and_norm(x, sublayer, parameters, order=order, norm=norm, eps=eps).shape)
    if order == "post":
        ds, gradients = normalise_backward(x + sublayer(x), parameters, cotangent, norm, eps)
        dx, rest = sublayer_backward(x, ds)
        return ds + dx, gradients, rest
    dn, rest = sublayer_backward(normalise(x, parameters, norm, eps), cotangent)
    dx, gradients = normalise_backward(x, parameters, dn, norm, eps)
    return cotangent + dx, gradients, rest


def _sum(x: FloatArray, found: FloatArray) -> FloatArray:
    if np.shape(x) != found.shape:
        raise ShapeError(f"sublayer(x).shape={found.shape}: it is added to x, of shape {np.shape(x)}; let it keep the shape")
    return x + found
