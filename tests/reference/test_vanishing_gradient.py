import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.cell import step_backward
from attnspec.reference.shapes import ShapeError
from attnspec.reference.unroll import unroll_backward
from attnspec.reference.vanishing_gradient import state_jacobian, vanishing_gradient
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import CELLS, STATES, layer_parameters, state_of

B, T, M, N = 2, 6, 3, 4
TERMS = 20 * T * (M + N)
OPEN, SHUT = 1e3, -1e3  # a sigmoid of these is exactly 1 and 0


def drawn(cell, seed, **options):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, T, M)), state_of(rng, cell, B, N), layer_parameters(rng, cell, M, N, **options)


@given(st.sampled_from(CELLS), st.integers(0, 999))
def test_the_product_of_jacobians_is_what_back_propagation_through_time_gives(cell, seed):
    x, state, parameters = drawn(cell, seed)
    products = vanishing_gradient(x, state, parameters, cell)
    width = STATES[cell] * N
    for row in range(width):
        one = np.broadcast_to(np.eye(width)[row], (B, width))
        dfinal = tuple(np.split(one, STATES[cell], axis=1))
        _, dstate, _ = unroll_backward(x, state, parameters, np.zeros((B, T, N)), dfinal, cell)
        assert_close(products[:, 0, row], np.concatenate(dstate, axis=1), terms=TERMS)


@given(st.sampled_from(CELLS), st.integers(0, 999))
def test_a_factor_is_what_back_propagation_through_one_step_gives(cell, seed):
    # one factor alone: in a product of an even number of them a wrong sign would not show
    x, state, parameters = drawn(cell, seed)
    factor, width = state_jacobian(x[:, 0], state, parameters, cell), STATES[cell] * N
    for row in range(width):
        one = np.broadcast_to(np.eye(width)[row], (B, width))
        _, dstate, _ = step_backward(x[:, 0], state, parameters, tuple(np.split(one, STATES[cell], axis=1)), cell)
        assert_close(factor[:, row], np.concatenate(dstate, axis=1), terms=M + N)


@given(st.integers(0, 999), st.sampled_from(["rnn", "gru", "gru_reset_before", "lstm", "rnn_relu"]))
def test_each_factor_joins_two_products(seed, cell):
    x, state, parameters = drawn(cell, seed)
    products = vanishing_gradient(x, state, parameters, cell)
    np.testing.assert_array_equal(products[:, T], np.broadcast_to(np.eye(STATES[cell] * N), products[:, T].shape))
    first = state_jacobian(x[:, 0], state, parameters, cell)
    assert_close(products[:, 1] @ first, products[:, 0], terms=TERMS)
    # what follows does not depend on where the run started, but for the state it starts from
    np.testing.assert_array_equal(vanishing_gradient(x[:, :1], state, parameters, cell)[:, 0], first)


@given(st.integers(0, 999))
def test_a_linear_run_gives_a_power_of_the_weights(seed):
    rng = np.random.default_rng(seed)
    positive = {name: np.abs(array) for name, array in layer_parameters(rng, "rnn_relu", M, N).items()}
    x, state = np.abs(rng.normal(size=(B, T, M))), (np.abs(rng.normal(size=(B, N))),)
    products = vanishing_gradient(x, state, positive, "rnn_relu")  # relu of a positive sum is the sum
    for t in range(T + 1):
        want = np.linalg.matrix_power(positive["hidden.weight"], T - t)
        assert_close(products[:, t], np.broadcast_to(want, (B, N, N)), terms=TERMS)


@given(st.integers(0, 999), st.floats(0.1, 3))
def test_with_tanh_it_shrinks_at_least_as_the_power_of_the_norm(seed, scale):
    x, state, parameters = drawn("rnn", seed, scale=scale)
    norms = np.linalg.norm(vanishing_gradient(x, state, parameters, "rnn"), ord=2, axis=(2, 3))
    bounds = np.linalg.norm(parameters["hidden.weight"], ord=2) ** (T - np.arange(T + 1.0))
    excess = np.maximum(norms / bounds - 1, 0)
    assert_close(excess, np.zeros_like(excess), terms=TERMS)


def gated(cell, *biases):
    """A cell whose gates do not look at anything: their sums are biases."""
    zeros = {name: np.zeros_like(array) for name, array in layer_parameters(np.random.default_rng(0), cell, M, N).items()}
    return zeros | {"input.bias": np.repeat(np.array(biases, dtype=np.float64), N)}


def test_an_open_forget_gate_keeps_the_gradient_of_the_memory_and_a_half_open_one_halves_it():
    x, state, _ = drawn("lstm", 0)
    for bias, share in ((OPEN, 1.0), (0.0, 0.5), (SHUT, 0.0)):
        products = vanishing_gradient(x, state, gated("lstm", 0, bias, 0, 0))
        for t in range(T + 1):
            np.testing.assert_array_equal(products[:, t, N:, N:], np.broadcast_to(share ** (T - t) * np.eye(N), (B, N, N)))


def test_an_update_gate_of_one_keeps_the_gradient_of_the_state():
    x, state, _ = drawn("gru", 0)
    for bias, share in ((OPEN, 1.0), (0.0, 0.5), (SHUT, 0.0)):
        for cell in ("gru", "gru_reset_before"):
            products = vanishing_gradient(x, state, gated(cell, 0, bias, 0), cell)
            for t in range(T + 1):
                np.testing.assert_array_equal(products[:, t], np.broadcast_to(share ** (T - t) * np.eye(N), (B, N, N)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("b", "t", "m", "n"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_empty_sizes(cell, b, t, m, n):
    rng = np.random.default_rng(0)
    width = STATES[cell] * n
    products = vanishing_gradient(np.ones((b, t, m)), state_of(rng, cell, b, n), layer_parameters(rng, cell, m, n), cell)
    assert products.shape == (b, t + 1, width, width)


@pytest.mark.parametrize(
    ("x", "cell", "error", "message"),
    [
        ((B, M), "rnn", ShapeError, "x.shape=(2, 3): x has the 3 axes [B,T,M]"),
        ((B, T, M), "lstm", ValueError, "a state of 1 arrays: the state of lstm is (h, c); pass a tuple of 2"),
    ],
)
def test_errors(x, cell, error, message):
    with pytest.raises(error) as caught:
        vanishing_gradient(np.ones(x), (np.ones((B, N)),), layer_parameters(np.random.default_rng(0), "rnn", M, N), cell)
    assert str(caught.value).startswith(message)
