"""The gradients of a stack of recurrent layers."""

import numpy as np

from attnspec.reference.cell import Cell, State
from attnspec.reference.parameters import Gradients, Parameters, prefixed
from attnspec.reference.recurrent import initial_state, layer_runs
from attnspec.reference.recurrent_layer import recurrent_layer, recurrent_layer_backward
from attnspec.reference.shapes import FloatArray, IntArray, check_rank


def recurrent_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, cell: Cell = "lstm", lengths: IntArray | None = None,
    state: State | None = None, state_cotangent: State | None = None,
) -> tuple[FloatArray, State, Gradients]:  # fmt: skip
    """Pulls cotangents of the outputs and of the final state back through all layers and all steps.

        (dout_(l-1), dstate_l, g_l) = layer_l_backward(dout_l, state_cotangent_l)        (1)
        dx = dout_0,  dstate = (dstate_1, ..., dstate_L),  gradients = (g_1, ..., g_L)   (2)

    Shapes:  x [B,T,M]  cotangent as the outputs of recurrent  each array of state and state_cotangent [R,B,N], zeros
             unless given -> dx [B,T,M], dstate as the state, the gradients under the parameters' names and shapes.
    Units:   those of the cotangents over those of the input.
    Empty:   as in unroll_backward.
    Errors:  those of recurrent and unroll_backward; ShapeError if cotangent has not the shape of the outputs.
    Source:  the chain rule on (1) of recurrent; doi:10.1109/5.58337 for the steps.
    Differs: n/a.
    """
    x, dout = np.asarray(x, dtype=np.float64), np.asarray(cotangent, dtype=np.float64)
    check_rank("x", x, "BTM")
    state = initial_state(parameters, x.shape[0], cell, state)
    dfinal = initial_state(parameters, x.shape[0], cell, state_cotangent)
    stack, inputs = layer_runs(parameters), [x]
    for layer, runs in stack[:-1]:
        inputs.append(recurrent_layer(inputs[-1], tuple(array[runs] for array in state), layer, cell, lengths)[0])
    dstates: list[State] = []
    gradients: Gradients = {}
    for number, (layer, runs) in reversed(list(enumerate(stack))):
        start, end = (tuple(array[runs] for array in arrays) for arrays in (state, dfinal))
        dout, dstate, own = recurrent_layer_backward(inputs[number], start, layer, dout, end, cell, lengths)
        dstates, gradients = [dstate, *dstates], {**prefixed(str(number), own), **gradients}
    return dout, tuple(np.concatenate(arrays) for arrays in zip(*dstates, strict=True)), gradients
