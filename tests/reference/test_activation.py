import numpy as np
import pytest
import scipy.special
from hypothesis import strategies as st

from attnspec.reference.activation import ACTIVATIONS, activate, erf, gelu, gelu_tanh, relu, silu
from attnspec.reference.activation_backward import (
    SLOPES,
    activate_backward,
    gelu_slope,
    gelu_tanh_slope,
    relu_slope,
    silu_slope,
)
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import STEP
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

SMOOTH = ["gelu", "gelu_tanh", "silu"]
NUMBERS = st.floats(-30, 30)
EDGES = np.array([0.0, 1e-300, 1e-8, 0.5, 1.0, 3.0, 5.5, 5.999, 6.0, 6.001, 8.0, 27.0, 1e10, 1e300, np.inf])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("x", [EDGES, np.linspace(0, 7, 7001), np.logspace(-300, 1, 3001)])
def test_erf_is_that_of_scipy_to_the_last_bits(x, sign):
    np.testing.assert_array_max_ulp(erf(sign * x), scipy.special.erf(sign * x), maxulp=8)  # 8 ulps: 2^-50, relative


@given(st.floats(-8, 8).filter(lambda x: x == 0 or abs(x) > 1e-300))
def test_erf_is_that_of_scipy_anywhere(x):
    np.testing.assert_array_max_ulp(erf(np.array([x])), scipy.special.erf(np.array([x])), maxulp=8)


def test_the_check_of_erf_can_fail():
    with pytest.raises(AssertionError):
        np.testing.assert_array_max_ulp(erf(np.array([1.0])) * (1 + 2**-48), scipy.special.erf(np.array([1.0])), maxulp=8)


@given(NUMBERS)
def test_erf_is_odd(x):
    np.testing.assert_array_equal(erf(np.array([-x])), -erf(np.array([x])))


def test_known_answers():
    x = np.array([-2.0, 0.0, 1.0, 2.0])
    assert relu(x).tolist() == [0.0, 0.0, 1.0, 2.0]
    # P(X <= 1) = 0.841344746068542949, P(X <= 2) = 0.977249868051820793: tables of the normal distribution
    below_one, below_two = 0.841344746068542949, 0.977249868051820793
    assert_close(gelu(x), [-2 * (1 - below_two), 0.0, below_one, 2 * below_two])
    e = np.exp(1.0)
    assert_close(silu(np.array([0.0, 1.0, -1.0])), [0.0, e / (1 + e), -1 / (1 + e)])
    assert_close(gelu_tanh(np.array([0.0, 1.0])), [0.0, (1 + np.tanh(np.sqrt(2 / np.pi) * 1.044715)) / 2])


def test_the_two_forms_of_gelu_differ_by_up_to_five_ten_thousandths():
    x = np.linspace(-10, 10, 2001)
    assert 4e-4 < np.max(np.abs(gelu(x) - gelu_tanh(x))) < 5e-4


@given(NUMBERS)
def test_reflections(x):
    # each activation is x times a share s with s(x) + s(-x) = 1
    x = np.array([x])
    for name in ACTIVATIONS:
        assert_close(activate(x, name) - activate(-x, name), x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_out_they_are_relu(name):
    x = np.array([-1e6, -800.0, -50.0, 50.0, 800.0, 1e6])
    assert_close(activate(x, name), relu(x))
    assert_close(SLOPES[name](x), relu_slope(x))
    assert np.isnan(activate(np.array([np.nan]), name)).all()
    assert activate(np.zeros((2, 0)), name).shape == (2, 0)
    assert activate(np.ones(3, dtype=np.float32), name).dtype == np.float64


@given(NUMBERS)
def test_slopes_agree_with_central_differences(x):
    x = np.array([x])
    for name in SMOOTH:
        want = (activate(x + STEP, name) - activate(x - STEP, name)) / (2 * STEP)
        assert_close(SLOPES[name](x), want, terms=(1 + np.abs(x[0])) / STEP)


def test_slopes_at_zero():
    assert relu_slope(np.array([-1.0, -0.0, 0.0, 1e-300])).tolist() == [0.0, 0.0, 0.0, 1.0]
    for slope in (gelu_slope, gelu_tanh_slope, silu_slope):
        assert slope(np.zeros(1)).tolist() == [0.5]


def test_backward_is_the_slope_times_the_cotangent():
    x, do = np.array([[-1.0, 2.0]]), np.array([[3.0, 4.0]])
    for name in ACTIVATIONS:
        np.testing.assert_array_equal(activate_backward(x, do, name), do * SLOPES[name](x))
    assert activate_backward(x, do, "relu").tolist() == [[0.0, 4.0]]


def test_errors():
    with pytest.raises(ValueError, match=r"activation='tanh': it is one of relu, gelu, gelu_tanh, silu; pass one of these"):
        activate(np.ones(1), "tanh")
    with pytest.raises(ValueError, match=r"activation='tanh': it is one of relu"):
        activate_backward(np.ones(1), np.ones(1), "tanh")
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(1,\): it has the shape \(2,\) of the output"):
        activate_backward(np.ones(2), np.ones(1), "relu")
