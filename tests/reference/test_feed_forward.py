import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.reference.activation import ACTIVATIONS, activate
from attnspec.reference.feed_forward import feed_forward
from attnspec.reference.feed_forward_backward import feed_forward_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import check_gradients
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

torch.set_num_threads(1)


def layer(M, F, rng, gated=False, biased=True):
    """Parameters of a feed-forward layer, in the order of the reference's gradients."""
    names = {"up": (F, M), **({"gate": (F, M)} if gated else {}), "down": (M, F)}
    parameters = {f"{name}.weight": rng.normal(size=shape) / np.sqrt(max(shape[1], 1)) for name, shape in names.items()}
    return parameters | ({f"{name}.bias": rng.normal(size=shape[0]) for name, shape in names.items()} if biased else {})


@st.composite
def layers(draw):
    """x, parameters and activation, plain or gated, with or without biases."""
    B, T, M, F = (draw(st.integers(1, 4), label=name) for name in ("B", "T", "M", "F"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    parameters = layer(M, F, rng, draw(st.booleans(), label="gated"), draw(st.booleans(), label="biased"))
    return rng.normal(size=(B, T, M)), parameters, draw(st.sampled_from(sorted(ACTIVATIONS)), label="activation")


def test_known_answer():
    # up gives 2, -1; relu keeps 2, 0; down doubles the first and adds 1
    x = np.array([[[1.0]]])
    plain = {"up.weight": np.array([[1.0], [-2.0]]), "up.bias": np.array([1.0, 1.0]), "down.weight": np.array([[2.0, 7.0]])}
    assert feed_forward(x, plain | {"down.bias": np.array([1.0])}).tolist() == [[[5.0]]]
    # a gate of -1, 3 lets the second through three times
    assert feed_forward(x, plain | {"gate.weight": np.array([[-1.0], [3.0]])}).tolist() == [[[-21.0]]]


@given(layers())
def test_is_two_maps_with_an_activation_between(case):
    x, p, activation = case
    zero = np.zeros(1)
    up = x @ p["up.weight"].T + p.get("up.bias", zero)
    gate = x @ p["gate.weight"].T + p.get("gate.bias", zero) if "gate.weight" in p else None
    hidden = activate(up, activation) if gate is None else up * activate(gate, activation)
    assert_close(feed_forward(x, p, activation), hidden @ p["down.weight"].T + p.get("down.bias", zero), terms=32)


@given(layers())
def test_a_gate_that_equals_up_squares_the_positive_part(case):
    x, p, _ = case
    p = {name: array for name, array in p.items() if not name.startswith("gate")}
    gate = {name.replace("up", "gate"): array for name, array in p.items() if name.startswith("up")}
    hidden = np.maximum(x @ p["up.weight"].T + p.get("up.bias", np.zeros(1)), 0.0) ** 2
    assert_close(feed_forward(x, p | gate), hidden @ p["down.weight"].T + p.get("down.bias", np.zeros(1)), terms=128)


@given(layers(), st.integers(0, 100))
def test_no_position_reads_another(case, seed):
    x, parameters, activation = case
    out, poisoned = feed_forward(x, parameters, activation), x.copy()
    b, t = (seed % size for size in x.shape[:2])
    poisoned[b, t] = np.nan
    got = feed_forward(poisoned, parameters, activation)
    assert np.isnan(got[b, t]).all()
    got[b, t] = out[b, t]
    np.testing.assert_array_equal(got, out)


@given(layers(), st.randoms())
def test_permuting_positions_permutes_the_output(case, random):
    x, parameters, activation = case
    order = random.sample(range(x.shape[1]), x.shape[1])
    got = feed_forward(x[:, order], parameters, activation)
    np.testing.assert_array_equal(got, feed_forward(x, parameters, activation)[:, order])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_gradients_agree_with_central_differences(activation, gated, biased):
    rng = np.random.default_rng(5)  # one seed: no number is within a step of the kink of relu
    x, parameters, do = rng.normal(size=(2, 3, 4)), layer(4, 5, rng, gated, biased), rng.normal(size=(2, 3, 4))
    gradients = feed_forward_backward(x, parameters, do, activation)
    check_gradients(lambda x, p: feed_forward(x, p, activation), (x,), parameters, gradients, do, terms=64)


class Layer(torch.autograd.Function):
    """The reference's own gradients under torch's differences."""

    @staticmethod
    def forward(context, x, *weights):
        context.save_for_backward(x, *weights)
        return torch.tensor(feed_forward(x.detach().numpy(), Layer.named(weights), "gelu"))

    @staticmethod
    def backward(context, cotangent):
        x, *weights = context.saved_tensors
        dx, gradients = feed_forward_backward(x.detach().numpy(), Layer.named(weights), cotangent.numpy(), "gelu")
        return torch.tensor(dx), *(torch.tensor(gradients[name]) for name in Layer.named(weights))

    @staticmethod
    def named(weights):
        names = ("up.weight", "gate.weight", "down.weight", "up.bias", "gate.bias", "down.bias")
        return {name: weight.detach().numpy() for name, weight in zip(names, weights, strict=True)}


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_pass_gradcheck(wrong, monkeypatch):
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(1, 2, 3)), *layer(3, 4, rng, gated=True).values()]
    if wrong:  # the slope of another activation
        right = feed_forward_backward
        monkeypatch.setitem(globals(), "feed_forward_backward", lambda *args: right(*args[:-1], "silu"))
    inputs = [torch.tensor(array, requires_grad=True) for array in arrays]
    assert torch.autograd.gradcheck(Layer.apply, inputs, raise_exception=False) is not wrong


