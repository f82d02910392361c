"""The cells under one signature: a state, an input, and the next state."""

from typing import Literal, TypeAlias

import numpy as np

from attnspec.reference.gru import gru_cell
from attnspec.reference.gru_backward import gru_backward
from attnspec.reference.lstm import lstm_cell
from attnspec.reference.lstm_backward import lstm_backward
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.rnn import rnn_cell
from attnspec.reference.rnn_backward import rnn_backward
from attnspec.reference.shapes import FloatArray, check_rank, check_size

Cell: TypeAlias = Literal["rnn", "rnn_relu", "lstm", "gru", "gru_reset_before"]
State: TypeAlias = tuple[FloatArray, ...]
STATE = {"rnn": "h", "rnn_relu": "h", "lstm": "hc", "gru": "h", "gru_reset_before": "h"}  # the arrays of a state


def step(x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm") -> State:
    """Moves the state of a cell of any kind on by one input.

        state' = cell(x, state),  state = (h, c) for lstm and (h,) for the others        (1)

    Shapes:  x [B,M]  each array of the state [B,N] -> the same.
    Units:   h is what the cell shows; c is the memory of lstm.
    Empty:   B, M and N may be zero.
    Errors:  those of rnn_cell, lstm_cell and gru_cell; ValueError as in check_state.
    Source:  those of rnn_cell (tanh, or relu), lstm_cell, and gru_cell (reset after, or before).
    Differs: n/a.
    """
    check_state(state, cell)
    if cell == "lstm":
        return lstm_cell(x, state[0], state[1], parameters)
    if cell in ("rnn", "rnn_relu"):
        return (rnn_cell(x, state[0], parameters, "tanh" if cell == "rnn" else "relu"),)
    return (gru_cell(x, state[0], parameters, "after" if cell == "gru" else "before"),)


def step_backward(
    x: FloatArray, state: State, parameters: Parameters, cotangent: State, cell: Cell = "lstm"
) -> tuple[FloatArray, State, Gradients]:
    """Pulls a cotangent of the next state back to the input, the state and the parameters.

        (dx, dstate, gradients) = cell_backward(x, state, cotangent)                     (1)

    Shapes:  x [B,M]  each array of state and cotangent [B,N] -> dx [B,M], dstate as state, and the gradients.
    Units:   those of the cotangent over those of the input.
    Empty:   no rows give gradients of zero.
    Errors:  those of rnn_backward, lstm_backward and gru_backward; ValueError as in check_state.
    Source:  those of rnn_backward, lstm_backward and gru_backward.
    Differs: n/a.
    """
    check_state(state, cell)
    check_state(cotangent, cell)
    if cell == "lstm":
        dx, dh, dc, gradients = lstm_backward(x, state[0], state[1], parameters, (cotangent[0], cotangent[1]))
        return dx, (dh, dc), gradients
    if cell in ("rnn", "rnn_relu"):
        activation: Literal["tanh", "relu"] = "tanh" if cell == "rnn" else "relu"
        dx, dh, gradients = rnn_backward(x, state[0], parameters, cotangent[0], activation)
    else:
        dx, dh, gradients = gru_backward(x, state[0], parameters, cotangent[0], "after" if cell == "gru" else "before")
    return dx, (dh,), gradients


def check_state(state: State, cell: Cell) -> None:
    """Refuses a cell that does not exist, and a state that is not its own.

        state = (h, c) for lstm and (h,) for the others                                  (1)

    Shapes:  any.
    Units:   n/a.
    Empty:   n/a.
    Errors:  ValueError if cell is none of the five, or state has not as many arrays as its cell.
    Source:  torch.nn.LSTM, whose state is a pair.
    Differs: torch passes h alone where there is no c; here a state is always a tuple.
    """
    if cell not in STATE:
        raise ValueError(f"cell={cell!r}: it is one of {', '.join(STATE)}; pass one of these")
    if len(state) != len(STATE[cell]):
        rule = f"the state of {cell} is {'(h, c)' if cell == 'lstm' else '(h,)'}"
        raise ValueError(f"a state of {len(state)} arrays: {rule}; pass a tuple of {len(STATE[cell])}")


def split_state(state: State, runs: int) -> list[State]:
    """Takes the state of each run of a layer.

        split_state[r] = state[r],  r = 0..runs-1                                        (1)

    Shapes:  each array of the state [R,B,N] -> R states, each array [B,N].
    Units:   R is runs: 1 for a layer of one direction, 2 for one of both.
    Empty:   B and N may be zero.
    Errors:  ShapeError if an array of the state is not of R runs.
    Source:  the order of the states of torch.nn.LSTM.
    Differs: n/a.
    """
    arrays = [np.asarray(array, dtype=np.float64) for array in state]
    for array in arrays:
        check_rank("state", array, "RBN")
        check_size("R", "state", array.shape[0], "the layer", runs)
    return [tuple(array[run] for array in arrays) for run in range(runs)]
