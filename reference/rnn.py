"""The recurrent cell of Elman: one layer that sees the input and its own last output."""

from typing import Literal, TypeAlias

import numpy as np

from attnspec.reference.gates import gate_sums
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import FloatArray

Activation: TypeAlias = Literal["tanh", "relu"]


def rnn_cell(x: FloatArray, h: FloatArray, parameters: Parameters, activation: Activation = "tanh") -> FloatArray:
    """Mixes the input with the state, and squashes.

        h' = phi(x W^T + b + h U^T + d),  phi = tanh, or relu(a) = max(a, 0)             (1)

    Shapes:  x [B,M]  h [B,N]  input.weight = W [N,M]  hidden.weight = U [N,N]  input.bias = b, hidden.bias = d [N],
             both or none -> h' [B,N].
    Units:   with tanh every entry of h' is between -1 and 1.
    Empty:   B, M and N may be zero.
    Errors:  those of gate_sums; ValueError if activation is neither tanh nor relu.
    Source:  doi:10.1207/s15516709cog1402_1 (finding structure in time); torch.nn.RNNCell.
    Differs: the paper squashes by the logistic function and has one bias.
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"activation={activation!r}: it is tanh or relu; pass one of these")
    from_input, from_hidden = gate_sums(x, h, parameters, 1)
    a = (from_input + from_hidden)[0]
    new: FloatArray = np.tanh(a) if activation == "tanh" else np.maximum(a, 0.0)
    return new
