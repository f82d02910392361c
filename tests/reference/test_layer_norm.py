import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.reference.layer_norm import layer_norm, layer_norm_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import check_gradients
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

torch.set_num_threads(1)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def normed(draw):
    """Channels of order one that are never all alike, a weight, and a bias or none."""
    shape = (draw(st.integers(1, 3), label="B"), draw(st.integers(1, 4), label="T"), draw(st.integers(3, 6), label="M"))
    rng = np.random.default_rng(draw(SEEDS, label="seed"))
    x = rng.permuted(rng.normal(size=shape) / 4 + np.arange(shape[-1]), axis=-1)
    parameters = {"weight": rng.normal(size=shape[-1])}
    return x, parameters | ({"bias": rng.normal(size=shape[-1])} if draw(st.booleans(), label="biased") else {})


def cotangent_for(x):
    return np.random.default_rng(7).normal(size=x.shape)


def test_known_answer():
    # mean 3, squared distances 4, 0, 4, 0: variance 2, and eps 2 makes the deviation 2
    x = np.array([[[1.0, 3.0, 5.0, 3.0]]])
    parameters = {"weight": np.array([1.0, 1.0, 10.0, 1.0]), "bias": np.array([0.0, 5.0, 0.0, 0.0])}
    assert layer_norm(x, parameters, eps=2.0).tolist() == [[[-1.0, 5.0, 10.0, 0.0]]]


def test_eps_is_a_hundred_thousandth_under_the_root():
    x, weight = np.array([[[-3.0, 3.0]]]), {"weight": np.ones(2)}
    assert_close(layer_norm(x, weight), [[[-3 / np.sqrt(9 + 1e-5), 3 / np.sqrt(9 + 1e-5)]]])
    assert layer_norm(np.full((1, 1, 4), 0.25), {"weight": np.ones(4)}).tolist() == [[[0.0] * 4]]


@given(normed())
def test_each_position_has_mean_zero_and_biased_variance_one(case):
    x, _ = case
    out = layer_norm(x, {"weight": np.ones(x.shape[-1])}, eps=0.0)
    assert_close(out.mean(axis=-1), np.zeros(x.shape[:-1]), terms=x.shape[-1])
    assert_close(out.var(axis=-1), np.ones(x.shape[:-1]), terms=x.shape[-1])


@given(normed(), st.integers(-20, 20))
def test_scaling_the_input_changes_nothing_without_eps(case, k):
    x, parameters = case
    np.testing.assert_array_equal(layer_norm(x * 2.0**k, parameters, eps=0.0), layer_norm(x, parameters, eps=0.0))
    mirrored = parameters | {"weight": -parameters["weight"]}
    np.testing.assert_array_equal(layer_norm(-x, parameters, eps=0.0), layer_norm(x, mirrored, eps=0.0))


def test_scaling_the_input_changes_something_with_eps():
    x, weight = np.array([[[-1.0, 1.0]]]), {"weight": np.ones(2)}
    assert layer_norm(x, weight, eps=1.0)[0, 0, 1] < layer_norm(2 * x, weight, eps=1.0)[0, 0, 1] < 1


@given(SEEDS, st.integers(-1000, 1000))
def test_shifting_the_input_changes_nothing(seed, shift):
    x = np.random.default_rng(seed).integers(-50, 50, size=(2, 3, 4)).astype(float)  # four integers: their mean is exact
    weight = {"weight": np.array([1.0, 2.0, 3.0, 4.0])}
    np.testing.assert_array_equal(layer_norm(x + shift, weight), layer_norm(x, weight))


@given(normed(), SEEDS)
def test_no_position_reads_another(case, seed):
    x, parameters = case
    out, poisoned = layer_norm(x, parameters), x.copy()
    b, t = (seed % size for size in x.shape[:2])
    poisoned[b, t] = np.nan
    got = layer_norm(poisoned, parameters)
    assert np.isnan(got[b, t]).all()
    got[b, t] = out[b, t]
    np.testing.assert_array_equal(got, out)


@given(normed(), st.sampled_from([1e-5, 0.5]), max_examples=50)
def test_gradients_agree_with_central_differences(case, eps):
    x, parameters = case
    gradients = layer_norm_backward(x, parameters, cotangent_for(x), eps)
    check_gradients(lambda x, p: layer_norm(x, p, eps), (x,), parameters, gradients, cotangent_for(x), terms=8 * x.size)


@given(normed())
def test_invariances_are_orthogonal_to_the_gradient(case):
    x, parameters = case
    dx, _ = layer_norm_backward(x, parameters, cotangent_for(x), eps=0.0)
    zeros = np.zeros(x.shape[:-1])
    assert_close(dx.sum(axis=-1), zeros, terms=x.size)  # a shift of all channels
    assert_close((dx * (x - x.mean(axis=-1, keepdims=True))).sum(axis=-1), zeros, terms=4 * x.size)  # a scale


