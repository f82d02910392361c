import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.layer_norm import layer_norm
from attnspec.reference.rms_norm import rms_norm, rms_norm_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import check_gradients
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


@st.composite
def normed(draw):
    shape = tuple(draw(st.integers(1, 4), label=name) for name in ("B", "T", "M"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    signs = rng.choice([-1.0, 1.0], size=shape)
    return signs * (0.5 + rng.random(shape)), {"weight": rng.normal(size=shape[-1])}


def cotangent_for(x):
    return np.random.default_rng(7).normal(size=x.shape)


def test_known_answer():
    # squares 1, 49, 25, 25: mean 25
    x = np.array([[[1.0, -7.0, 5.0, 5.0]]])
    assert_close(rms_norm(x, {"weight": np.array([1.0, 1.0, 2.0, 0.0])}, eps=0.0), [[[0.2, -1.4, 2.0, 0.0]]])
    assert_close(rms_norm(np.array([3.0]), {"weight": np.ones(1)}, eps=7.0), [0.75])
    assert_close(rms_norm(np.array([1.0]), {"weight": np.ones(1)}), [1 / np.sqrt(1 + 1e-5)])
    assert rms_norm(np.zeros((1, 1, 2)), {"weight": np.ones(2)}).tolist() == [[[0.0, 0.0]]]


@given(normed())
def test_each_position_has_mean_square_one(case):
    x, _ = case
    out = rms_norm(x, {"weight": np.ones(x.shape[-1])}, eps=0.0)
    assert_close(np.mean(out**2, axis=-1), np.ones(x.shape[:-1]), terms=x.shape[-1])


@given(normed(), st.integers(-20, 20))
def test_scaling_the_input_changes_nothing_without_eps(case, k):
    x, weight = case
    np.testing.assert_array_equal(rms_norm(x * 2.0**k, weight, eps=0.0), rms_norm(x, weight, eps=0.0))
    np.testing.assert_array_equal(rms_norm(-x, weight), -rms_norm(x, weight))


def test_shifting_the_input_changes_something():
    x, weight = np.array([-1.0, 1.0]), {"weight": np.ones(2)}
    assert np.max(np.abs(rms_norm(x + 1, weight) - rms_norm(x, weight))) > 0.4


@given(normed())
def test_is_layer_norm_without_centring(case):
    x, weight = case
    centred = x - x.mean(axis=-1, keepdims=True)
    assert_close(rms_norm(centred, weight, eps=0.5), layer_norm(x, weight, eps=0.5), terms=4 * x.shape[-1])


@given(normed(), st.integers(0, 100))
def test_no_position_reads_another(case, seed):
    x, weight = case
    out, poisoned = rms_norm(x, weight), x.copy()
    b, t = (seed % size for size in x.shape[:2])
    poisoned[b, t] = np.nan
    got = rms_norm(poisoned, weight)
    assert np.isnan(got[b, t]).all()
    got[b, t] = out[b, t]
    np.testing.assert_array_equal(got, out)


@given(normed(), st.sampled_from([1e-5, 0.5]), max_examples=50)
def test_gradients_agree_with_central_differences(case, eps):
    x, weight = case
    gradients = rms_norm_backward(x, weight, cotangent_for(x), eps)
    check_gradients(lambda x, p: rms_norm(x, p, eps), (x,), weight, gradients, cotangent_for(x), terms=8 * x.size)


@given(normed())
def test_the_invariance_is_orthogonal_to_the_gradient(case):
    x, weight = case
    dx, _ = rms_norm_backward(x, weight, cotangent_for(x), eps=0.0)
    assert_close((dx * x).sum(axis=-1), np.zeros(x.shape[:-1]), terms=8 * x.size)


def test_empty_batches_and_narrow_inputs():
    weight = {"weight": np.ones(3)}
    assert rms_norm(np.zeros((0, 2, 3)), weight).shape == (0, 2, 3)
    dx, gradients = rms_norm_backward(np.zeros((2, 0, 3)), weight, np.zeros((2, 0, 3)))
    assert dx.shape == (2, 0, 3)
    assert gradients["weight"].tolist() == [0.0] * 3
    assert rms_norm(np.ones(3, dtype=np.float32), weight).dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "parameters", "error", "message"),
    [
        ((1, 2, 3), {}, ValueError, "parameters=[]: missing ['weight'], unknown []; pass weight"),
        (
            (1, 2, 3),
            {"weight": (3,), "bias": (3,)},
            ValueError,
            "parameters=['bias', 'weight']: missing [], unknown ['bias']",
        ),
        ((1, 2, 3), {"weight": (3, 1)}, ShapeError, "weight.shape=(3, 1): it has one entry for each channel of x; pass (3,)"),
        ((1, 2, 0), {"weight": (0,)}, ShapeError, "x.shape=(1, 2, 0): a norm takes means over the last axis, so M > 0"),
    ],
)
def test_errors(shape, parameters, error, message):
    parameters = {name: np.ones(size) for name, size in parameters.items()}
    for call in (rms_norm, lambda x, p: rms_norm_backward(x, p, x)):
        with pytest.raises(error) as caught:
            call(np.zeros(shape), parameters)
        assert str(caught.value).startswith(message)


def test_errors_of_the_cotangent():
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2, 3\): it has the shape \(1, 2, 3\) of the output"):
        rms_norm_backward(np.zeros((1, 2, 3)), {"weight": np.ones(3)}, np.zeros((2, 3)))


@pytest.mark.parametrize("eps", [-1e-5, np.nan])
def test_a_negative_eps_is_refused(eps):
    x, weight = np.ones((2, 3)), {"weight": np.ones(3)}
    for call in (rms_norm, lambda x, p, e: rms_norm_backward(x, p, x, e)):
        with pytest.raises(ValueError, match=rf"^eps={eps}: it is added to a variance, so it is at least 0; pass 1e-5"):
            call(x, weight, eps)


def test_a_number_has_no_channels():
    with pytest.raises(ShapeError, match=r"^x.shape=\(\): a norm takes means over the last axis, so M > 0"):
        rms_norm(np.float64(1), {"weight": np.ones(1)})
