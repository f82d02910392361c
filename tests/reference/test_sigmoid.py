import numpy as np
from hypothesis import strategies as st

from attnspec.reference.sigmoid import sigmoid
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


def test_known_answers():
    assert sigmoid(np.array([0.0, -np.inf, np.inf, -1e3, 1e3])).tolist() == [0.5, 0.0, 1.0, 0.0, 1.0]
    assert_close(sigmoid(np.log([3.0, 1 / 3, 9.0])), [0.75, 0.25, 0.9])  # odds of 3, 1/3, 9
    assert_close(sigmoid(np.array([1.0])), [0.7310585786300049])  # 1 / (1 + 1/e)


@given(st.floats(-700, 700))
def test_is_the_logistic_function(x):
    assert_close(sigmoid(np.array(x)), 1 / (1 + np.exp(-x)))
    assert_close(sigmoid(np.array(-x)), 1 - sigmoid(np.array(x)))


def test_shape_and_width():
    assert sigmoid(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    assert sigmoid(np.ones(2, np.float32)).dtype == np.float64
