import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.rnn import rnn_cell
from attnspec.reference.rnn_backward import rnn_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import assert_is_gradient, layer_parameters

ONE = {"input.weight": np.array([[2.0]]), "hidden.weight": np.array([[-3.0]])}


def test_known_answer():
    # a = 2·1 - 3·(1/3) = 1, and with biases a = 2 - 3 + 1/2 - 1/2 = -1
    third, one = np.array([[1 / 3]]), np.array([[1.0]])
    assert_close(rnn_cell(one, third, ONE), [[0.7615941559557649]])  # tanh(1), OEIS A073744
    biased = ONE | {"input.bias": np.array([0.5]), "hidden.bias": np.array([-0.5])}
    assert_close(rnn_cell(one, one, biased), [[-0.7615941559557649]])
    assert rnn_cell(one, one, biased, "relu").tolist() == [[0.0]]
    assert rnn_cell(2 * one, one, ONE, "relu").tolist() == [[1.0]]
    # h' = tanh(1): slope 1 - tanh(1)^2 = 0.41997434161402607 times the weights
    dx, dh, gradients = rnn_backward(one, third, ONE, one)
    assert_close(np.array([dx, dh]).ravel(), [2 * 0.41997434161402607, -3 * 0.41997434161402607])
    assert_close(gradients["hidden.weight"], [[0.41997434161402607 / 3]])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100))
def test_with_tanh_the_state_stays_in_the_unit_interval(seed, scale):
    rng = np.random.default_rng(seed)
    parameters = layer_parameters(rng, "rnn", 2, 3, scale=scale)
    assert np.max(np.abs(rnn_cell(rng.normal(size=(4, 2)), rng.normal(size=(4, 3)) * scale, parameters))) <= 1


def test_relu_of_zero_has_slope_zero():
    zero = np.zeros((1, 1))
    dx, dh, gradients = rnn_backward(zero, zero, ONE, zero + 1, "relu")
    assert [dx.item(), dh.item(), gradients["input.weight"].item()] == [0.0, 0.0, 0.0]


@given(st.integers(0, 99), st.booleans(), st.sampled_from(["tanh", "relu"]))
def test_gradients_agree_with_central_differences(seed, biased, activation):
    rng = np.random.default_rng(seed)
    x, h, parameters = rng.normal(size=(2, 3)), rng.normal(size=(2, 1)), layer_parameters(rng, "rnn", 3, 1, biased=biased)
    cotangent = rng.normal(size=(2, 1))

    def loss(x, h, parameters):
        return np.sum(cotangent * rnn_cell(x, h, parameters, activation))

    assert_is_gradient(loss, rnn_backward(x, h, parameters, cotangent, activation), (x, h, parameters))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda one: rnn_cell(one, one, ONE, "sigmoid"), ValueError, "activation='sigmoid': it is tanh or relu; pass one"),
        (lambda one: rnn_backward(one, one, ONE, one[0]), ShapeError, "cotangent.shape=(1,): it has the shape (1, 1) of h'"),
        (lambda one: rnn_cell(one, np.ones((1, 2)), ONE), ShapeError, "input.weight.shape=(1, 1): it has 1 * N rows, N = 2"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(np.ones((1, 1)))
    assert str(caught.value).startswith(message)
