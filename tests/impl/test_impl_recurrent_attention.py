"""impl.additive_attention and impl.luong_attention against the reference on the same weights."""

import re

import numpy as np
import pytest
import torch

from attnspec.impl import additive_attention as impl
from attnspec.impl import luong_attention
from attnspec.impl.additive_attention import AdditiveAttention, context_vectors
from attnspec.impl.luong_attention import LuongAttention
from attnspec.reference.additive_attention import additive_attention
from attnspec.reference.additive_attention_backward import additive_attention_backward
from attnspec.reference.context_vector import context_vectors as reference_context_vectors
from attnspec.reference.luong_attention import attentional_states
from attnspec.reference.luong_attention import luong_attention as reference_luong
from attnspec.reference.luong_attention_backward import luong_attention_backward
from tests.authorities.agreement import agrees
from tests.impl.translators_torch import arrays, rounded, tensors
from tests.reference.attended import attended
from tests.reference.drawn import given

SCORES = ("dot", "general", "concat")
MASKS = [
    None, torch.tensor(True), torch.tensor(False), torch.tensor([True, False, True]), torch.ones(2, 1, 3) > 0,
    torch.tensor([[True] * 3, [False] * 3]), torch.tensor([[[True, True, False]], [[False] * 3]]),
]  # fmt: skip


def additive(parameters, N, N2, dtype=torch.float64):
    module = AdditiveAttention(N, N2, parameters["score.weight"].shape[0], bias="bias" in parameters).to(dtype)
    module.load_state_dict(tensors(parameters, dtype))
    return module


def luong(parameters, N, N2, score, dtype=torch.float64):
    """combine, which the attention itself does not use, gets any weights."""
    module = LuongAttention(N, N2, score, parameters.get("score.weight", np.ones(1)).shape[0]).to(dtype)
    module.load_state_dict(tensors(parameters, dtype) | {"combine.weight": torch.ones(N, N2 + N)})
    return module


def gradients(module, queries, states, mask, cotangent, names):
    q, h = (tensors(x).requires_grad_() for x in (queries, states))
    module(q, h, torch.tensor(mask))[0].backward(torch.tensor(cotangent))
    own = dict(module.named_parameters())
    return q.grad.numpy(), h.grad.numpy(), {name: own[name].grad.numpy() for name in names}


@given(attended("additive"), max_examples=40)
def test_additive_attention_and_its_gradients_are_those_of_the_reference(case):
    queries, states, parameters, mask = case
    module = additive(parameters, queries.shape[2], states.shape[2])
    for seen in (mask, None):
        got = module(tensors(queries), tensors(states), None if seen is None else torch.tensor(seen))
        agrees(arrays(got), additive_attention, queries, states, parameters, seen)
    cotangent = np.random.default_rng(0).normal(size=(*mask.shape[:2], states.shape[2]))
    got = gradients(module, queries, states, mask, cotangent, parameters)
    agrees(got, additive_attention_backward, queries, states, parameters, cotangent, mask)


@pytest.mark.parametrize("score", SCORES)
def test_luong_attention_and_its_gradients_are_those_of_the_reference(score):
    @given(attended(score), max_examples=25)
    def check(case):
        queries, states, parameters, mask = case
        module = luong(parameters, queries.shape[2], states.shape[2], score)
        for seen in (mask, None):
            got = module(tensors(queries), tensors(states), None if seen is None else torch.tensor(seen))
            agrees(arrays(got), reference_luong, queries, states, parameters, score, seen)
        cotangent = np.random.default_rng(0).normal(size=(*mask.shape[:2], states.shape[2]))
        got = gradients(module, queries, states, mask, cotangent, parameters)
        agrees(got, luong_attention_backward, queries, states, parameters, cotangent, score, mask)

    check()


@pytest.mark.parametrize("score", [*SCORES, "additive"])
def test_float32_is_within_the_bound_of_float32(score):
    @given(attended(score), max_examples=15, derandomize=True)
    def check(case):
        queries, states, parameters, mask = rounded(case)
        N, N2 = queries.shape[2], states.shape[2]
        more = () if score == "additive" else (score,)
        module = (
            additive(parameters, N, N2, torch.float32)
            if score == "additive"
            else luong(parameters, N, N2, score, torch.float32)
        )
        got = module(tensors(queries, torch.float32), tensors(states, torch.float32), torch.tensor(mask))
        want = additive_attention if score == "additive" else reference_luong
        agrees(arrays(got), want, queries, states, parameters, *more, mask, unit="float32")

    check()  # fmt: skip


def test_attentional_states_are_those_of_the_reference():
    rng = np.random.default_rng(0)
    contexts, queries, weight = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 9)) / 3
    module = LuongAttention(5, 4).double()
    module.combine.weight.data = torch.tensor(weight)
    agrees(
        arrays(module.join(tensors(contexts), tensors(queries))), attentional_states, contexts, queries, {"weight": weight}
    )


