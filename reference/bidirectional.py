"""A layer that reads its sequence in both directions."""

import numpy as np

from attnspec.reference.cell import Cell, State, split_state
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.reversed_source import reverse_source
from attnspec.reference.shapes import FloatArray, IntArray
from attnspec.reference.unroll import unroll, unroll_backward


def bidirectional(
    x: FloatArray, state: State, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Joins, at every position, what a run from the left and a run from the right have seen so far.

        out[t] = (ahead[t], back[t]),  ahead = unroll(x),  back = reverse(unroll(reverse(x)))      (1)

    Shapes:  x [B,T,M]  each array of the state [2,B,N]  lengths [B] -> out [B,T,2*N], final state [2,B,N].
    Units:   the first N outputs and state 0 are of the run from the left, the others of the run from the right, whose
             parameters are named reverse.input.weight and so on; reverse is reverse_source with the same lengths.
    Empty:   as in unroll.
    Errors:  those of unroll and split_state.
    Source:  doi:10.1109/78.650093 (bidirectional recurrent neural networks); arXiv:1409.0473 sec. 3.2; torch.nn.LSTM.
    Differs: the second paper writes h with an arrow to the right or left for ahead and back.
    """
    ahead, back = _directions(parameters)
    of_ahead, of_back = split_state(state, 2)
    out_ahead, final_ahead = unroll(x, of_ahead, ahead, cell, lengths)
    out_back, final_back = unroll(reverse_source(x, lengths), of_back, back, cell, lengths)
    out = np.concatenate([out_ahead, reverse_source(out_back, lengths)], axis=-1)
    return out, _paired(final_ahead, final_back)


def bidirectional_backward(
    x: FloatArray, state: State, parameters: Parameters, cotangent: FloatArray, state_cotangent: State,
    cell: Cell = "lstm", lengths: IntArray | None = None,
) -> tuple[FloatArray, State, Gradients]:  # fmt: skip
    """Pulls cotangents of the outputs and of the final states back through both runs.

        dx = dx_ahead + reverse(dx_back),  dx_ahead from dout[..., :N],  dx_back from reverse(dout[..., N:])       (1)

    Shapes:  x [B,T,M]  cotangent [B,T,2*N]  each array of state and state_cotangent [2,B,N] -> dx [B,T,M], dstate as
             state, and the gradients under the parameters' names and shapes.
    Units:   those of the cotangents over those of the input.
    Empty:   as in unroll_backward.
    Errors:  those of unroll_backward and split_state; ShapeError if cotangent has not the shape of the outputs.
    Source:  the chain rule on (1) of bidirectional.
    Differs: n/a.
    """
    ahead, back = _directions(parameters)
    starts, ends, dout = split_state(state, 2), split_state(state_cotangent, 2), np.asarray(cotangent, dtype=np.float64)
    N = starts[0][0].shape[1]
    check_cotangent(dout, (*np.shape(x)[:2], 2 * N))
    of_ahead = unroll_backward(x, starts[0], ahead, dout[..., :N], ends[0], cell, lengths)
    xs, douts = reverse_source(x, lengths), reverse_source(dout[..., N:], lengths)
    of_back = unroll_backward(xs, starts[1], back, douts, ends[1], cell, lengths)
    dx = of_ahead[0] + reverse_source(of_back[0], lengths)
    return dx, _paired(of_ahead[1], of_back[1]), {**of_ahead[2], **prefixed("reverse", of_back[2])}


def _directions(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """The parameters of the run from the left, and of the run from the right."""
    ahead = {name: array for name, array in parameters.items() if not name.startswith("reverse.")}
    return ahead, part(parameters, "reverse")


def _paired(ahead: State, back: State) -> State:
    return tuple(np.stack(pair) for pair in zip(ahead, back, strict=True))
