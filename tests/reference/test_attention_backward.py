import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from attnspec.reference.attention import attention, scores
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import UNIT, assert_close
from tests.reference.drawn import cases, given

torch.set_num_threads(1)
NAMES = ("q", "k", "v", "bias")


def cotangent_for(q, v):
    return np.random.default_rng(7).normal(size=(*q.shape[:3], v.shape[3]))


def terms(q, v):
    return sum(q.shape[1:]) + sum(v.shape[2:])


def torch_attention(q, k, v, bias, visible, options):
    """The formula in torch operations with known derivatives; the mask is a product, so empty rows need no care."""
    group, cap = q.shape[1] // k.shape[1], options.get("softcap")
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    score = q @ k.mT * (q.shape[3] ** -0.5 if options.get("scale") is None else options["scale"])
    score = (score if cap is None else cap * torch.tanh(score / cap)) + bias
    p = torch.exp(score) * visible
    z = p.sum(-1, keepdim=True)
    return p / torch.where(z == 0, 1.0, z) @ v


@given(cases())
def test_agrees_with_torch_autograd(case):
    q, k, v, options = case
    score = scores(q, k, **options)
    visible = score > -np.inf
    bias = np.broadcast_to(options.get("bias", 0.0), score.shape)
    bias = np.where(bias == -np.inf, 0.0, bias)  # what it hides is in visible
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v, bias)]
    cotangent = cotangent_for(q, v)
    torch_attention(*leaves, torch.tensor(visible), options).backward(torch.tensor(cotangent))
    for got, leaf in zip(attention_backward(q, k, v, cotangent, **options), leaves, strict=True):
        assert_close(got, leaf.grad.numpy(), terms=terms(q, v))


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_agrees_with_complex_steps(softcap):
    # the imaginary part of f(x + i h) is h f'(x) without cancellation, so h = 2^-300 leaves no truncation error
    rng = np.random.default_rng(3)
    q, k, v = rng.normal(size=(1, 4, 3, 2)), rng.normal(size=(1, 2, 3, 2)), rng.normal(size=(1, 2, 3, 2))
    bias, cotangent, visible = rng.normal(size=(1, 4, 3, 3)), rng.normal(size=(1, 4, 3, 2)), np.tri(3, dtype=bool)

    def loss(q, k, v, bias):
        k, v = np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1)
        score = q @ k.swapaxes(2, 3) / np.sqrt(2)
        p = np.exp((score if softcap is None else softcap * np.tanh(score / softcap)) + bias) * visible
        return np.sum(p / p.sum(-1, keepdims=True) @ v * cotangent)

    inputs = (q, k, v, bias)
    got = attention_backward(q, k, v, cotangent, bias=bias, softcap=softcap, causal="top-left")
    for place, gradient in enumerate(got):
        want = np.empty_like(gradient)
        for index in np.ndindex(want.shape):
            stepped = [x.astype(complex) for x in inputs]
            stepped[place][index] += 2.0**-300 * 1j
            want[index] = np.imag(loss(*stepped)) * 2.0**300
        assert_close(gradient, want, terms=terms(q, v))


@given(cases(), max_examples=25)  # each takes two forward passes per entry of q, k, v
def test_agrees_with_central_differences_of_the_forward(case):
    q, k, v, options = case
    cotangent = cotangent_for(q, v)
    step = UNIT ** (1 / 3)  # rounding u/h and truncation h^2 are then both u^(2/3)
    for place, gradient in enumerate(attention_backward(q, k, v, cotangent, **options)[:3]):
        want = np.empty_like(gradient)
        for index in np.ndindex(want.shape):
            ahead, behind = [q.copy(), k.copy(), v.copy()], [q.copy(), k.copy(), v.copy()]
            ahead[place][index] += step
            behind[place][index] -= step
            change = attention(*ahead, **options) - attention(*behind, **options)
            want[index] = np.sum(change * cotangent) / (2 * step)
        assert_close(gradient, want, terms=terms(q, v) / step)  # u^(2/3) is u / step


@pytest.mark.parametrize(("T", "S"), [(4, 4), (2, 5), (5, 2)])
def test_agrees_with_torch_causal_attention(T, S):
    rng = np.random.default_rng(5)
    q, k, v = rng.normal(size=(2, 4, T, 3)), rng.normal(size=(2, 2, S, 3)), rng.normal(size=(2, 2, S, 3))
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    cotangent = cotangent_for(q, v)
    scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=True).backward(torch.tensor(cotangent))
    for got, leaf in zip(attention_backward(q, k, v, cotangent, causal="top-left"), leaves, strict=False):
        assert_close(got, leaf.grad.numpy(), terms=terms(q, v))


