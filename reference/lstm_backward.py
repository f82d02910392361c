"""The gradients of the cell of long short-term memory, derived by hand."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.gates import gate_sums_backward
from attnspec.reference.lstm import lstm_cell, lstm_gates
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import FloatArray


def lstm_backward(
    x: FloatArray, h: FloatArray, c: FloatArray, parameters: Parameters, cotangent: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray, FloatArray, Gradients]:
    """Pulls cotangents of the new state and memory back to the input, the old ones and the parameters.

        dm = dc' + dh' o (1 - t^2),  t = tanh(c'),  cotangent = (dh', dc')               (1)
        da_i = dm g i (1 - i),  da_f = dm c f (1 - f),  da_o = dh' t o (1 - o)           (2)
        da_g = dm i (1 - g^2)                                                            (3)
        dc = dm f                                                                        (4)
        dx = sum_k da_k W_k,  dh = sum_k da_k U_k,  and the parameters as in gate_sums_backward        (5)

    Shapes:  x [B,M]  h, c, dh', dc' [B,N] -> dx [B,M], dh, dc [B,N] and the gradients under the parameters' names.
    Units:   those of the cotangents over those of the input.
    Empty:   no rows give gradients of zero.
    Errors:  those of lstm_cell; ShapeError if a cotangent has not the shape of the state.
    Source:  the chain rule on (1) and (2) of lstm_cell and of lstm_gates.
    Differs: the paper of the cell (doi:10.1162/neco.1997.9.8.1735) cuts dh off; here the gradient is whole.
    """
    _, memory = lstm_cell(x, h, c, parameters)
    dh_new, dc_new = (np.asarray(array, dtype=np.float64) for array in cotangent)
    check_cotangent(dh_new, memory.shape, "h'")
    check_cotangent(dc_new, memory.shape, "c'")
    i, f, g, o = lstm_gates(x, h, parameters)
    t = np.tanh(memory)
    dm = dc_new + dh_new * o * (1 - np.square(t))
    of_gates = [dm * g * i * (1 - i), dm * c * f * (1 - f), dm * i * (1 - np.square(g)), dh_new * t * o * (1 - o)]
    da = np.stack(of_gates)
    dx, dh, gradients = gate_sums_backward(x, h, parameters, da, da)
    return dx, dh, dm * f, gradients
