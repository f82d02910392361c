"""The gradients of the recurrent cell of Elman, derived by hand."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.gates import gate_sums_backward
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.rnn import Activation, rnn_cell
from attnspec.reference.shapes import FloatArray


def rnn_backward(
    x: FloatArray, h: FloatArray, parameters: Parameters, cotangent: FloatArray, activation: Activation = "tanh"
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the new state back to the input, the old state and the parameters.

        da = phi'(a) do,  a = x W^T + b + h U^T + d,  h' = phi(a),  do = cotangent       (1)
        phi'(a) = 1 - h'^2 for tanh, and 1 if a > 0 else 0 for relu                      (2)
        dx = da W,  dh = da U,  dW = da^T x,  dU = da^T h,  db = dd = da summed over B   (3)

    Shapes:  x [B,M]  h, cotangent [B,N] -> dx [B,M], dh [B,N] and the gradients under the parameters' names and shapes.
    Units:   those of the cotangent over those of the input.
    Empty:   no rows give gradients of zero.
    Errors:  those of rnn_cell; ShapeError if cotangent has not the shape of the new state.
    Source:  the chain rule on (1) of rnn_cell; torch takes the same slope 0 of relu at 0.
    Differs: n/a.
    """
    new, do = rnn_cell(x, h, parameters, activation), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, new.shape, "h'")
    da = do * (1 - np.square(new)) if activation == "tanh" else np.where(new > 0, do, 0.0)
    return gate_sums_backward(x, h, parameters, da[None], da[None])
