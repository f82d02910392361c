"""A stack of recurrent layers, each in one direction or in both."""

import numpy as np

from attnspec.reference.cell import STATE, Cell, State, check_state
from attnspec.reference.layers import layers
from attnspec.reference.parameters import Parameters
from attnspec.reference.recurrent_layer import directions, recurrent_layer
from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank, check_size


def recurrent(
    x: FloatArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None, state: State | None = None
) -> tuple[FloatArray, State]:
    """Runs each layer over the outputs of the one below it.

        out_0 = x,  out_l = layer_l(out_(l-1))                                           (1)

    Shapes:  x [B,T,M]  lengths [B], T each unless given  each array of the state [R,B,N], zeros unless given
             -> outputs of the last layer, [B,T,N] or [B,T,2*N] if it is bidirectional, and the final state.
    Units:   names start with the number of the layer, and those of its run from the right go on with reverse:
             0.input.weight, 0.reverse.input.weight, 1.input.weight. R counts the runs, in this order. The state is a
             tuple: (h, c) for lstm, (h,) for the others.
    Empty:   as in unroll.
    Errors:  those of unroll, layer_runs and initial_state.
    Source:  arXiv:1409.3215 sec. 2 for depth; torch.nn.LSTM, GRU and RNN for the order of the runs.
    Differs: layers of one direction and of two may be mixed, as in arXiv:1609.08144 sec. 3.2; torch does not.
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    state = initial_state(parameters, x.shape[0], cell, state)
    finals: list[State] = []
    for layer, runs in layer_runs(parameters):
        x, final = recurrent_layer(x, tuple(array[runs] for array in state), layer, cell, lengths)
        finals.append(final)
    return x, tuple(np.concatenate(arrays) for arrays in zip(*finals, strict=True))


def layer_runs(parameters: Parameters) -> list[tuple[dict[str, FloatArray], slice]]:
    """Takes a stack apart: the parameters of each layer, and which runs are its own.

        runs_l = n, ..., n + directions_l - 1,  n = sum of directions_k over k < l       (1)

    Shapes:  as in recurrent -> one pair for each layer, the first layer first.
    Units:   runs slice the first axis of the state.
    Empty:   a stack has at least one layer.
    Errors:  those of layers; ValueError if there is none.
    Source:  the order of the states of torch.nn.LSTM.
    Differs: n/a.
    """
    if not parameters:
        raise ValueError("parameters=[]: a stack has at least one layer; pass 0.input.weight, 0.hidden.weight and so on")
    found: list[tuple[dict[str, FloatArray], slice]] = []
    start = 0
    for layer in layers(parameters):
        found.append((layer, slice(start, start + directions(layer))))
        start += directions(layer)
    return found


def initial_state(parameters: Parameters, B: int, cell: Cell = "lstm", state: State | None = None) -> State:
    """Starts every run from zero, or from the given state, which is free.

        h[0] = c[0] = 0 unless given                                                     (1)

    Shapes:  each array of the state [R,B,N] -> the same; R runs as in recurrent.
    Units:   (h, c) for lstm, (h,) for the others.
    Empty:   B may be zero.
    Errors:  ShapeError if the runs differ in N or an array of the state is not [R,B,N]; ValueError if a run has no
             hidden.weight, and as in layer_runs and check_state.
    Source:  arXiv:1409.3215 sec. 2 for a given state: the decoder starts from the state of the encoder.
    Differs: the paper does not say where the encoder starts; from zeros, as in torch.nn.LSTM.
    """
    weights = {name: np.asarray(array) for name, array in parameters.items() if name.endswith(".hidden.weight")}
    runs = layer_runs(parameters)[-1][1].stop
    if len(weights) != runs:
        raise ValueError(f"parameters={sorted(parameters)}: each of the {runs} runs has a hidden.weight; pass all of them")
    first, *others = weights
    check_rank(first, weights[first], "FN")
    shape = (runs, B, weights[first].shape[1])
    for name in others:
        check_rank(name, weights[name], "FN")
        check_size("N", first, shape[2], name, weights[name].shape[1])
    state = tuple(np.zeros(shape) for _ in STATE.get(cell, "")) if state is None else state
    check_state(state, cell)
    for name, array in zip(STATE[cell], state, strict=True):
        if np.shape(array) != shape:
            raise ShapeError(f"{name}.shape={np.shape(array)}: the state is [R,B,N] = {shape}; stack one for each run")
    return tuple(np.asarray(array, dtype=np.float64) for array in state)
