"""One cell over time, forward, and back-propagation through time."""

import numpy as np

from attnspec.reference.cell import Cell, State, check_state, step, step_backward
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.mask import padding_mask
from attnspec.reference.parameters import Gradients, Parameters, added
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, check_rank, check_size


def unroll(
    x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Reads a sequence from left to right, one step after the other; padding leaves no trace.

        state[t + 1] = cell(x[t], state[t]) if t < length else state[t]                  (1)
        out[t] = h[t + 1] if t < length else 0                                           (2)

    Shapes:  x [B,T,M]  each array of the state [B,N]  lengths [B], T each unless given -> out [B,T,N], final state.
    Units:   state is (h, c) for lstm and (h,) for the others; the final state is the one after the last real step.
    Empty:   T = 0 or a length of zero hands the state on as it is; padding of x may be anything, NaN included.
    Errors:  those of the cell; ShapeError if B or N differs or a rank is wrong; those of padding_mask for lengths.
    Source:  arXiv:1409.3215 sec. 2; torch.nn.utils.rnn.pack_padded_sequence for lengths.
    Differs: the paper takes one sentence at a time; torch refuses lengths of zero.
    """
    x, state, real = _checked(x, state, cell, lengths)
    out = [np.zeros_like(state[0])[:, None, :][:, :0]]  # T = 0 has nothing to join
    for t in range(x.shape[1]):
        state = _where(real[:, t], step(x[:, t], state, parameters, cell), state)
        out.append(np.where(real[:, t, None], state[0], 0.0)[:, None, :])
    return np.concatenate(out, axis=1), state


def unroll_backward(
    x: FloatArray, state: State, parameters: Parameters, cotangent: FloatArray, state_cotangent: State,
    cell: Cell = "lstm", lengths: IntArray | None = None,
) -> tuple[FloatArray, State, Gradients]:  # fmt: skip
    """Pulls cotangents of the outputs and of the final state back through time.

        (dx[t], dstate[t], g[t]) = cell_backward(x[t], state[t], dstate[t + 1] + (dout[t], 0))  if t < length      (1)
        dstate[t] = dstate[t + 1],  dx[t] = g[t] = 0                                         otherwise             (2)
        dstate = dstate[0],  gradients = sum_t g[t],  dout = cotangent,  dstate[T] = state_cotangent               (3)

    Shapes:  x [B,T,M]  cotangent [B,T,N]  each array of state and state_cotangent [B,N] -> dx [B,T,M], dstate as state,
             and the gradients under the parameters' names and shapes.
    Units:   those of the cotangents over those of the input.
    Empty:   T = 0 hands state_cotangent on, with gradients of zero.
    Errors:  those of unroll; ShapeError if cotangent has not the shape of the outputs.
    Source:  doi:10.1109/5.58337 (backpropagation through time: what it does and how to do it).
    Differs: the paper has no padding.
    """
    x, state, real = _checked(x, state, cell, lengths)
    _, dstate, _ = _checked(x, state_cotangent, cell, lengths)
    check_size("N", "state", state[0].shape[1], "state_cotangent", dstate[0].shape[1])
    dout = np.asarray(cotangent, dtype=np.float64)
    check_cotangent(dout, (*x.shape[:2], state[0].shape[1]))
    before = [state]
    for t in range(x.shape[1]):
        before.append(_where(real[:, t], step(x[:, t], before[t], parameters, cell), before[t]))
    dx = [np.zeros_like(x)[:, :0]]
    gradients: Gradients = {name: np.zeros(np.shape(array)) for name, array in parameters.items()}
    for t in reversed(range(x.shape[1])):
        arriving = (dstate[0] + dout[:, t], *dstate[1:])
        arriving = _where(real[:, t], arriving, tuple(np.zeros_like(array) for array in dstate))
        dx_t, dbefore, gradients_t = step_backward(x[:, t], before[t], parameters, arriving, cell)
        dx, dstate, gradients = [dx_t[:, None, :], *dx], _where(real[:, t], dbefore, dstate), added(gradients, gradients_t)
    return np.concatenate(dx, axis=1), dstate, gradients


def _checked(x: FloatArray, state: State, cell: Cell, lengths: IntArray | None) -> tuple[FloatArray, State, BoolArray]:
    """x with zeros for padding, so that not even a NaN there is multiplied; the state; which steps are real, [B,T]."""
    x, state = np.asarray(x, dtype=np.float64), tuple(np.asarray(array, dtype=np.float64) for array in state)
    check_rank("x", x, "BTM")
    check_state(state, cell)
    for name, array in zip("hc", state, strict=False):
        check_rank(name, array, "BN")
        check_size("B", "x", x.shape[0], name, array.shape[0])
        check_size("N", "h", state[0].shape[1], name, array.shape[1])
    if lengths is None:
        return x, state, np.ones(x.shape[:2], dtype=np.bool_)
    real = padding_mask(lengths, x.shape[1])[:, 0, 0]
    check_size("B", "x", x.shape[0], "lengths", real.shape[0])
    return np.where(real[..., None], x, 0.0), state, real


def _where(real: BoolArray, new: State, old: State) -> State:
    """The new state of the sequences that are still running, the old one of the others."""
    return tuple(np.where(real[:, None], one, other) for one, other in zip(new, old, strict=True))
