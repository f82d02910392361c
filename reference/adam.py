"""Adam: a step whose length does not depend on the size of the gradient; and AdamW, which decays weights apart."""

import numpy as np

from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.sgd import check_optimizer, state_of


def adam(
    parameters: Parameters, gradients: Parameters, mean: Parameters, square: Parameters, step: int, *, rate: float,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
) -> tuple[Gradients, Gradients, Gradients]:  # fmt: skip
    """Takes one step of Adam.

        d = g + weight_decay w,  w, g a parameter and its gradient                       (1)
        m' = beta1 m + (1 - beta1) d,  v' = beta2 v + (1 - beta2) d²                     (2)
        w' = w - rate m^ / (sqrt(v^) + eps),  m^ = m' / (1 - beta1^step),  v^ = v' / (1 - beta2^step)     (3)

    Shapes:  all mappings have the same names and shapes; mean m and square v may be empty at first
             -> new parameters, new mean, new square.
    Units:   rate has those of w; eps those of g. step counts from 1.
    Empty:   no parameters give none.
    Errors:  ValueError if step < 1, and as in sgd with betas in [0, 1) and eps >= 0; ShapeError as in sgd.
    Source:  arXiv:1412.6980 algorithm 1; arXiv:1711.05101 algorithm 2, the L2 term, for (1).
    Differs: the first paper has no weight decay.
    """
    numbers = {"rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay}
    check_optimizer(parameters, gradients, mean, square, **numbers)
    if step < 1:
        raise ValueError(f"step={step}: the first step is 1; pass the number of steps so far, this one included")
    new, means, squares = {}, {}, {}
    for name in parameters:
        w, g, m, v = state_of(name, parameters, gradients, mean, square)
        d = g + weight_decay * w
        means[name] = beta1 * m + (1 - beta1) * d
        squares[name] = beta2 * v + (1 - beta2) * np.square(d)
        unbiased = squares[name] / (1 - np.power(beta2, step))
        new[name] = w - rate * (means[name] / (1 - np.power(beta1, step))) / (np.sqrt(unbiased) + eps)
    return new, means, squares


def adamw(
    parameters: Parameters, gradients: Parameters, mean: Parameters, square: Parameters, step: int, *, rate: float,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01,
) -> tuple[Gradients, Gradients, Gradients]:  # fmt: skip
    """Takes one step of Adam from decayed weights; the decay does not pass through the moments.

        (w', m', v') = adam((1 - rate weight_decay) w, g, m, v, step)                    (1)

    Shapes:  as in adam.
    Units:   weight_decay per unit of rate.
    Empty:   no parameters give none.
    Errors:  those of adam.
    Source:  arXiv:1711.05101 algorithm 2.
    Differs: the paper decays by its schedule eta alone; here by the rate, alpha eta, as torch.optim.AdamW does.
    """
    check_optimizer(parameters, gradients, weight_decay=weight_decay)
    decayed = {name: (1 - rate * weight_decay) * np.asarray(w, dtype=np.float64) for name, w in parameters.items()}
    return adam(decayed, gradients, mean, square, step, rate=rate, beta1=beta1, beta2=beta2, eps=eps)
