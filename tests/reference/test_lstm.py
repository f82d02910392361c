import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.lstm import lstm_cell, lstm_gates
from attnspec.reference.lstm_backward import lstm_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import assert_is_gradient, layer_parameters

B, M, N = 2, 3, 4
OPEN, SHUT = 1e3, -1e3  # a sigmoid of these is exactly 1 and 0
ONE = np.ones((1, 1))


def gated(i, f, g, o, width=1):
    """A cell whose gates do not look: their sums are biases."""
    biases = np.repeat([i, f, g, o], width)
    nothing = {"input.weight": np.zeros((4 * width, 1)), "hidden.weight": np.zeros((4 * width, width))}
    return nothing | {"input.bias": biases, "hidden.bias": np.zeros(4 * width)}


def test_known_answer():
    # all gates half open, nothing to write: c' = 2 / 2 = 1, h' = tanh(1) / 2
    h, c = lstm_cell(ONE, ONE, 2 * ONE, gated(0, 0, 0, 0))
    assert c.tolist() == [[1.0]]
    assert_close(h, [[0.7615941559557649 / 2]])  # tanh(1), OEIS A073744
    # odds of 3 for i, 1 for f, 1/3 for o: c' = 1/2 · 2 + 3/4 tanh(1), h' = 1/4 tanh(c')
    h, c = lstm_cell(ONE, ONE, 2 * ONE, gated(np.log(3), 0, 1, -np.log(3)))
    assert_close(c, [[1 + 0.75 * 0.7615941559557649]])
    assert_close(h, [[0.25 * 0.91721573234156287]])  # tanh(1.5711956169668237), by SymPy


@given(st.integers(0, 2**32 - 1))
def test_saturated_gates_keep_the_memory_or_replace_it(seed):
    rng = np.random.default_rng(seed)
    x, h, c = rng.normal(size=(B, M)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
    parameters = layer_parameters(rng, "lstm", M, N)

    def with_biases(i, f):
        return parameters | {"input.bias": parameters["input.bias"] + np.repeat([i, f, 0, 0], N)}

    _, kept = lstm_cell(x, h, c, with_biases(SHUT, OPEN))
    np.testing.assert_array_equal(kept, c)
    _, replaced = lstm_cell(x, h, c, with_biases(OPEN, SHUT))
    np.testing.assert_array_equal(replaced, lstm_gates(x, h, parameters)[2])


def test_a_shut_output_gate_shows_nothing():
    h, c = lstm_cell(ONE, ONE, 2 * ONE, gated(OPEN, OPEN, OPEN, SHUT))
    assert (h.tolist(), c.tolist()) == ([[0.0]], [[3.0]])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100))
def test_the_state_stays_in_the_unit_interval_and_gates_are_shares(seed, scale):
    rng = np.random.default_rng(seed)
    parameters = layer_parameters(rng, "lstm", M, N, scale=scale)
    x, h, c = rng.normal(size=(B, M)), rng.normal(size=(B, N)), scale * rng.normal(size=(B, N))
    assert np.max(np.abs(lstm_cell(x, h, c, parameters)[0])) <= 1
    i, f, g, o = lstm_gates(x, h, parameters)
    for share in (i, f, o, (g + 1) / 2):
        assert np.all((share >= 0) & (share <= 1))


@given(st.permutations(range(4)), st.integers(0, 99))
def test_the_order_of_the_gates_is_seen(order, seed):
    rng = np.random.default_rng(seed)
    parameters = layer_parameters(rng, "lstm", M, N)
    x, h, c = rng.normal(size=(B, M)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
    rows = np.concatenate([np.arange(gate * N, gate * N + N) for gate in order])
    permuted = {name: array[rows] for name, array in parameters.items()}
    same = lstm_cell(x, h, c, parameters)[0] == lstm_cell(x, h, c, permuted)[0]
    assert np.all(same) == (list(order) == [0, 1, 2, 3])


def test_no_biases_are_biases_of_zero():
    rng = np.random.default_rng(0)
    bare = layer_parameters(rng, "lstm", M, N, biased=False)
    x, h, c = rng.normal(size=(B, M)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
    zeros = bare | {"input.bias": np.zeros(4 * N), "hidden.bias": np.zeros(4 * N)}
    np.testing.assert_array_equal(lstm_cell(x, h, c, bare), lstm_cell(x, h, c, zeros))


def test_known_gradient():
    # all gates half open, g = 0: dm = 1 + 1/2 (1 - tanh(1)^2), dc = dm / 2, and c reaches nothing else
    dx, dh, dc, gradients = lstm_backward(ONE, ONE, 2 * ONE, gated(0, 0, 0, 0), (ONE, ONE))
    dm = 1 + 0.41997434161402607 / 2
    assert (dx.tolist(), dh.tolist()) == ([[0.0]], [[0.0]])
    assert_close(dc, [[dm / 2]])
    assert_close(gradients["input.bias"], [0.0, dm * 2 / 4, dm / 2, 0.7615941559557649 / 4])


@given(st.integers(0, 99), st.booleans())
def test_gradients_agree_with_central_differences(seed, biased):
    rng = np.random.default_rng(seed)
    x, h, c = rng.normal(size=(3, 1)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    parameters, cotangents = layer_parameters(rng, "lstm", 1, 2, biased=biased), tuple(rng.normal(size=(2, 3, 2)))

    def loss(x, h, c, parameters):
        return sum(np.sum(d * new) for d, new in zip(cotangents, lstm_cell(x, h, c, parameters), strict=True))

    assert_is_gradient(loss, lstm_backward(x, h, c, parameters, cotangents), (x, h, c, parameters))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: lstm_cell(ONE, ONE, np.ones((1, 2)), p), "c.shape=(1, 2): the memory has the shape of h, (1, 1); pass"),
        (lambda p: lstm_backward(ONE, ONE, ONE, p, (ONE[0], ONE)),
         "cotangent.shape=(1,): it has the shape (1, 1) of h'; pass the gradient of h'"),
        (lambda p: lstm_backward(ONE, ONE, ONE, p, (ONE, np.ones((1, 2)))),
         "cotangent.shape=(1, 2): it has the shape (1, 1) of c'; pass the gradient of c'"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ShapeError) as caught:
        call(gated(0, 0, 0, 0))
    assert str(caught.value).startswith(message)
