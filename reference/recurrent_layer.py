"""A recurrent layer of one direction or of two, as a stack is made of, and its gradients."""

from attnspec.reference.bidirectional import bidirectional, bidirectional_backward
from attnspec.reference.cell import Cell, State, split_state
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import FloatArray, IntArray
from attnspec.reference.unroll import unroll, unroll_backward


def directions(parameters: Parameters) -> int:
    """Counts the directions in which a layer reads.

        directions = 2 if there is a reverse.input.weight, else 1                        (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   no parameters count as one direction.
    Errors:  none.
    Source:  torch.nn.LSTM, whose names end in _reverse.
    Differs: n/a.
    """
    return 2 if "reverse.input.weight" in parameters else 1


def recurrent_layer(
    x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Runs over a sequence in as many directions as there are parameters for.

        layer = unroll, or bidirectional if it has parameters named reverse              (1)

    Shapes:  x [B,T,M]  each array of the state [1,B,N] or [2,B,N]  lengths [B] -> out [B,T,N] or [B,T,2*N], final state.
    Units:   as in unroll and bidirectional.
    Empty:   as in unroll.
    Errors:  those of unroll and split_state.
    Source:  those of unroll and bidirectional.
    Differs: n/a.
    """
    if directions(parameters) == 2:
        return bidirectional(x, state, parameters, cell, lengths)
    (start,) = split_state(state, 1)
    out, final = unroll(x, start, parameters, cell, lengths)
    return out, tuple(array[None] for array in final)


def recurrent_layer_backward(
    x: FloatArray, state: State, parameters: Parameters, cotangent: FloatArray, state_cotangent: State,
    cell: Cell = "lstm", lengths: IntArray | None = None,
) -> tuple[FloatArray, State, Gradients]:  # fmt: skip
    """Pulls cotangents of the outputs and of the final states back through the directions that there are.

        layer_backward = unroll_backward, or bidirectional_backward                      (1)

    Shapes:  x [B,T,M]  cotangent as the outputs  each array of state and state_cotangent [1,B,N] or [2,B,N]
             -> dx [B,T,M], dstate as state, and the gradients under the parameters' names and shapes.
    Units:   those of the cotangents over those of the input.
    Empty:   as in unroll_backward.
    Errors:  those of unroll_backward and split_state.
    Source:  those of unroll_backward and bidirectional_backward.
    Differs: n/a.
    """
    if directions(parameters) == 2:
        return bidirectional_backward(x, state, parameters, cotangent, state_cotangent, cell, lengths)
    (start,), (end,) = split_state(state, 1), split_state(state_cotangent, 1)
    dx, dstate, gradients = unroll_backward(x, start, parameters, cotangent, end, cell, lengths)
    return dx, tuple(array[None] for array in dstate), gradients
