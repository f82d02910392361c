"""The gradients of the feed-forward layer, plain or gated."""

from attnspec.reference.activation import activate
from attnspec.reference.activation_backward import activate_backward
from attnspec.reference.feed_forward import check_feed_forward
from attnspec.reference.linear import linear, linear_backward
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.shapes import FloatArray


def feed_forward_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, activation: str = "relu"
) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the output back to the input and the parameters.

        dhidden = do down.weight,  do = cotangent                                        (1)
        dup = dhidden f'(up(x)),  or dhidden f(gate(x)) if there is a gate               (2)
        dgate = dhidden up(x) f'(gate(x))                                                (3)
        dx = dup up.weight + dgate gate.weight                                           (4)

    Shapes:  x [...,M]  cotangent [...,M'] -> dx [...,M] and the gradients under the parameters' names and shapes.
    Units:   those of the cotangent times those of the other factor.
    Empty:   no positions give gradients of zero.
    Errors:  those of feed_forward; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1), (2) of feed_forward; linear_backward for the weights and biases.
    Differs: n/a.
    """
    check_feed_forward(parameters)
    up, gate, down = (part(parameters, name) for name in ("up", "gate", "down"))
    raised = linear(x, up)
    hidden = activate(linear(x, gate), activation) * raised if gate else activate(raised, activation)
    dhidden, of_down = linear_backward(hidden, down, cotangent)
    if not gate:
        dx, of_up = linear_backward(x, up, activate_backward(raised, dhidden, activation))
        return dx, prefixed("up", of_up) | prefixed("down", of_down)
    gated = linear(x, gate)
    dx_up, of_up = linear_backward(x, up, dhidden * activate(gated, activation))
    dx_gate, of_gate = linear_backward(x, gate, activate_backward(gated, dhidden * raised, activation))
    return dx_up + dx_gate, prefixed("up", of_up) | prefixed("gate", of_gate) | prefixed("down", of_down)
