import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.gru import gru_cell, gru_gates
from attnspec.reference.gru_backward import gru_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import assert_is_gradient, layer_parameters

B, M, N = 2, 3, 4
OPEN, SHUT = 1e3, -1e3  # a sigmoid of these is exactly 1 and 0
ONE = np.ones((1, 1))
RESETS = ("after", "before")


def drawn(seed, **options):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(B, M)), rng.normal(size=(B, N)), layer_parameters(rng, "gru", M, N, **options)


def with_biases(parameters, r, z, n=0.0):
    return parameters | {"input.bias": parameters["input.bias"] + np.repeat([r, z, n], N)}


def of_one(hidden_bias, weight=0.0):
    """Half-open gates; n sees the state through `weight` and a bias behind it."""
    zeros = {"input.weight": np.zeros((3, 1)), "input.bias": np.zeros(3)}
    return zeros | {"hidden.weight": np.array([[0.0], [0.0], [weight]]), "hidden.bias": np.array([0.0, 0.0, hidden_bias])}


@pytest.mark.parametrize("reset", RESETS)
def test_known_answer(reset):
    # gates half open and nothing proposed: h' = 1/2 · 0 + 1/2 · 1
    assert gru_cell(ONE, ONE, of_one(0.0), reset).tolist() == [[0.5]]


def test_known_answers_tell_the_resets_apart():
    # r = z = 1/2, d_n = 2: after, n = tanh(1/2 · 2); before, n = tanh(2); h' = n / 2 + 1 / 2
    assert_close(gru_cell(ONE, ONE, of_one(2.0), "after"), [[(1 + 0.7615941559557649) / 2]])  # tanh(1), OEIS A073744
    assert_close(gru_cell(ONE, ONE, of_one(2.0), "before"), [[(1 + 0.9640275800758169) / 2]])  # tanh(2)
    assert_close(gru_cell(ONE, ONE, of_one(0.0, 2.0), "before"), [[(1 + 0.7615941559557649) / 2]])


@given(st.integers(0, 2**32 - 1))
def test_the_resets_differ_unless_nothing_is_reset(seed):
    x, h, parameters = drawn(seed)
    assert np.max(np.abs(gru_cell(x, h, parameters, "after") - gru_cell(x, h, parameters, "before"))) > 0
    kept = with_biases(parameters, OPEN, 0.0)  # r = 1
    np.testing.assert_array_equal(gru_cell(x, h, kept, "after"), gru_cell(x, h, kept, "before"))


@pytest.mark.parametrize("reset", RESETS)
@given(st.integers(0, 2**32 - 1))
def test_saturated_gates(reset, seed):
    x, h, parameters = drawn(seed)
    np.testing.assert_array_equal(gru_cell(x, h, with_biases(parameters, 0.0, OPEN), reset), h)
    candidate = gru_gates(x, h, parameters, reset)[2]
    np.testing.assert_array_equal(gru_cell(x, h, with_biases(parameters, 0.0, SHUT), reset), candidate)
    bare = {
        name: np.where(np.arange(3 * N) < 2 * N, array.T, 0.0).T for name, array in parameters.items() if "hidden" in name
    }
    forgotten = gru_gates(x, h, with_biases(parameters, SHUT, 0.0) | {"hidden.bias": bare["hidden.bias"]}, reset)[2]
    unseen = gru_gates(x, h, with_biases(parameters, SHUT, 0.0) | bare, reset)[2]  # U_n = 0
    np.testing.assert_array_equal(forgotten, unseen)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100), st.sampled_from(RESETS))
def test_the_new_state_lies_between_the_old_one_and_the_candidate(seed, scale, reset):
    x, h, parameters = drawn(seed, scale=scale)
    r, z, n, _ = gru_gates(x, h, parameters, reset)
    new = gru_cell(x, h, parameters, reset)
    assert_close(new, np.clip(new, np.minimum(h, n), np.maximum(h, n)))
    assert np.max(np.abs(n)) <= 1
    for share in (r, z):
        assert np.all((share >= 0) & (share <= 1))


@given(st.permutations(range(3)), st.integers(0, 99), st.sampled_from(RESETS))
def test_the_order_of_the_gates_is_seen(order, seed, reset):
    x, h, parameters = drawn(seed)
    rows = np.concatenate([np.arange(gate * N, gate * N + N) for gate in order])
    permuted = {name: array[rows] for name, array in parameters.items()}
    same = gru_cell(x, h, parameters, reset) == gru_cell(x, h, permuted, reset)
    assert np.all(same) == (list(order) == [0, 1, 2])


@pytest.mark.parametrize("reset", RESETS)
def test_no_biases_are_biases_of_zero(reset):
    x, h, bare = drawn(0, biased=False)
    zeros = bare | {"input.bias": np.zeros(3 * N), "hidden.bias": np.zeros(3 * N)}
    np.testing.assert_array_equal(gru_cell(x, h, bare, reset), gru_cell(x, h, zeros, reset))


def test_known_gradient():
    # r = z = 1/2, n = 0, s = 0: dh = do z = 1/2; da_z = (1 - 0) / 4, da_n = 1/2, ds = 1/4 after and 1/2 before
    for reset, ds in (("after", 0.25), ("before", 0.5)):
        dx, dh, gradients = gru_backward(ONE, ONE, of_one(0.0), ONE, reset)
        assert (dx.tolist(), dh.tolist()) == ([[0.0]], [[0.5]])
        assert gradients["input.bias"].tolist() == [0.0, 0.25, 0.5]
        assert gradients["hidden.bias"].tolist() == [0.0, 0.25, ds]
        assert gradients["hidden.weight"].tolist() == [[0.0], [0.25], [0.25]]  # before: 1/2 times the r h = 1/2 it saw


@given(st.integers(0, 99), st.booleans(), st.sampled_from(RESETS))
def test_gradients_agree_with_central_differences(seed, biased, reset):
    rng = np.random.default_rng(seed)
    x, h, parameters = rng.normal(size=(3, 1)), rng.normal(size=(3, 2)), layer_parameters(rng, "gru", 1, 2, biased=biased)
    cotangent = rng.normal(size=(3, 2))

    def loss(x, h, parameters):
        return np.sum(cotangent * gru_cell(x, h, parameters, reset))

    assert_is_gradient(loss, gru_backward(x, h, parameters, cotangent, reset), (x, h, parameters))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: gru_cell(ONE, ONE, p, "never"), ValueError,
         "reset='never': it is after or before the product with U_n; pass one of these"),
        (lambda p: gru_backward(ONE, ONE, p, ONE[0]), ShapeError, "cotangent.shape=(1,): it has the shape (1, 1) of h';"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(of_one(0.0))
    assert str(caught.value).startswith(message)
