"""torch.autograd.gradcheck, torch's own comparison with finite differences, on the gradients derived by hand."""

import numpy as np
import pytest
import torch

from attnspec.reference.additive_attention import additive_attention
from attnspec.reference.additive_attention_backward import additive_attention_backward
from attnspec.reference.attention import attention
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.context_vector import context_vectors, context_vectors_backward
from attnspec.reference.luong_attention import attentional_states, luong_attention
from attnspec.reference.luong_attention_backward import attentional_states_backward, luong_attention_backward
from attnspec.reference.softmax import softmax
from attnspec.reference.softmax_backward import softmax_backward
from tests.reference.attended import weights_for

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
Q, H, K = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 5, 3))
E, MASK = RNG.normal(size=(2, 3, 5)), RNG.random((2, 3, 5)) < 0.7
ADDITIVE = weights_for("additive", 4, 3, 2, RNG)


def checked(forward, backward, arrays):
    """gradcheck of a forward function with the gradients of a backward function, both on lists of arrays."""

    class Reference(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return torch.tensor(forward(*(x.detach().numpy() for x in tensors)))

        @staticmethod
        def backward(ctx, cotangent):
            gradients = backward(*(x.detach().numpy() for x in ctx.saved_tensors), cotangent.numpy())
            return tuple(torch.tensor(gradient) for gradient in gradients)

    return torch.autograd.gradcheck(Reference.apply, [torch.tensor(array, requires_grad=True) for array in arrays])


def on_parameters(function, inputs, names):
    """The function on its inputs and then the parameters one by one, as gradcheck passes them."""

    def flat(*arrays):
        end = inputs + len(names)
        out = function(*arrays[:inputs], dict(zip(names, arrays[inputs:end], strict=True)), *arrays[end:])
        if not isinstance(out, tuple):
            return out
        *gradients, of_names = out
        return [*gradients, *(of_names[name] for name in names)]

    return flat


def test_softmax_and_context():
    assert checked(softmax, lambda x, do: [softmax_backward(x, do)], [E])
    assert checked(
        lambda e, h: context_vectors(e, h, MASK)[0], lambda e, h, do: context_vectors_backward(e, h, do, MASK), [E, H]
    )


def test_softmax_through_attention():
    q, k, v = np.zeros((2, 1, 3, 1)), np.zeros((2, 1, 5, 1)), H[:, None]
    assert checked(
        lambda bias: attention(q, k, v, bias=bias),
        lambda bias, do: attention_backward(q, k, v, do, bias=bias)[3:], [E[:, None]],
    )  # fmt: skip


def test_additive_attention():
    assert checked(
        on_parameters(lambda q, h, p: additive_attention(q, h, p, MASK)[0], 2, ADDITIVE),
        on_parameters(lambda q, h, p, do: additive_attention_backward(q, h, p, do, MASK), 2, ADDITIVE),
        [Q, K, *ADDITIVE.values()],
    )


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_luong_attention(score):
    states = H if score == "dot" else K
    parameters = weights_for(score, 4, states.shape[2], 2, np.random.default_rng(1))
    assert checked(
        on_parameters(lambda q, h, p: luong_attention(q, h, p, score, MASK)[0], 2, parameters),
        on_parameters(lambda q, h, p, do: luong_attention_backward(q, h, p, do, score, MASK), 2, parameters),
        [Q, states, *parameters.values()],
    )


def test_attentional_states():
    parameters = {"weight": RNG.normal(size=(4, 6)), "bias": RNG.normal(size=4)}
    assert checked(
        on_parameters(attentional_states, 2, parameters),
        on_parameters(attentional_states_backward, 2, parameters),
        [RNG.normal(size=(2, 3, 2)), Q, *parameters.values()],
    )


def test_it_refuses_a_wrong_gradient():
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        checked(softmax, lambda x, do: [1.01 * softmax_backward(x, do)], [E])
