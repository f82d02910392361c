"""The gradients of multi-head attention: central differences in every entry, torch's own gradcheck, and their laws."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.multi_head_backward import multi_head_backward, project_heads_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import UNIT, assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import attention_parameters

torch.set_num_threads(1)
STEP = UNIT ** (1 / 3)  # rounding u/h and truncation h^2 are then both u^(2/3), which is u / step
M, D = 4, 2


@st.composite
def cases(draw):
    """x, memory, parameters, cotangent, and the options, rotary positions among them."""
    G, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    B, T, S = (draw(st.integers(1, 3)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotary = draw(st.sampled_from([None, "half", "interleaved"]))
    S = S if rotary is None else T  # the positions of x are those of the memory
    options = {"heads": G * group, "kv_heads": draw(st.sampled_from([G] if group > 1 else [G, None]))}
    options |= {"softcap": draw(st.sampled_from([None, 1.5])), "scale": draw(st.sampled_from([None, 0.3]))}
    options |= {"causal": draw(st.sampled_from([None, "bottom-right"])), "mask": rng.random((B, 1, T, S)) < 0.7}
    if rotary is not None:
        options["rotary"] = {"positions": rng.integers(9, size=(B, T)), "pairs": rotary, "base": 10.0}
    p = attention_parameters(rng, M, G * group, G, D, draw(st.booleans()))
    return rng.normal(size=(B, T, M)), rng.normal(size=(B, S, M)), p, rng.normal(size=(B, T, M)), options


@given(cases(), max_examples=30)
def test_agrees_with_central_differences(case):
    x, memory, p, cotangent, options = case
    dx, dmemory, gradients = multi_head_backward(x, memory, p, cotangent, **options)
    assert gradients.keys() == p.keys()
    named = {"x": dx, "memory": dmemory, **gradients}
    inputs = {"x": x, "memory": memory, **p}

    def loss(changed):
        x, memory = changed["x"], changed["memory"]
        weights = {name: array for name, array in changed.items() if name in p}
        return np.sum(multi_head_attention(x, memory, weights, **options) * cotangent)

    for name, gradient in named.items():
        want = np.empty_like(gradient)
        for index in np.ndindex(want.shape):
            ahead, behind = inputs[name].copy(), inputs[name].copy()
            ahead[index] += STEP
            behind[index] -= STEP
            want[index] = (loss(inputs | {name: ahead}) - loss(inputs | {name: behind})) / (2 * STEP)
        assert_close(gradient, want, terms=100 / STEP)


class Handwritten(torch.autograd.Function):
    """The reference as an operation of torch, with the handwritten gradients."""

    @staticmethod
    def forward(context, options, names, x, memory, *weights):
        arrays = [one.numpy() for one in (x, memory, *weights)]
        context.saved = arrays, names, options
        return torch.tensor(multi_head_attention(*arrays[:2], dict(zip(names, arrays[2:], strict=True)), **options))

    @staticmethod
    def backward(context, cotangent):
        (x, memory, *weights), names, options = context.saved
        p = dict(zip(names, weights, strict=True))
        dx, dmemory, gradients = multi_head_backward(x, memory, p, cotangent.numpy(), **options)
        return None, None, *(torch.tensor(one) for one in (dx, dmemory, *(gradients[name] for name in names)))


@given(cases(), max_examples=20)
def test_passes_the_gradcheck_of_torch(case):
    x, memory, p, _, options = case
    leaves = [torch.tensor(one, requires_grad=True) for one in (x, memory, *p.values())]
    assert torch.autograd.gradcheck(lambda *inputs: Handwritten.apply(options, list(p), *inputs), leaves)


def test_the_gradcheck_can_fail(monkeypatch):
    rng = np.random.default_rng(0)
    x, p = rng.normal(size=(1, 2, M)), attention_parameters(rng, M, 2, 2, D, True)
    leaves = [torch.tensor(one, requires_grad=True) for one in (x, x, *p.values())]
    true = multi_head_backward

    def swapped(*arguments, **options):
        dx, dmemory, gradients = true(*arguments, **options)
        return dx, dmemory, gradients | {"q.weight": gradients["q.weight"][::-1].copy()}

    monkeypatch.setitem(globals(), "multi_head_backward", swapped)
    with pytest.raises(torch.autograd.gradcheck.GradcheckError if hasattr(torch.autograd.gradcheck, "GradcheckError")
                       else RuntimeError, match="Jacobian mismatch"):  # fmt: skip
        torch.autograd.gradcheck(lambda *inputs: Handwritten.apply({"heads": 2}, list(p), *inputs), leaves)


@given(cases())
def test_hidden_tokens_of_the_memory_have_gradients_of_zero(case):
    x, memory, p, cotangent, options = case
    options = options | {"mask": np.arange(memory.shape[1]) > 0}
    _, dmemory, _ = multi_head_backward(x, memory, p, cotangent, **options)
    assert (dmemory[:, 0] == 0).all()
    nothing = options | {"mask": np.zeros(memory.shape[1], bool)}
    dx, dmemory, gradients = multi_head_backward(x, memory, p, cotangent, **nothing)
    for name, gradient in {"x": dx, "memory": dmemory, **gradients}.items():
        assert name == "o.bias" or (gradient == 0).all()


def test_rotary_positions_are_turned_back():
    # scores depend on distances, so that shifting all positions changes neither output nor gradients
    rng = np.random.default_rng(1)
    x, p = rng.normal(size=(1, 3, M)), attention_parameters(rng, M, 2, 2, D, False)
    here, there = ({"positions": np.arange(3) + shift, "base": 10.0} for shift in (0, 5))
    cotangent = rng.normal(size=(1, 3, M))
    one, other = (multi_head_backward(x, x, p, cotangent, 2, rotary=rotary) for rotary in (here, there))
    assert_close(one[0], other[0], terms=100)
    assert_close(one[1], other[1], terms=100)
    assert np.max(np.abs(one[0] - multi_head_backward(x, x, p, cotangent, 2)[0])) > 0


def test_known_answer():
    # one head of width one and weights of 1: values 2 and 0 have weights 1/2, so da = 1 and dv = (1/2, 1/2)
    p = {f"{name}.weight": np.ones((1, 1)) for name in "qkvo"}
    x, memory = np.zeros((1, 1, 1)), np.array([[[2.0], [0.0]]])
    dx, dmemory, gradients = multi_head_backward(x, memory, p, np.ones((1, 1, 1)), 1)
    assert dx.tolist() == [[[1.0]]]  # dq = sum_s dscore k = (1/2)(2 - 1) 2
    assert dmemory.tolist() == [[[0.5], [0.5]]]  # dk = dscore q = 0
    assert {name: array.item() for name, array in gradients.items()} == {
        "q.weight": 0.0, "k.weight": 0.0, "v.weight": 1.0, "o.weight": 1.0,
    }  # fmt: skip


def test_errors():
    p = {f"{name}.weight": np.ones((2, 2)) for name in "qkvo"}
    x = np.ones((1, 3, 2))
    with pytest.raises(
        ShapeError, match=r"cotangent.shape=\(1, 2, 2\): it has the shape \(1, 3, 2\) of the output; pass the"
    ):
        multi_head_backward(x, x, p, np.ones((1, 2, 2)), 1)
    with pytest.raises(ValueError, match=r"missing \['o.weight'\]"):
        multi_head_backward(x, x, {n: a for n, a in p.items() if n != "o.weight"}, x, 1)
    with pytest.raises(ShapeError, match=r"cotangent.shape="):
        project_heads_backward(x, p, "q", np.ones((1, 1, 2, 2)))
