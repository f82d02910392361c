"""Why a long sentence is hard to learn: the gradient of the last state by an early one is a product of many factors."""

import numpy as np

from attnspec.reference.cell import Cell, State, check_state, step
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import FloatArray, check_rank
from attnspec.reference.state_jacobian import gru_jacobian, lstm_jacobian, rnn_jacobian


def state_jacobian(x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm") -> FloatArray:
    """Derives the next state of a cell of any kind by its state.

        J = dstate' / dstate,  state = (h, c) for lstm and (h,) for the others           (1)

    Shapes:  x [B,M]  each array of the state [B,N] -> [B,W,W], W = 2*N for lstm, else N.
    Units:   none: entries of a state over entries of a state.
    Empty:   B, M and N may be zero.
    Errors:  those of step.
    Source:  those of rnn_jacobian, lstm_jacobian and gru_jacobian.
    Differs: n/a.
    """
    check_state(state, cell)
    if cell == "lstm":
        return lstm_jacobian(x, state[0], state[1], parameters)
    if cell in ("rnn", "rnn_relu"):
        return rnn_jacobian(x, state[0], parameters, "tanh" if cell == "rnn" else "relu")
    return gru_jacobian(x, state[0], parameters, "after" if cell == "gru" else "before")


def vanishing_gradient(x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm") -> FloatArray:
    """Multiplies the Jacobians of a run: how the last state depends on each state before it.

        out[t] = dstate[T] / dstate[t] = J[T - 1] ... J[t + 1] J[t],  J[t] = dstate[t + 1] / dstate[t]       (1)
        |out[t]| <= |J[T - 1]| ... |J[t]|,  with tanh <= |U|^(T - t) in the spectral norm                    (2)

    Shapes:  x [B,T,M]  each array of the state [B,N] -> [B,T+1,W,W], W as in state_jacobian; out[T] is the identity.
    Units:   none: entries of a state over entries of a state.
    Empty:   T = 0 gives the identity alone.
    Errors:  those of state_jacobian; ShapeError if x has not three axes.
    Source:  arXiv:1211.5063 sec. 1.1, 2.1; doi:10.1109/72.279181 (learning long-term dependencies with gradient descent).
    Differs: the papers have the simple cell alone.
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    jacobians = []
    for t in range(x.shape[1]):
        jacobians.append(state_jacobian(x[:, t], state, parameters, cell))
        state = step(x[:, t], state, parameters, cell)
    width = sum(array.shape[1] for array in state)
    products = [np.broadcast_to(np.eye(width), (x.shape[0], width, width))]
    for jacobian in reversed(jacobians):
        products = [np.einsum("bij,bjk->bik", products[0], jacobian), *products]
    return np.stack(products, axis=1)
