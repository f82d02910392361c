"""A linear map with a bias, as every layer of the models is made of, and its gradients."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.parameters import Gradients, Parameters, check_names
from attnspec.reference.shapes import FloatArray, ShapeError, check_rank, check_size


def linear(x: FloatArray, parameters: Parameters) -> FloatArray:
    """Maps the last axis by a matrix and adds a bias.

        out[..., f] = sum_m x[..., m] weight[f, m] + bias[f]                             (1)

    Shapes:  x [...,M]  weight [F,M]  bias [F], optional -> [...,F].
    Units:   any.
    Empty:   M = 0 gives the bias.
    Errors:  ValueError if weight is missing or a name unknown; ShapeError if x has no axis, or M or F differs.
    Source:  arXiv:1706.03762 sec. 3.2.2 and 3.3.
    Differs: the paper multiplies by a matrix from the right; weight is its transpose, as in torch.nn.Linear.
    """
    check_names(parameters, ("weight",), ("bias",))
    x, weight = np.asarray(x, dtype=np.float64), np.asarray(parameters["weight"], dtype=np.float64)
    check_rank("weight", weight, "FM")
    if x.ndim == 0:
        raise ShapeError(f"x.shape={x.shape}: it has a last axis of M={weight.shape[1]} channels; pass a vector")
    check_size("M", "the input of weight", x.shape[-1], "weight", weight.shape[1])
    out: FloatArray = np.einsum("...m,fm->...f", x, weight)
    if "bias" not in parameters:
        return out
    bias = np.asarray(parameters["bias"], dtype=np.float64)
    if bias.shape != weight.shape[:1]:
        rule = f"it has one entry for each of the {weight.shape[0]} rows of weight"
        raise ShapeError(f"bias.shape={bias.shape}: {rule}; pass {weight.shape[:1]}")
    return out + bias


def linear_backward(x: FloatArray, parameters: Parameters, cotangent: FloatArray) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the output back to the input and the parameters.

        dx[..., m] = sum_f do[..., f] weight[f, m],  do = cotangent                      (1)
        dweight[f, m] = sum_... do[..., f] x[..., m]                                     (2)
        dbias[f] = sum_... do[..., f]                                                    (3)

    Shapes:  x [...,M]  cotangent [...,F] -> dx [...,M] and the gradients under the parameters' names and shapes.
    Units:   those of the cotangent times those of the other factor.
    Empty:   no rows give gradients of zero.
    Errors:  those of linear; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1) of linear.
    Differs: n/a.
    """
    x, do = np.asarray(x, dtype=np.float64), np.asarray(cotangent, dtype=np.float64)
    shape = linear(x, parameters).shape
    check_cotangent(do, shape)
    weight = np.asarray(parameters["weight"], dtype=np.float64)
    n = int(np.prod(x.shape[:-1]))
    rows, columns = do.reshape(n, do.shape[-1]), x.reshape(n, x.shape[-1])
    gradients = {"weight": np.einsum("nf,nm->fm", rows, columns)}
    if "bias" in parameters:
        gradients["bias"] = np.sum(rows, axis=0)
    dx: FloatArray = np.einsum("...f,fm->...m", do, weight)
    return dx, gradients
