"""The feed-forward layer of a Transformer: two linear maps with an activation between, plain or gated."""

from attnspec.reference.activation import activate
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names, part
from attnspec.reference.shapes import FloatArray


def feed_forward(x: FloatArray, parameters: Parameters, activation: str = "relu") -> FloatArray:
    """Widens each position on its own, bends it, and narrows it again.

        out = down(f(up(x))),  f = activation                                            (1)
        out = down(f(gate(x)) * up(x)) if there is a gate                                (2)

    Shapes:  x [...,M]  up.weight, gate.weight [F,M]  down.weight [M',F]  biases [F] [F] [M'], each optional -> [...,M'].
             In a Transformer M' = M.
    Units:   activation is relu, gelu, gelu_tanh or silu; with a gate these are ReGLU, GEGLU (both forms) and SwiGLU.
    Empty:   F = 0 gives the bias of down.
    Errors:  ValueError if a weight is missing, a name or the activation unknown; ShapeError if M or F differs.
    Source:  arXiv:1706.03762 eq. 2 for (1) with relu; arXiv:2002.05202 sec. 1 for its other activations, sec. 2 for (2).
    Differs: the second paper omits the biases and calls the matrices W (gate), V (up) and W2 (down).
    """
    check_feed_forward(parameters)
    hidden = linear(x, part(parameters, "up"))
    if "gate.weight" in parameters:
        hidden = activate(linear(x, part(parameters, "gate")), activation) * hidden
    else:
        hidden = activate(hidden, activation)
    return linear(hidden, part(parameters, "down"))


def check_feed_forward(parameters: Parameters) -> None:
    """Refuses parameters that are not those of a feed-forward layer.

        {up.weight, down.weight} ⊆ names; gate.bias only with gate.weight                (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   n/a.
    Errors:  ValueError that lists what is missing and what is unknown.
    Source:  arXiv:1706.03762 eq. 2; arXiv:2002.05202 sec. 2 for the gate.
    Differs: n/a.
    """
    gate = ("gate.weight",) if "gate.weight" in parameters or "gate.bias" in parameters else ()
    check_names(parameters, ("up.weight", *gate, "down.weight"), ("up.bias", "gate.weight", "gate.bias", "down.bias"))