@pytest.mark.parametrize("mask", MASKS)
def test_masks_of_every_shape(mask):
    rng = np.random.default_rng(0)
    energies, states = rng.normal(size=(2, 2, 3)), rng.normal(size=(2, 3, 4))
    e, h = (tensors(x).requires_grad_() for x in (energies, states))
    context, weights = context_vectors(e, h, mask)
    own = None if mask is None else np.broadcast_to(mask.numpy(), (2, 2, 3))
    agrees(arrays((context, weights)), reference_context_vectors, energies, states, own)
    context.sum().backward()
    assert torch.isfinite(e.grad).all()
    assert torch.isfinite(h.grad).all()
    if own is not None:
        assert (weights.detach().numpy()[~own] == 0).all()
        assert (e.grad.numpy()[~own] == 0).all()


def test_no_state_and_no_step():
    context, weights = context_vectors(torch.zeros(2, 3, 0), torch.zeros(2, 0, 4), torch.zeros(2, 1, 0) > 0)
    assert torch.equal(context, torch.zeros(2, 3, 4))
    assert weights.shape == (2, 3, 0)
    assert AdditiveAttention(3, 4, 2)(torch.zeros(2, 0, 3), torch.zeros(2, 5, 4))[1].shape == (2, 0, 5)


def test_parameters_have_the_names_of_the_reference():
    hidden = {"query.weight": (2, 3), "key.weight": (2, 4), "score.weight": (2,)}
    combine = {"combine.weight": (3, 7)}

    def shapes(module):
        return {name: tuple(array.shape) for name, array in module.state_dict().items()}

    assert shapes(AdditiveAttention(3, 4, 2)) == hidden | {"bias": (2,)}
    assert shapes(AdditiveAttention(3, 4, 2, bias=False)) == hidden
    assert shapes(LuongAttention(3, 4, "general")) == {"weight": (3, 4)} | combine
    assert shapes(LuongAttention(3, 4, "concat", 2)) == hidden | combine
    assert shapes(LuongAttention(3, 3, "dot")) == {"combine.weight": (3, 6)}


def raises(message, call, *args, **kwargs):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(*args, **kwargs)


def test_errors():
    e, h = torch.zeros(2, 3, 5), torch.zeros(2, 5, 4)
    raises("energies=[2, 3, 5], states=[2, 4, 4]: energies are [B,T,S] and states [B,S,N];", context_vectors, e, h[:, 1:])
    raises("energies=[3, 5], states=[2, 5, 4]: energies are", context_vectors, e[0], h)
    raises("mask=torch.float32: a mask is boolean", context_vectors, e, h, torch.ones(5))
    for shape in ((4,), (3, 1, 1), (1, 2, 3, 5)):
        raises(f"mask={list(shape)}, energies=[2, 3, 5]: a mask broadcasts", context_vectors, e, h, torch.ones(shape) > 0)
    raises("N=3, N2=0, A=2: sizes are 1 or more", AdditiveAttention, 3, 0, 2)
    raises("N=3, N2=4, A=0: sizes are 1 or more", LuongAttention, 3, 4, A=0)
    raises("score=cosine: a score is one of dot, general, concat;", LuongAttention, 3, 4, "cosine")
    raises("N=3, N2=4: dot needs states as wide as queries;", LuongAttention, 3, 4, "dot")


# Defects: each must break the agreement with the reference that holds without it.
def scaled(queries, keys, v):
    return torch.tanh(queries[:, :, None] + keys[:, None]) @ v / len(v) ** 0.5


def without_bias(module, states):
    return module.key(states)


def without_weight(module, states):
    return states


def mask_after_softmax(energies, states, mask=None):
    weights = torch.softmax(energies, -1).masked_fill(~mask, 0.0)
    return weights @ states, weights


DEFECTS = {
    "a scale in additive attention": ("additive", impl, "additive_energies", scaled),
    "a mask after the softmax": ("additive", impl, "context_vectors", mask_after_softmax),
    "no bias": ("additive", AdditiveAttention, "keys", without_bias),
    "a scale in concat": ("concat", luong_attention, "additive_energies", scaled),
    "dot for general": ("general", LuongAttention, "keys", without_weight),
    "a mask after the softmax, general": ("general", luong_attention, "context_vectors", mask_after_softmax),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_seen(defect, monkeypatch):
    kind, place, name, bad = DEFECTS[defect]
    rng = np.random.default_rng(0)
    queries, states, mask = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4)), rng.random((2, 3, 5)) < 0.7
    shapes = {"query.weight": (2, 4), "key.weight": (2, 4), "score.weight": (2,)}
    shapes = {"weight": (4, 4)} if kind == "general" else shapes | ({"bias": (2,)} if kind == "additive" else {})
    p = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    module = additive(p, 4, 4) if kind == "additive" else luong(p, 4, 4, kind)
    wanted = (additive_attention, queries, states, p) if kind == "additive" else (reference_luong, queries, states, p, kind)

    def check():
        agrees(arrays(module(tensors(queries), tensors(states), torch.tensor(mask))), *wanted, mask)

    check()
    monkeypatch.setattr(place, name, bad)
    with pytest.raises(AssertionError, match="attention"):
        check()
