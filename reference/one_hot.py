"""One-hot vectors: each word as an axis of its own."""

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray
from attnspec.reference.vocabulary import check_ids


def one_hot(ids: IntArray, V: int) -> FloatArray:
    """Writes each id as a vector with a single one.

        out[t, v] = 1 if v = ids[t], else 0                                              (1)

    Shapes:  ids [...] -> [...,V].
    Units:   n/a.
    Empty:   no ids give no vectors.
    Errors:  ValueError if an id is out of range; TypeError if ids are not integers.
    Source:  arXiv:1301.3781 sec. 2.1: words in "1-of-V coding".
    Differs: n/a.
    """
    return np.where(check_ids("ids", ids, V)[..., None] == np.arange(V), 1.0, 0.0)
