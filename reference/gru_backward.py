"""The gradients of the gated recurrent unit, derived by hand."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.gates import gate_sums_backward
from attnspec.reference.gru import Reset, gru_gates
from attnspec.reference.parameters import Gradients, Parameters, added
from attnspec.reference.shapes import FloatArray


def gru_backward(
    x: FloatArray, h: FloatArray, parameters: Parameters, cotangent: FloatArray, reset: Reset = "after"
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the new state back to the input, the old state and the parameters.

        da_z = do (h - n) z (1 - z),  da_n = do (1 - z) (1 - n^2),  do = cotangent       (1)
        after:   ds = da_n r,  dr = da_n s                                               (2)
        before:  ds = da_n,  dr = (ds U_n) h                                             (3)
        da_r = dr r (1 - r)                                                              (4)
        dh = do z + da_r U_r + da_z U_z + (ds U_n after, r (ds U_n) before)              (5)
        dx = da_r W_r + da_z W_z + da_n W_n;  dU_n = ds^T h after, ds^T (r h) before;  dd_n = ds summed over B    (6)

    Shapes:  x [B,M]  h, cotangent [B,N] -> dx [B,M], dh [B,N] and the gradients under the parameters' names and shapes.
    Units:   those of the cotangent over those of the input.
    Empty:   no rows give gradients of zero.
    Errors:  those of gru_cell; ShapeError if cotangent has not the shape of the new state.
    Source:  the chain rule on (1) of gru_cell and (1)-(3) of gru_gates.
    Differs: the remaining parameters are as in gate_sums_backward.
    """
    h, do = np.asarray(h, dtype=np.float64), np.asarray(cotangent, dtype=np.float64)
    r, z, n, s = gru_gates(x, h, parameters, reset)
    check_cotangent(do, n.shape, "h'")
    da_z, da_n = do * (h - n) * z * (1 - z), do * (1 - z) * (1 - np.square(n))
    if reset == "after":
        da_r = da_n * s * r * (1 - r)
        sums = np.stack([da_r, da_z, da_n]), np.stack([da_r, da_z, da_n * r])
        dx, dh, gradients = gate_sums_backward(x, h, parameters, *sums)
        return dx, do * z + dh, gradients
    none = np.zeros_like(da_n)
    to_n = np.stack([none, none, da_n])
    dx_n, drh, through_n = gate_sums_backward(x, r * h, parameters, to_n, to_n)
    gates = np.stack([drh * h * r * (1 - r), da_z, none])
    dx, dh, gradients = gate_sums_backward(x, h, parameters, gates, gates)
    return dx_n + dx, do * z + drh * r + dh, added(through_n, gradients)
