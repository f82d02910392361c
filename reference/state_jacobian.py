"""How the next state of each cell depends on the state before it, in closed form."""

import numpy as np

from attnspec.reference.gru import Reset, gru_gates
from attnspec.reference.lstm import lstm_cell, lstm_gates
from attnspec.reference.parameters import Parameters
from attnspec.reference.rnn import Activation, rnn_cell
from attnspec.reference.shapes import FloatArray


def rnn_jacobian(x: FloatArray, h: FloatArray, parameters: Parameters, activation: Activation = "tanh") -> FloatArray:
    """Derives the next state of a cell of Elman by its state: the weights, shrunk by the slope.

        dh'[n] / dh[m] = phi'(a[n]) U[n, m],  phi' = 1 - h'^2 for tanh, [a > 0] for relu           (1)

    Shapes:  x [B,M]  h [B,N] -> [B,N,N].
    Units:   none: entries of a state over entries of a state.
    Empty:   B, M and N may be zero.
    Errors:  those of rnn_cell.
    Source:  arXiv:1211.5063 eq. 5, in sec. 1.1.
    Differs: the paper squashes before the weights, not after.
    """
    new = rnn_cell(x, h, parameters, activation)
    slope = 1 - np.square(new) if activation == "tanh" else np.where(new > 0, 1.0, 0.0)
    return _rows(slope) * np.asarray(parameters["hidden.weight"], dtype=np.float64)


def lstm_jacobian(x: FloatArray, h: FloatArray, c: FloatArray, parameters: Parameters) -> FloatArray:
    """Derives the next state and memory of long short-term memory by both: f is the road past all weights.

        dc'/dc = diag(f),  dc'/dh = diag(g i (1 - i)) U_i + diag(c f (1 - f)) U_f + diag(i (1 - g^2)) U_g    (1)
        dh'/dc = diag(o s) dc'/dc,  dh'/dh = diag(o s) dc'/dh + diag(t o (1 - o)) U_o                        (2)
        t = tanh(c'),  s = 1 - t^2                                                                           (3)

    Shapes:  x [B,M]  h, c [B,N] -> [B,2*N,2*N]: rows are h' and c', columns are h and c.
    Units:   none: entries of a state over entries of a state.
    Empty:   B, M and N may be zero.
    Errors:  those of lstm_cell.
    Source:  doi:10.1162/089976600300015015: with f = 1 the memory is the constant error carousel.
    Differs: the paper drops the derivatives along h; here they are whole.
    """
    c, t = np.asarray(c, dtype=np.float64), np.tanh(lstm_cell(x, h, c, parameters)[1])
    i, f, g, o = lstm_gates(x, h, parameters)
    u = _weights(parameters, 4)
    dc_dc = _rows(f) * np.eye(f.shape[1])
    dc_dh = _rows(g * i * (1 - i)) * u[0] + _rows(c * f * (1 - f)) * u[1] + _rows(i * (1 - np.square(g))) * u[2]
    shown = _rows(o * (1 - np.square(t)))
    dh_dh = shown * dc_dh + _rows(t * o * (1 - o)) * u[3]
    of_h, of_c = np.concatenate([dh_dh, shown * dc_dc], axis=2), np.concatenate([dc_dh, dc_dc], axis=2)
    return np.concatenate([of_h, of_c], axis=1)


def gru_jacobian(x: FloatArray, h: FloatArray, parameters: Parameters, reset: Reset = "after") -> FloatArray:
    """Derives the next state of a gated recurrent unit by its state: z is the road past all weights.

        dh'/dh = diag(z) + diag((h - n) z (1 - z)) U_z + diag((1 - z) (1 - n^2)) V                           (1)
        after:   V = diag(r) U_n + diag(s r (1 - r)) U_r                                                 (2)
        before:  V = U_n (diag(r) + diag(h r (1 - r)) U_r)                                               (3)

    Shapes:  x [B,M]  h [B,N] -> [B,N,N].
    Units:   none: entries of a state over entries of a state.
    Empty:   B, M and N may be zero.
    Errors:  those of gru_cell.
    Source:  the chain rule on (1) of gru_cell and (1)-(3) of gru_gates.
    Differs: n/a.
    """
    h = np.asarray(h, dtype=np.float64)
    r, z, n, s = gru_gates(x, h, parameters, reset)
    u, one = _weights(parameters, 3), np.eye(h.shape[1])
    if reset == "after":
        v = _rows(r) * u[2] + _rows(s * r * (1 - r)) * u[0]
    else:
        v = np.einsum("nm,bmk->bnk", u[2], _rows(r) * one + _rows(h * r * (1 - r)) * u[0])
    jacobian: FloatArray = _rows(z) * one + _rows((h - n) * z * (1 - z)) * u[1] + _rows((1 - z) * (1 - np.square(n))) * v
    return jacobian


def _rows(x: FloatArray) -> FloatArray:
    """Times a matrix this scales its rows: diag(x) U, [B,N,1]."""
    return x[:, :, None]


def _weights(parameters: Parameters, gates: int) -> FloatArray:
    """The weights of the state, gate by gate: [gates,N,N]."""
    weight = np.asarray(parameters["hidden.weight"], dtype=np.float64)
    return weight.reshape(gates, weight.shape[1], weight.shape[1])