class Norm(torch.autograd.Function):
    """The reference's own gradients under torch's differences."""

    @staticmethod
    def forward(context, x, weight, bias):
        context.save_for_backward(x, weight, bias)
        parameters = {"weight": weight.detach().numpy(), "bias": bias.detach().numpy()}
        return torch.tensor(layer_norm(x.detach().numpy(), parameters))

    @staticmethod
    def backward(context, cotangent):
        x, weight, bias = (array.detach().numpy() for array in context.saved_tensors)
        dx, gradients = layer_norm_backward(x, {"weight": weight, "bias": bias}, cotangent.numpy())
        return tuple(torch.tensor(array) for array in (dx, gradients["weight"], gradients["bias"]))


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_pass_gradcheck(wrong, monkeypatch):
    rng = np.random.default_rng(3)
    inputs = [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((2, 3, 5), (5,), (5,))]
    if wrong:  # gradients that forget that the mean depends on every channel
        right = layer_norm_backward

        def one_sided(x, parameters, do):
            return do * parameters["weight"], right(x, parameters, do)[1]

        monkeypatch.setitem(globals(), "layer_norm_backward", one_sided)
    assert torch.autograd.gradcheck(Norm.apply, inputs, raise_exception=False) is not wrong


def test_empty_batches_and_narrow_inputs():
    parameters = {"weight": np.ones(3), "bias": np.ones(3)}
    assert layer_norm(np.zeros((0, 2, 3)), parameters).shape == (0, 2, 3)
    dx, gradients = layer_norm_backward(np.zeros((2, 0, 3)), parameters, np.zeros((2, 0, 3)))
    assert dx.shape == (2, 0, 3)
    assert {name: array.tolist() for name, array in gradients.items()} == {"weight": [0.0] * 3, "bias": [0.0] * 3}
    x = np.arange(3, dtype=np.float32)
    assert layer_norm(x, {"weight": np.ones(3, dtype=np.float32)}).dtype == np.float64
    assert list(layer_norm_backward(x, {"weight": np.ones(3)}, x)[1]) == ["weight"]


@pytest.mark.parametrize(
    ("shape", "parameters", "cotangent", "error", "message"),
    [
        ((1, 2, 3), {"bias": (3,)}, (1, 2, 3), ValueError, "parameters=['bias']: missing ['weight'], unknown []"),
        ((1, 2, 3), {"weight": (3,), "gain": (3,)}, (1, 2, 3), ValueError,
         "parameters=['gain', 'weight']: missing [], unknown ['gain']"),
        ((1, 2, 3), {"weight": (2,)}, (1, 2, 3), ShapeError,
         "weight.shape=(2,): it has one entry for each channel of x; pass (3,)"),
        ((1, 2, 3), {"weight": (3,), "bias": (1,)}, (1, 2, 3), ShapeError, "bias.shape=(1,): it has one entry"),
        ((1, 2, 0), {"weight": (0,)}, (1, 2, 0), ShapeError,
         "x.shape=(1, 2, 0): a norm takes means over the last axis, so M > 0"),
    ],
)  # fmt: skip
def test_errors(shape, parameters, cotangent, error, message):
    parameters = {name: np.ones(size) for name, size in parameters.items()}
    with pytest.raises(error) as caught:
        layer_norm(np.zeros(shape), parameters)
    assert str(caught.value).startswith(message)
    with pytest.raises(error) as caught:
        layer_norm_backward(np.zeros(shape), parameters, np.zeros(cotangent))
    assert str(caught.value).startswith(message)


def test_errors_of_the_cotangent():
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2, 3\): it has the shape \(1, 2, 3\) of the output"):
        layer_norm_backward(np.zeros((1, 2, 3)), {"weight": np.ones(3)}, np.zeros((2, 3)))


@pytest.mark.parametrize("eps", [-1e-5, np.nan])
def test_a_negative_eps_is_refused(eps):
    x, weight = np.ones((2, 3)), {"weight": np.ones(3)}
    for call in (layer_norm, lambda x, p, e: layer_norm_backward(x, p, x, e)):
        with pytest.raises(ValueError, match=rf"^eps={eps}: it is added to a variance, so it is at least 0; pass 1e-5"):
            call(x, weight, eps)


def test_a_number_has_no_channels():
    with pytest.raises(ShapeError, match=r"^x.shape=\(\): a norm takes means over the last axis, so M > 0"):
        layer_norm(np.float64(1), {"weight": np.ones(1)})
