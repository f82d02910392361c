"""The gated recurrent unit: one gate forgets, one chooses between the old state and a new one."""

from typing import Literal, TypeAlias

import numpy as np

from attnspec.reference.gates import gate_sums
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import FloatArray
from attnspec.reference.sigmoid import sigmoid

Reset: TypeAlias = Literal["after", "before"]


def gru_cell(x: FloatArray, h: FloatArray, parameters: Parameters, reset: Reset = "after") -> FloatArray:
    """Moves the state a share of the way to a candidate.

        h' = (1 - z) n + z h,  z and n as in gru_gates                                   (1)

    Shapes:  x [B,M]  h [B,N]  parameters as in gru_gates -> h' [B,N].
    Units:   every entry of h' lies between those of h and n.
    Empty:   B, M and N may be zero.
    Errors:  those of gru_gates.
    Source:  arXiv:1406.1078 sec. 2.3; torch.nn.GRUCell.
    Differs: the paper writes h~ for n.
    """
    _, z, n, _ = gru_gates(x, h, parameters, reset)
    return (1 - z) * n + z * np.asarray(h, dtype=np.float64)


def gru_gates(
    x: FloatArray, h: FloatArray, parameters: Parameters, reset: Reset = "after"
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Decides how much of the state to reset (r) and to keep (z), and proposes a new one (n).

        r = sigmoid(x W_r^T + b_r + h U_r^T + d_r),  z = sigmoid(x W_z^T + b_z + h U_z^T + d_z)    (1)
        after:   n = tanh(x W_n^T + b_n + r s),  s = h U_n^T + d_n                                 (2)
        before:  n = tanh(x W_n^T + b_n + s),  s = (r h) U_n^T + d_n                               (3)

    Shapes:  x [B,M]  h [B,N]  input.weight = W [3*N,M]  hidden.weight = U [3*N,N]  input.bias = b,
             hidden.bias = d [3*N], both or none; rows in the order r, z, n -> r, z, n, s, each [B,N].
    Units:   r and z are shares, n is between -1 and 1.
    Empty:   B, M and N may be zero.
    Errors:  those of gate_sums; ValueError if reset is neither after nor before.
    Source:  arXiv:1406.1078v3 sec. 2.3, which resets before the product with U_n; torch.nn.GRUCell, which resets after it.
    Differs: the paper writes h~ for n, and no biases.
    """
    if reset not in ("after", "before"):
        raise ValueError(f"reset={reset!r}: it is after or before the product with U_n; pass one of these")
    h = np.asarray(h, dtype=np.float64)
    from_input, from_hidden = gate_sums(x, h, parameters, 3)
    r, z = sigmoid(from_input[0] + from_hidden[0]), sigmoid(from_input[1] + from_hidden[1])
    s = from_hidden[2] if reset == "after" else gate_sums(x, r * h, parameters, 3)[1][2]
    n = np.tanh(from_input[2] + (r * s if reset == "after" else s))
    return r, z, n, s
