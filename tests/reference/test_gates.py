import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.gates import gate_sums, gate_sums_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import GATES, assert_is_gradient, layer_parameters

B, M, N = 2, 3, 4
RNG = np.random.default_rng(0)
X, H = RNG.normal(size=(B, M)), RNG.normal(size=(B, N))
PARAMETERS = layer_parameters(RNG, "gru", M, N)


def test_each_gate_has_its_own_rows_of_the_weights():
    from_input, from_hidden = gate_sums(X, H, PARAMETERS, 3)
    for gate in range(3):
        rows = slice(gate * N, gate * N + N)
        assert_close(from_input[gate], X @ PARAMETERS["input.weight"][rows].T + PARAMETERS["input.bias"][rows], terms=M)
        assert_close(from_hidden[gate], H @ PARAMETERS["hidden.weight"][rows].T + PARAMETERS["hidden.bias"][rows], terms=N)


@given(st.sampled_from(["rnn", "gru", "lstm"]), st.booleans(), st.integers(0, 99))
def test_gradients_agree_with_central_differences(cell, biased, seed):
    rng, gates = np.random.default_rng(seed), GATES[cell]
    x, h, parameters = rng.normal(size=(2, 1)), rng.normal(size=(2, 3)), layer_parameters(rng, cell, 1, 3, biased=biased)
    cotangents = rng.normal(size=(2, gates, 2, 3))

    def loss(x, h, parameters):
        return sum(np.sum(c * s) for c, s in zip(cotangents, gate_sums(x, h, parameters, gates), strict=True))

    assert_is_gradient(loss, gate_sums_backward(x, h, parameters, *cotangents), (x, h, parameters))


@pytest.mark.parametrize(("b", "m", "n"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_sizes(b, m, n):
    parameters = layer_parameters(RNG, "gru", m, n)
    x, h = np.ones((b, m)), np.ones((b, n))
    sums = gate_sums(x, h, parameters, 3)
    assert [array.shape for array in sums] == [(3, b, n)] * 2
    dx, dh, gradients = gate_sums_backward(x, h, parameters, *sums)
    assert (dx.shape, dh.shape) == (x.shape, h.shape)
    assert {name: array.shape for name, array in gradients.items()} == {k: v.shape for k, v in parameters.items()}


def changed(**arrays):
    named = {name.replace("_", "."): array for name, array in arrays.items()}
    return {name: array for name, array in (PARAMETERS | named).items() if array is not None}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gate_sums(X[0], H, PARAMETERS, 3), ShapeError, "x.shape=(3,): x has the 2 axes [B,M]"),
        (lambda: gate_sums(X, H[0], PARAMETERS, 3), ShapeError, "h.shape=(4,): h has the 2 axes [B,N]"),
        (lambda: gate_sums(X[:1], H, PARAMETERS, 3), ShapeError, "B=1 in x and B=2 in h: B is one size"),
        (lambda: gate_sums(X[:, :2], H, PARAMETERS, 3), ShapeError, "M=2 in x and M=3 in input.weight: M is one size"),
        (lambda: gate_sums(X, H, changed(hidden_weight=np.ones((12, 5))), 3), ShapeError,
         "N=4 in h and N=5 in hidden.weight: N is one size"),
        (lambda: gate_sums(X, H, PARAMETERS, 4), ShapeError,
         "input.weight.shape=(12, 3): it has 4 * N rows, N = 4 for each of the 4 gates; pass (16, 3)"),
        (lambda: gate_sums(X, H, changed(hidden_weight=np.ones(12)), 3), ShapeError,
         "hidden.weight.shape=(12,): it has 3 * N rows, N = 4 for each of the 3 gates; pass (12, 4)"),
        (lambda: gate_sums(X, H, changed(input_bias=np.ones(4)), 3), ShapeError,
         "bias.shape=(4,): it has one entry for each of the 12 rows of weight"),
        (lambda: gate_sums(X, H, changed(input_weight=None), 3), ValueError, "missing ['input.weight'], unknown []"),
        (lambda: gate_sums(X, H, changed(gate_weight=X), 3), ValueError, "missing [], unknown ['gate.weight']"),
        (lambda: gate_sums(X, H, changed(hidden_bias=None), 3), ValueError,
         "parameters=['hidden.weight', 'input.bias', 'input.weight']: there are two biases or none; pass zeros"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_cotangents_of_the_sums_are_not_broadcast():
    rng = np.random.default_rng(0)
    x, h, parameters = rng.normal(size=(2, 3)), rng.normal(size=(2, 4)), layer_parameters(rng, "gru", 3, 4)
    d = rng.normal(size=(3, 2, 4))
    for dinput, dhidden in ((d[:, :1], d), (d, d[:, :1])):
        with pytest.raises(ShapeError, match=r"^cotangent.shape=\(3, 1, 4\): it has the shape \(3, 2, 4\) of the sums"):
            gate_sums_backward(x, h, parameters, dinput, dhidden)
    with pytest.raises(ShapeError, match=r"^input.weight.shape=\(12, 3\): it has 2 \* N rows, N = 4 for each of the 2 gates"):
        gate_sums_backward(x, h, parameters, d[:2], d[:2])
    with pytest.raises(ValueError, match=r"unknown \['input.wieght'\]"):
        gate_sums_backward(x, h, parameters | {"input.wieght": d}, d, d)
