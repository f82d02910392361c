import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.linear import linear, linear_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


def drawn(seed, lead=(2, 3), M=4, F=5, biased=True):
    rng = np.random.default_rng(seed)
    parameters = {"weight": rng.normal(size=(F, M))} | ({"bias": rng.normal(size=F)} if biased else {})
    return rng.normal(size=(*lead, M)), parameters, rng.normal(size=(*lead, F))


def test_known_answer():
    out = linear(np.array([1.0, 2.0]), {"weight": np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -1.0]]), "bias": np.ones(3)})
    np.testing.assert_array_equal(out, [2, 12, -1])


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([(), (3,), (2, 1, 3), (0,)]))
def test_gradients_are_the_transposes(seed, biased, lead):
    """Both maps are linear: <linear(dx, dW, db), do> = <(dx, dW, db), backward(do)> for every direction."""
    x, parameters, do = drawn(seed, lead, biased=biased)
    dx, gradients = linear_backward(x, parameters, do)
    assert set(gradients) == set(parameters)
    direction, moved, _ = drawn(seed + 1, lead, biased=biased)
    zero = {"weight": parameters["weight"]}
    change = linear(direction, zero) + linear(x, {"weight": moved["weight"]}) + (moved["bias"] if biased else 0)
    want = np.sum(direction * dx) + sum(np.sum(moved[name] * gradients[name]) for name in parameters)
    assert_close(np.sum(change * do), want, terms=200)


def test_no_rows_give_gradients_of_zero():
    x, parameters, do = drawn(0, (0, 3))
    dx, gradients = linear_backward(x, parameters, do)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(gradients["weight"], np.zeros((5, 4)))
    np.testing.assert_array_equal(gradients["bias"], np.zeros(5))


def test_an_input_without_width_gives_the_bias():
    np.testing.assert_array_equal(linear(np.zeros((3, 0)), {"weight": np.zeros((2, 0)), "bias": np.ones(2)}), np.ones((3, 2)))


def test_errors():
    x, parameters, do = drawn(0)
    with pytest.raises(ValueError, match=r"missing \['weight'\], unknown \['weigth'\]; pass weight and any of bias"):
        linear(x, {"weigth": parameters["weight"]})
    with pytest.raises(ShapeError, match="M=3 in the input of weight and M=4 in weight"):
        linear(x[..., :3], parameters)
    with pytest.raises(ShapeError, match=r"bias.shape=\(4,\): it has one entry for each of the 5 rows of weight"):
        linear(x, parameters | {"bias": np.ones(4)})
    with pytest.raises(ShapeError, match=r"weight.shape=\(20,\)"):
        linear(x, {"weight": parameters["weight"].ravel()})
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2, 3, 4\): it has the shape \(2, 3, 5\) of the output"):
        linear_backward(x, parameters, do[..., :4])


def test_a_number_has_no_channels():
    with pytest.raises(ShapeError, match=r"^x.shape=\(\): it has a last axis of M=1 channels; pass a vector"):
        linear(np.float64(2), {"weight": np.ones((3, 1))})
