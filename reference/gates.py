"""The weighted sums that feed the gates of a recurrent cell, and their gradients."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.linear import linear, linear_backward
from attnspec.reference.parameters import Gradients, Parameters, check_names, part, prefixed
from attnspec.reference.shapes import FloatArray, ShapeError, check_rank, check_size


def gate_sums(x: FloatArray, h: FloatArray, parameters: Parameters, gates: int) -> tuple[FloatArray, FloatArray]:
    """Weighs the input and the state anew for each gate.

        from_input[k] = x W_k^T + b_k,  from_hidden[k] = h U_k^T + d_k,  gate k = 0, 1, ...        (1)

    Shapes:  x [B,M]  h [B,N]  input.weight = W [gates*N,M]  hidden.weight = U [gates*N,N]
             input.bias = b, hidden.bias = d [gates*N], both or none -> twice [gates,B,N].
    Units:   any.
    Empty:   B, M and N may be zero.
    Errors:  ValueError if a weight is missing, a name unknown, or only one bias given; ShapeError if arrays do not fit.
    Source:  torch.nn.LSTM, GRU and RNN: the gates are stacked in one matrix.
    Differs: the papers have one matrix for each gate, and one bias where torch has b and d.
    """
    x, h = np.asarray(x, dtype=np.float64), np.asarray(h, dtype=np.float64)
    check_rank("x", x, "BM")
    check_rank("h", h, "BN")
    check_size("B", "x", x.shape[0], "h", h.shape[0])
    _check(x, h, parameters, gates)
    by_gate = (h.shape[0], gates, h.shape[1])
    from_input = linear(x, part(parameters, "input")).reshape(by_gate)
    from_hidden = linear(h, part(parameters, "hidden")).reshape(by_gate)
    return np.swapaxes(from_input, 0, 1), np.swapaxes(from_hidden, 0, 1)


def gate_sums_backward(
    x: FloatArray, h: FloatArray, parameters: Parameters, dinput: FloatArray, dhidden: FloatArray
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls cotangents of both sums of all gates back to the input, the state and the parameters.

        dx = sum_k dinput[k] W_k,  dh = sum_k dhidden[k] U_k                             (1)
        dW_k = dinput[k]^T x,  dU_k = dhidden[k]^T h                                     (2)
        db_k = sum of dinput[k] over the batch,  dd_k = the same of dhidden[k]           (3)

    Shapes:  x [B,M]  h [B,N]  dinput, dhidden [gates,B,N] -> dx [B,M], dh [B,N] and the gradients of the parameters.
    Units:   those of the cotangents times those of the other factor.
    Empty:   no rows give gradients of zero.
    Errors:  those of gate_sums; ShapeError if a cotangent has not the shape of the sums.
    Source:  the chain rule on (1) of gate_sums.
    Differs: n/a.
    """
    dinput, dhidden = np.asarray(dinput, dtype=np.float64), np.asarray(dhidden, dtype=np.float64)
    for cotangent, sums in zip((dinput, dhidden), gate_sums(x, h, parameters, len(dinput)), strict=True):
        check_cotangent(cotangent, sums.shape, "the sums")
    gates, B, N = dinput.shape
    rows_input = np.swapaxes(dinput, 0, 1).reshape(B, gates * N)
    rows_hidden = np.swapaxes(dhidden, 0, 1).reshape(B, gates * N)
    dx, of_input = linear_backward(x, part(parameters, "input"), rows_input)
    dh, of_hidden = linear_backward(h, part(parameters, "hidden"), rows_hidden)
    return dx, dh, {**prefixed("input", of_input), **prefixed("hidden", of_hidden)}


def _check(x: FloatArray, h: FloatArray, parameters: Parameters, gates: int) -> None:
    """The names are complete, and the weights fit x, h and the number of gates."""
    check_names(parameters, ("input.weight", "hidden.weight"), ("input.bias", "hidden.bias"))
    if ("input.bias" in parameters) != ("hidden.bias" in parameters):
        raise ValueError(f"parameters={sorted(parameters)}: there are two biases or none; pass zeros for the other one")
    for name, letter, given, size in (("input.weight", "M", "x", x.shape[1]), ("hidden.weight", "N", "h", h.shape[1])):
        shape = np.shape(parameters[name])
        if len(shape) != 2 or shape[0] != gates * h.shape[1]:
            rule = f"it has {gates} * N rows, N = {h.shape[1]} for each of the {gates} gates"
            raise ShapeError(f"{name}.shape={shape}: {rule}; pass {(gates * h.shape[1], size)}")
        check_size(letter, given, size, name, shape[1])
