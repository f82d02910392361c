"""The learning rate of the Transformer: it rises linearly, then falls with the root of the step."""

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray


def warmup(step: int | IntArray, M: int, warmup_steps: int = 4000) -> FloatArray:
    """Gives the learning rate at each step.

        rate = M^-0.5 min(step^-0.5, step warmup_steps^-1.5)                             (1)

    Shapes:  step is a number or an array [...] of them -> the same shape.
    Units:   steps count from 1; the rate is greatest at step = warmup_steps.
    Empty:   no steps give no rates.
    Errors:  ValueError if a step, M or warmup_steps is less than 1.
    Source:  arXiv:1706.03762 eq. 3.
    Differs: the paper writes d_model for M.
    """
    least = np.min(np.asarray(step), initial=1)
    for name, number in (("step", least), ("M", M), ("warmup_steps", warmup_steps)):
        if number < 1:
            raise ValueError(f"{name}={number}: it is at least 1; count {name} from 1")
    steps = np.asarray(step, dtype=np.float64)
    rate: FloatArray = np.power(M, -0.5) * np.minimum(np.power(steps, -0.5), steps * np.power(warmup_steps, -1.5))
    return rate
