"""Stochastic gradient descent: a step against the gradient, with momentum and weight decay."""

import numpy as np

from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import FloatArray, ShapeError


def sgd(
    parameters: Parameters, gradients: Parameters, velocity: Parameters, *, rate: float,
    momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0,
) -> tuple[Gradients, Gradients]:  # fmt: skip
    """Takes one step.

        d = g + weight_decay w,  w, g a parameter and its gradient                       (1)
        u' = momentum u + d,  u the velocity, 0 at first                                 (2)
        w' = w - rate u',  or w - rate (d + momentum u') with nesterov                   (3)

    Shapes:  all mappings have the same names and shapes; velocity may be empty at first -> new parameters, new velocity.
    Units:   rate has those of w²/loss.
    Empty:   no parameters give none.
    Errors:  ValueError if names differ, rate or weight_decay is negative, or momentum outside [0, 1); ShapeError if the
             shape of a gradient or velocity is not its parameter's.
    Source:  Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013), sec. 2.
    Differs: as in torch.optim.SGD the rate multiplies the velocity, not the gradient inside it, and (1) adds the decay
             to the gradient.
    """
    check_optimizer(parameters, gradients, velocity, rate=rate, weight_decay=weight_decay, momentum=momentum)
    new, speeds = {}, {}
    for name in parameters:
        w, g, u = state_of(name, parameters, gradients, velocity)
        d = g + weight_decay * w
        speeds[name] = momentum * u + d
        new[name] = w - rate * (d + momentum * speeds[name] if nesterov else speeds[name])
    return new, speeds


def state_of(name: str, parameters: Parameters, *others: Parameters) -> list[FloatArray]:
    """Takes a parameter, its gradient and what the optimizer remembers of it.

        (w, g, ...),  zeros for a memory that is still empty                             (1)

    Shapes:  those of the parameter, each.
    Units:   those of the arrays.
    Empty:   an empty memory counts as zeros.
    Errors:  ShapeError if a shape is not the parameter's.
    Source:  arXiv:1412.6980 algorithm 1 for the zeros at first.
    Differs: n/a.
    """
    w = np.asarray(parameters[name], dtype=np.float64)
    arrays = [np.asarray(other.get(name, np.zeros(w.shape)), dtype=np.float64) for other in others]
    for array in arrays:
        if array.shape != w.shape:
            rule = f"it has the shape {w.shape} of the parameter {name}"
            raise ShapeError(f"shape={array.shape} of a gradient or memory of {name}: {rule}; pass the gradient of {name}")
    return [w, *arrays]


def check_optimizer(parameters: Parameters, gradients: Parameters, *memories: Parameters, **numbers: float) -> None:
    """Refuses the arguments of an optimizer that do not belong together.

        names of gradients = names of parameters = names of each memory that is not empty     (1)
        rate, weight_decay, eps >= 0;  0 <= momentum, beta1, beta2 < 1                   (2)

    Shapes:  any.
    Units:   n/a.
    Empty:   an empty memory is accepted: it is that of the first step.
    Errors:  ValueError if (1) or (2) fails.
    Source:  arXiv:1412.6980 algorithm 1 for the ranges; torch.optim checks the same.
    Differs: torch skips a parameter without a gradient.
    """
    for other in (gradients, *(memory for memory in memories if memory)):
        if set(other) != set(parameters):
            rule = f"the names are those of the parameters {sorted(parameters)}"
            raise ValueError(f"names={sorted(other)} of gradients or memory: {rule}; pass one array for each parameter")
    for name, number in numbers.items():
        if not number >= 0 or (name in ("momentum", "beta1", "beta2") and number >= 1):
            rule = "it is at least 0" if name in ("rate", "weight_decay", "eps") else "it lies in [0, 1)"
            raise ValueError(f"{name}={number}: {rule}; choose another {name}")
