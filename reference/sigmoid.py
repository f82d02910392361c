"""The logistic sigmoid, the shape of every gate."""

import numpy as np

from attnspec.reference.shapes import FloatArray


def sigmoid(x: FloatArray) -> FloatArray:
    """Squashes any number into a share between zero and one.

        sigmoid(x) = 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2                           (1)

    Shapes:  x [...] -> the same shape.
    Units:   x is a log-odds in natural logarithms, the result a share; it saturates at exactly 0 and 1.
    Empty:   an empty array stays empty.
    Errors:  none.
    Source:  doi:10.1162/neco.1997.9.8.1735 (long short-term memory), appendix A.1.
    Differs: computed by tanh, which cannot overflow as exp(-x) does.
    """
    return 0.5 * (1 + np.tanh(np.asarray(x, dtype=np.float64) / 2))
