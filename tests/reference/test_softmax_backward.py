import math

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import softmax
from attnspec.reference.softmax_backward import softmax_backward, softmax_jacobian
from tests.reference.attended import STEP
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

SCORES = st.one_of(st.floats(-4, 4), st.just(-np.inf))
ROWS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5), elements=SCORES)


def cotangent_for(x):
    return np.random.default_rng(7).normal(size=x.shape)


def test_known_answers():
    # weights 1/4 and 3/4: J = [[3, -3], [-3, 3]] / 16
    x = np.array([0.0, math.log(3)])
    assert_close(softmax_jacobian(softmax(x)), [[3 / 16, -3 / 16], [-3 / 16, 3 / 16]])
    assert_close(softmax_backward(x, np.array([16.0, 0.0])), [3.0, -3.0])


def test_the_jacobian_is_a_diagonal_less_an_outer_product():
    p = np.array([0.5, 0.25, 0.25])  # dyadic: exact
    np.testing.assert_array_equal(softmax_jacobian(p), np.diag(p) - np.outer(p, p))


@given(ROWS)
def test_rows_and_columns_of_the_jacobian_sum_to_zero(x):
    jacobian = softmax_jacobian(softmax(x))
    np.testing.assert_array_equal(jacobian, jacobian.swapaxes(-1, -2))
    assert_close(jacobian.sum(-1), np.zeros(x.shape), terms=x.shape[-1])


@given(ROWS)
def test_backward_is_the_product_with_the_jacobian(x):
    do = cotangent_for(x)
    want = np.einsum("...sr,...r->...s", softmax_jacobian(softmax(x)), do)
    assert_close(softmax_backward(x, do), want, terms=3 * x.shape[-1])
    assert (softmax_backward(x, do)[x == -np.inf] == 0).all()
    assert_close(softmax_backward(x, do).sum(-1), np.zeros(x.shape[:-1]), terms=3 * x.shape[-1])


@given(ROWS, st.integers(-2, 1))
def test_backward_agrees_with_central_differences(x, axis):
    do = cotangent_for(x)
    got, want = softmax_backward(x, do, axis), np.empty_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = STEP
        want[index] = np.sum((softmax(x + step, axis) - softmax(x - step, axis)) * do) / (2 * STEP)
    assert_close(got, want, terms=x.shape[axis] / STEP)


@given(ROWS)
def test_a_constant_cotangent_sends_nothing(x):
    assert_close(softmax_backward(x, np.ones_like(x)), np.zeros_like(x), terms=x.shape[-1])


@given(ROWS)
def test_the_norm_is_bounded_by_how_far_the_largest_weight_is_from_one(x):
    p = softmax(x)
    m = p.max(-1)
    norms = np.linalg.norm(softmax_jacobian(p), ord=2, axis=(-2, -1))
    rounding = 2.0**-40  # far above 5 * 2^-53, far below the norms that count
    assert (norms <= 2 * m * (1 - m) + rounding).all()


def test_larger_scores_saturate():
    x, norms = np.array([1.0, 0.5, -1.0]), []
    for scale in (1.0, 4.0, 16.0, 64.0, 2048.0):
        norms.append(np.linalg.norm(softmax_jacobian(softmax(scale * x)), ord=2))
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] == 0  # exp(-1024) is zero in float64: nothing is learned
    assert (softmax_backward(2048.0 * x, np.array([1.0, -1.0, 3.0])) == 0).all()


def test_empty_rows_and_sizes_and_narrow_inputs():
    assert softmax_backward(np.full((1, 3), -np.inf), np.ones((1, 3))).tolist() == [[0.0, 0.0, 0.0]]
    assert (softmax_jacobian(np.zeros(3)) == 0).all()
    assert softmax_backward(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)
    assert softmax_jacobian(np.zeros((2, 0))).shape == (2, 0, 0)
    narrow = np.zeros(2, np.float32)
    assert {softmax_backward(narrow, narrow).dtype, softmax_jacobian(narrow).dtype} == {np.dtype(np.float64)}


def test_errors():
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2,\): it has the shape \(3,\) of the weights"):
        softmax_backward(np.zeros(3), np.zeros(2))
    with pytest.raises(ShapeError, match=r"p.shape=\(\): weights have an axis of keys; pass p\[None\]"):
        softmax_jacobian(np.array(1.0))
    with pytest.raises(np.exceptions.AxisError, match="axis 1 is out of bounds"):
        softmax_backward(np.zeros(3), np.zeros(3), 1)