def test_empty_sizes():
    rng = np.random.default_rng(0)
    parameters = layer(3, 4, rng, gated=True)
    assert feed_forward(np.zeros((0, 2, 3)), parameters).shape == (0, 2, 3)
    dx, gradients = feed_forward_backward(np.zeros((2, 0, 3)), parameters, np.zeros((2, 0, 3)))
    assert dx.shape == (2, 0, 3)
    assert all((gradients[name] == 0).all() and gradients[name].shape == array.shape for name, array in parameters.items())
    narrow = layer(3, 0, rng)
    assert feed_forward(np.ones((1, 3)), narrow).tolist() == [narrow["down.bias"].tolist()]


def changed(**arrays):
    parameters = layer(3, 4, np.random.default_rng(0)) | arrays
    return {name: array for name, array in parameters.items() if array is not None}


@pytest.mark.parametrize(
    ("parameters", "activation", "error", "message"),
    [
        (changed(**{"up.weight": None}), "relu", ValueError,
         "parameters=['down.bias', 'down.weight', 'up.bias']: missing ['up.weight'], unknown []"),
        (changed(**{"gate.bias": np.ones(4)}), "relu", ValueError,
         "parameters=['down.bias', 'down.weight', 'gate.bias', 'up.bias', 'up.weight']: missing ['gate.weight'], unknown []"),
        (changed(w1=np.ones(4)), "relu", ValueError,
         "parameters=['down.bias', 'down.weight', 'up.bias', 'up.weight', 'w1']: missing [], unknown ['w1']"),
        (changed(), "swish", ValueError, "activation='swish': it is one of relu, gelu, gelu_tanh, silu; pass one of these"),
        (changed(**{"up.weight": np.ones((4, 2))}), "relu", ShapeError, "M=3 in the input of weight and M=2 in weight"),
    ],
)  # fmt: skip
def test_errors(parameters, activation, error, message):
    for call in (feed_forward, lambda x, p, a: feed_forward_backward(x, p, x, a)):
        with pytest.raises(error) as caught:
            call(np.zeros((1, 2, 3)), parameters, activation)
        assert str(caught.value).startswith(message)


def test_errors_of_the_cotangent():
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2, 3\): it has the shape \(1, 2, 3\) of the output"):
        feed_forward_backward(np.zeros((1, 2, 3)), changed(), np.zeros((2, 3)))