@given(cases())
def test_laws_of_the_gradients(case):
    q, k, v, options = case
    dq, dk, dv, dbias = attention_backward(q, k, v, cotangent_for(q, v), **options)
    assert (dq.shape, dk.shape, dv.shape, dbias.shape) == (q.shape, k.shape, v.shape, (*q.shape[:3], k.shape[2]))
    visible = scores(q, k, **options) > -np.inf
    assert (dbias[~visible] == 0).all()
    assert_close(dbias.sum(-1), np.zeros(q.shape[:3]), terms=terms(q, v))
    assert (dq[~visible.any(-1)] == 0).all()  # empty rows
    unseen = ~visible.reshape(*k.shape[:2], -1, k.shape[2]).any(2)  # by every query of every head of the group
    assert (dk[unseen] == 0).all()
    assert (dv[unseen] == 0).all()


def test_known_answer():
    # weights 1/2, 1/2, dp = (2, 0): dbias = 1/2 (2 - 1), 1/2 (0 - 1); dq = dbias·k, dk = dbias q, dv = p do
    q, k, v = np.zeros((1, 1, 1, 1)), np.array([[[[4.0], [2.0]]]]), np.array([[[[2.0], [0.0]]]])
    dq, dk, dv, dbias = attention_backward(q, k, v, np.ones((1, 1, 1, 1)))
    assert (dq.ravel().tolist(), dk.ravel().tolist()) == ([1.0], [0.0, 0.0])
    assert (dv.ravel().tolist(), dbias.ravel().tolist()) == ([0.5, 0.5], [0.5, -0.5])


def test_everything_hidden_gives_exact_zeros():
    arrays = np.random.default_rng(0).normal(size=(4, 1, 2, 3, 3))
    for options in ({"mask": np.zeros((2, 3, 3), bool)}, {"bias": np.full(3, -np.inf)}):
        for gradient in attention_backward(*arrays, **options):
            assert (gradient == 0).all()


def test_the_slope_of_a_saturated_cap_keeps_its_digits():
    # cap'(x) = sech^2(30), about 4 exp(-60) = 3.5e-26; 1 - tanh^2 would be 0
    q, k, v = np.ones((1, 1, 1, 1)), np.array([[[[30.0], [-30.0]]]]), np.array([[[[1.0], [0.0]]]])
    dq, _, _, dbias = attention_backward(q, k, v, np.ones((1, 1, 1, 1)), softcap=1.0)
    slope = 1 / np.cosh(30.0) ** 2
    assert_close(dq / (slope * 60 * dbias[0, 0, 0, 0]), [[[[1.0]]]])


def test_a_cap_far_below_the_scores_has_slope_zero():
    # sech^2(1000) is below the smallest float64; exp(+2000) on the way would overflow, and warnings are errors
    one = np.ones((1, 1, 1, 1))
    dq, dk, _, _ = attention_backward(one, np.array([[[[1e3], [-1e3]]]]), np.array([[[[1.0], [0.0]]]]), one, softcap=1.0)
    assert (dq.ravel().tolist(), dk.ravel().tolist()) == ([0.0], [0.0, 0.0])


def test_no_keys_and_narrow_inputs():
    q, k = np.ones((1, 2, 3, 4)), np.zeros((1, 1, 0, 4))
    gradients = attention_backward(q, k, k, np.ones((1, 2, 3, 4)))
    assert [gradient.shape for gradient in gradients] == [q.shape, k.shape, k.shape, (1, 2, 3, 0)]
    assert (gradients[0] == 0).all()
    narrow = [np.ones((1, 1, 2, 2), np.float32)] * 4
    assert {gradient.dtype for gradient in attention_backward(*narrow)} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("v", "cotangent", "message"),
    [
        ((1, 1, 2, 5), (1, 2, 3, 4),
         "cotangent.shape=(1, 2, 3, 4): it has the shape (1, 2, 3, 5) of the output; pass the gradient"),
        ((1, 1, 3, 5), (1, 2, 3, 5), "S=2 in k and S=3 in v"),
    ],
)  # fmt: skip
def test_errors(v, cotangent, message):
    with pytest.raises(ShapeError) as caught:
        attention_backward(np.ones((1, 2, 3, 4)), np.ones((1, 1, 2, 4)), np.ones(v), np.ones(cotangent))
    assert str(caught.value).startswith(message)
