"""SciPy and torch on softmax, its normaliser and its gradient."""

import numpy as np
import scipy.special
import torch
from hypothesis import strategies as st

from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.shapes import FloatArray
from attnspec.reference.softmax import log_sum_exp, softmax
from attnspec.reference.softmax_backward import softmax_backward, softmax_jacobian
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)


def rows(draw: Draw) -> tuple[FloatArray, int]:
    """Scores of any range with entries of -inf, at least one finite in each row, and the axis of the rows."""
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = draw(st.sampled_from([0.0, 0.1, 1.0, 30.0, 1000.0])) * rng.normal(size=shape)  # exp ends at 709 and -745
    axis = draw(st.integers(-3, 2))
    hidden = rng.random(shape) < draw(st.sampled_from([0.0, 0.5]))
    return np.where(hidden & ~hidden.all(axis=axis, keepdims=True), -np.inf, x), axis


@authority("I18", "scipy.special.softmax", of=(softmax,))
def scipy_softmax(draw: Draw) -> None:
    """Weights of scores up to thousands apart, with hidden entries, along any axis."""
    x, axis = rows(draw)
    agrees(scipy.special.softmax(x, axis=axis), softmax, x, axis)


@authority("I18", "scipy.special.logsumexp", of=(log_sum_exp,))
def scipy_logsumexp(draw: Draw) -> None:
    """The normaliser of the same scores."""
    x, axis = rows(draw)
    agrees(scipy.special.logsumexp(x, axis=axis), log_sum_exp, x, axis)


@authority("I18", "torch.softmax", of=(softmax,))
def torch_softmax(draw: Draw) -> None:
    """Weights in float64 and in float32, with hidden entries, along any axis."""
    x, axis = rows(draw)
    unit = draw(st.sampled_from(["float64", "float32"]))
    if unit == "float32":  # weights below 1e-38 would vanish
        x = np.where(x == -np.inf, x, np.clip(x, -40, 40)).astype(np.float32)
    agrees(torch.softmax(torch.tensor(x), axis).numpy(), softmax, x, axis, unit=unit)


@authority("I18", "torch.logsumexp", of=(log_sum_exp,))
def torch_logsumexp(draw: Draw) -> None:
    """The normaliser of the same scores; of a row that is hidden as a whole it is -inf."""
    x, axis = rows(draw)
    x = np.where(draw(st.booleans()), x, -np.inf)
    agrees(torch.logsumexp(torch.tensor(x), axis).numpy(), log_sum_exp, x, axis)


def log_softmax(x: FloatArray) -> FloatArray:
    """x - lse, from the reference."""
    return x - log_sum_exp(x)[..., None]


@authority("I18", "torch.log_softmax", of=(log_sum_exp,))
def torch_log_softmax(draw: Draw) -> None:
    """Logarithms of the weights are what the normaliser leaves of the scores."""
    x, _ = rows(draw)
    agrees(torch.log_softmax(torch.tensor(x), -1).numpy(), log_softmax, x)


@authority("I18", "torch.autograd of torch.softmax", of=(softmax_backward,))
def torch_softmax_backward(draw: Draw) -> None:
    """The gradient of the scores, with hidden entries, along any axis."""
    x, axis = rows(draw)
    cotangent = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=x.shape)
    leaf = torch.tensor(x, requires_grad=True)
    torch.softmax(leaf, axis).backward(torch.tensor(cotangent))
    agrees(leaf.grad.numpy(), softmax_backward, x, cotangent, axis)


def jacobian_of_scores(x: FloatArray) -> FloatArray:
    """The Jacobian at the weights of the scores x."""
    return softmax_jacobian(softmax(x))


@authority("I20", "torch.autograd.functional.jacobian", of=(softmax_jacobian, softmax))
def torch_jacobian(draw: Draw) -> None:
    """The whole Jacobian of torch.softmax, flat where one score is far above the others."""
    x = rows(draw)[0].reshape(-1)
    got = torch.autograd.functional.jacobian(lambda scores: torch.softmax(scores, 0), torch.tensor(x))
    agrees(got.numpy(), jacobian_of_scores, x)


@authority("I18", "torch.autograd of scaled_dot_product_attention", of=(attention_backward,))
def torch_attention_backward(draw: Draw) -> None:
    """With q and k of zero and the scores as bias, attention is softmax: the gradients of values and scores."""
    B, T, S, E = (draw(st.integers(1, 4)) for _ in range(4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, k, v = np.zeros((B, 1, T, 2)), np.zeros((B, 1, S, 2)), rng.normal(size=(B, 1, S, E))
    scores, cotangent = rng.normal(size=(B, 1, T, S)), rng.normal(size=(B, 1, T, E))
    value, bias = torch.tensor(v, requires_grad=True), torch.tensor(scores, requires_grad=True)
    out = torch.nn.functional.scaled_dot_product_attention(torch.tensor(q), torch.tensor(k), value, attn_mask=bias)
    out.backward(torch.tensor(cotangent))

    def gradients(bias: FloatArray, v: FloatArray, cotangent: FloatArray) -> tuple[FloatArray, FloatArray]:
        _, _, dv, dbias = attention_backward(q, k, v, cotangent, bias=bias)
        return dv, dbias

    agrees((value.grad.numpy(), bias.grad.numpy()), gradients, scores, v, cotangent)
