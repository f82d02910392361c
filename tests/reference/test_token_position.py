import numpy as np
import pytest

from attnspec.reference.shapes import ShapeError
from attnspec.reference.token_position import cross_attention_options, real_tokens, self_attention_options

REAL = np.ones((2, 3), dtype=bool)


def test_errors():
    with pytest.raises(ShapeError, match=r"^T=4 with S=3 in real: the T tokens are the last of the S; pass T <= S"):
        self_attention_options(REAL, 4, True, heads=1)
    with pytest.raises(ValueError, match=r"^positions='alibbi': it is one of sinusoidal, learned, rotary, alibi or None"):
        self_attention_options(REAL, 3, True, heads=1, positions="alibbi")
    options = self_attention_options(REAL, 3, True, heads=1)
    with pytest.raises(ShapeError, match=r"^real.shape=\(3,\): real has the 2 axes \[B,S\]"):
        cross_attention_options(options, REAL[0])
    with pytest.raises(TypeError, match=r"^mask.dtype=int64: it is boolean, True = real token; pass ids != padding_id"):
        real_tokens(REAL.astype(np.int64), "mask", (2, 3))
