import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attnspec.reference.one_hot import one_hot
from tests.reference.drawn import given


def test_known_answer():
    rows = one_hot(np.array([[2, 0]]), 3)
    assert rows.tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    assert rows.dtype == np.float64  # not booleans: their sum over words would not be a count


@given(hnp.arrays(np.int64, hnp.array_shapes(max_side=4), elements=st.integers(0, 4)))
def test_rows_are_orthonormal(ids):
    rows = one_hot(ids.ravel(), 5)
    np.testing.assert_array_equal(rows @ rows.T, ids.ravel()[:, None] == ids.ravel())
    np.testing.assert_array_equal(np.argmax(one_hot(ids, 5), axis=-1), ids)


def test_no_ids():
    assert one_hot(np.zeros((2, 0)), 3).shape == (2, 0, 3)
    assert one_hot(np.zeros(0), 0).shape == (0, 0)


def test_errors():
    with pytest.raises(ValueError, match=r"^ids=3 at \(1,\): ids lie in 0..V-1 with V=3"):
        one_hot(np.array([0, 3]), 3)
    with pytest.raises(TypeError, match=r"^ids.dtype=float64: ids are integers"):
        one_hot(np.array([0.0]), 3)
