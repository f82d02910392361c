import math

import numpy as np
import pytest
import scipy.special
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attnspec.reference.softmax import log_sum_exp, softmax
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

SCORES = st.one_of(st.floats(-800, 800), st.just(-np.inf))  # far beyond the range of exp, which ends at 709
TABLES = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=SCORES)


@pytest.mark.parametrize(
    ("x", "weights", "lse"),
    [
        ([0.0, math.log(2), math.log(3)], [1 / 6, 1 / 3, 1 / 2], math.log(6)),
        ([7.0], [1.0], 7.0),
        ([1000.0, 1000.0], [0.5, 0.5], 1000 + math.log(2)),
        ([-1000.0, -np.inf, -1000.0], [0.5, 0.0, 0.5], -1000 + math.log(2)),
        ([-np.inf, -np.inf], [0.0, 0.0], -np.inf),
        ([], [], -np.inf),
        ([0.0, np.nan], [np.nan, np.nan], np.nan),
        ([np.finfo(np.float64).min, 0.0], [0.0, 1.0], 0.0),
    ],
)
def test_known_answers(x, weights, lse):
    assert_close(softmax(np.array(x)), weights)
    assert_close(log_sum_exp(np.array(x)), lse)


@given(TABLES, st.integers(-2, 1))
def test_agrees_with_scipy(x, axis):
    empty = np.all(x == -np.inf, axis=axis, keepdims=True)
    filled = np.where(empty, 0.0, x)  # scipy returns NaN for empty rows
    assert_close(softmax(x, axis), np.where(empty, 0.0, scipy.special.softmax(filled, axis=axis)), terms=x.shape[axis])
    want = np.where(np.squeeze(empty, axis), -np.inf, scipy.special.logsumexp(filled, axis=axis))
    assert_close(log_sum_exp(x, axis), want, terms=x.shape[axis])


@given(TABLES)
def test_weights_are_shares(x):
    weights = softmax(x)
    visible = x > -np.inf
    assert (weights >= 0).all()
    assert (weights[~visible] == 0).all()
    assert_close(weights.sum(-1), visible.any(-1).astype(float), terms=x.shape[-1])


@given(TABLES)
def test_weights_are_exponentials_of_what_the_lse_leaves(x):
    lse = log_sum_exp(x)[..., None]
    rest = np.where(lse == -np.inf, -np.inf, x - np.where(lse == -np.inf, 0.0, lse))
    # x - lse carries one rounding of |lse| <= 800 + log 6, which exp hands on: so many more terms
    assert_close(softmax(x), np.exp(rest), terms=800 + x.shape[-1])


def test_shift_and_divide_not_exp_of_a_difference():
    # exp(x - lse) would be wrong in the last log2(|lse|) = 10 bits; equal scores have weights of one half exactly
    assert softmax(np.array([1000.1, 1000.1])).tolist() == [0.5, 0.5]


def test_other_axes_and_narrow_inputs():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert softmax(x, 0).dtype == np.float64
    assert_close(softmax(x, 0), softmax(x.T).T)
    assert log_sum_exp(x, 0).shape == (3,)
    assert softmax(np.zeros((2, 0))).shape == (2, 0)
    assert log_sum_exp(np.zeros((2, 0))).tolist() == [-np.inf, -np.inf]


def test_inputs_are_left_alone():
    x = np.array([1.0, -np.inf])
    softmax(x)
    log_sum_exp(x)
    assert x.tolist() == [1.0, -np.inf]


@pytest.mark.parametrize("function", [softmax, log_sum_exp])
def test_missing_axis(function):
    with pytest.raises(np.exceptions.AxisError, match="axis 1 is out of bounds"):
        function(np.zeros(3), 1)
