"""The cell of long short-term memory: gates write, keep and show a memory."""

import numpy as np

from attnspec.reference.gates import gate_sums
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import FloatArray, ShapeError
from attnspec.reference.sigmoid import sigmoid


def lstm_cell(x: FloatArray, h: FloatArray, c: FloatArray, parameters: Parameters) -> tuple[FloatArray, FloatArray]:
    """Forgets a share of the memory, writes a share of a candidate, and shows a share of the result.

        c' = f c + i g                                                                   (1)
        h' = o tanh(c'),  i, f, g, o as in lstm_gates                                    (2)

    Shapes:  x [B,M]  h, c [B,N]  parameters as in lstm_gates -> h', c' [B,N].
    Units:   every entry of h' is between -1 and 1, c' has no bound.
    Empty:   B, M and N may be zero.
    Errors:  those of lstm_gates; ShapeError if c has not the shape of h.
    Source:  doi:10.1162/neco.1997.9.8.1735 for the memory; doi:10.1162/089976600300015015 for f; torch.nn.LSTMCell.
    Differs: the papers squash g and c' by shifted sigmoids; here by tanh. There are no peepholes.
    """
    c = np.asarray(c, dtype=np.float64)
    if c.shape != np.shape(h):
        raise ShapeError(f"c.shape={c.shape}: the memory has the shape of h, {np.shape(h)}; pass one entry for each of h")
    i, f, g, o = lstm_gates(x, h, parameters)
    memory = f * c + i * g
    return o * np.tanh(memory), memory


def lstm_gates(x: FloatArray, h: FloatArray, parameters: Parameters) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Decides how much to write (i), to keep (f) and to show (o), and proposes what to write (g).

        a_k = x W_k^T + b_k + h U_k^T + d_k  for k = i, f, g, o                          (1)
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o),  g = tanh(a_g)               (2)

    Shapes:  x [B,M]  h [B,N]  input.weight = W [4*N,M]  hidden.weight = U [4*N,N]  input.bias = b,
             hidden.bias = d [4*N], both or none; rows in the order i, f, g, o -> i, f, g, o, each [B,N].
    Units:   i, f and o are shares, g is between -1 and 1.
    Empty:   B, M and N may be zero.
    Errors:  those of gate_sums.
    Source:  as lstm_cell; torch.nn.LSTMCell for the order.
    Differs: as lstm_cell.
    """
    from_input, from_hidden = gate_sums(x, h, parameters, 4)
    a = from_input + from_hidden
    return sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])
