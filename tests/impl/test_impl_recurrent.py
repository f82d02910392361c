"""impl.recurrent against reference.recurrent on the same weights, and each promise of its docstrings."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from attnspec.impl import recurrent as impl
from attnspec.impl.recurrent import CELLS, Recurrent, real_steps
from attnspec.reference.recurrent import recurrent
from attnspec.reference.recurrent_backward import recurrent_backward
from attnspec.reference.reversed_source import reverse_source
from tests.authorities.agreement import agrees
from tests.authorities.recurrent import with_cotangents
from tests.impl.translators_torch import arrays, rounded, stack_of, tensors
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import runs, stack_parameters, state_of


def outputs(run, dtype=torch.float64, stack=None):
    stack = stack_of(run["parameters"], run["cell"], dtype) if stack is None else stack
    lengths = None if run["lengths"] is None else torch.tensor(run["lengths"])
    state = None if run["state"] is None else tensors(run["state"], dtype)
    return stack(tensors(run["x"], dtype), lengths, state)


def gradients(run, dtype=torch.float64):
    stack, x = stack_of(run["parameters"], run["cell"], dtype), tensors(run["x"], dtype).requires_grad_()
    state = tuple(array.requires_grad_() for array in tensors(run["state"], dtype))
    lengths = None if run["lengths"] is None else torch.tensor(run["lengths"])
    out, final = stack(x, lengths, state)
    torch.autograd.backward((out, *final), tensors((run["cotangent"], *run["state_cotangent"]), dtype))
    own = {name: arrays(parameter.grad) for name, parameter in stack.named_parameters()}
    return arrays(x.grad), tuple(arrays(array.grad) for array in state), own


def flat(structure):
    """All arrays of a structure, in a list."""
    if isinstance(structure, dict):
        structure = tuple(structure.values())
    return [array for part in structure for array in flat(part)] if isinstance(structure, tuple) else [arrays(structure)]


def a_run(cell="lstm", seed=0, lengths=(3, 0, 5, 1), directions=2, biased=True):
    rng = np.random.default_rng(seed)
    parameters = stack_parameters(rng, cell, 3, 2, layers=2, directions=directions, biased=biased)
    return {
        "x": rng.normal(size=(4, 5, 3)), "parameters": parameters, "cell": cell,
        "lengths": None if lengths is None else np.array(lengths), "state": state_of(rng, cell, 2 * directions, 4, 2),
    }  # fmt: skip


@given(runs(), max_examples=80)
def test_outputs_and_final_state_are_those_of_the_reference(run):
    agrees(arrays(outputs(run)), recurrent, **run)


@given(runs(), max_examples=40, derandomize=True)
def test_float32_is_within_the_bound_of_float32(run):
    agrees(arrays(outputs(rounded(run), torch.float32)), recurrent, **rounded(run), unit="float32")


@given(runs(sizes=(1, 2, 3, 4)), max_examples=25)
def test_gradients_are_those_of_the_reference(run):
    run = with_cotangents(run, 1)
    agrees(gradients(run), recurrent_backward, **run)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lengths", [None, (3, 0, 5, 1), (0, 0, 0, 0), (5, 5, 5, 5), (2, 2, 1, 2)])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("biased", [True, False])
def test_every_cell_with_every_kind_of_length(cell, lengths, directions, biased):
    run = a_run(cell, lengths=lengths, directions=directions, biased=biased)
    agrees(arrays(outputs(run)), recurrent, **run)
    if biased:
        run = with_cotangents(run, 1)
        agrees(gradients(run), recurrent_backward, **run)


@pytest.mark.parametrize("cell", CELLS)
def test_float32_gradients(cell):
    run = rounded(with_cotangents(a_run(cell), 1))
    agrees(gradients(run, torch.float32), recurrent_backward, **run, unit="float32")


@pytest.mark.parametrize("cell", CELLS)
def test_padding_may_be_anything(cell):
    run = with_cotangents(a_run(cell), 1)
    poisoned = run | {"x": run["x"].copy()}
    poisoned["x"][np.arange(5) >= run["lengths"][:, None]] = np.nan
    for call in (outputs, gradients):
        before, after = flat(call(run)), flat(call(poisoned))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
            assert np.isfinite(one).all()


@pytest.mark.parametrize("cell", CELLS)
def test_in_chunks_and_step_by_step_it_is_the_same(cell):
    run = a_run(cell, lengths=None, directions=1)
    stack = stack_of(run["parameters"], cell)
    for cuts in ([1, 1, 1, 1, 1], [2, 3], [0, 4, 0, 1]):
        state, outs = tensors(run["state"]), []
        for x in tensors(run["x"]).split(cuts, dim=1):
            out, state = stack(x, None, state)
            outs.append(out)
        agrees(arrays((torch.cat(outs, dim=1), state)), recurrent, **run)


@pytest.mark.parametrize("cell", CELLS)
def test_sizes_of_zero(cell):
    stack = Recurrent(3, 2, 2, cell, bidirectional=True)
    out, state = stack(torch.zeros(4, 0, 3))
    assert (out.shape, state[0].shape) == ((4, 0, 4), (4, 4, 2))
    out, state = stack(torch.zeros(4, 0, 3), torch.zeros(4, dtype=torch.long), state)
    assert (out.shape, state[0].shape) == ((4, 0, 4), (4, 4, 2))
    out, state = stack(torch.zeros(0, 5, 3), torch.zeros(0, dtype=torch.long))
    assert (out.shape, state[0].shape) == ((0, 5, 4), (4, 0, 2))


def test_names_and_order_of_parameters_are_those_of_the_glossary():
    stack = Recurrent(3, 2, 2, "gru", bidirectional=True)
    kinds = ("input.weight", "input.bias", "hidden.weight", "hidden.bias")
    want = [f"{layer}.{reverse}{kind}" for layer in (0, 1) for reverse in ("", "reverse.") for kind in kinds]
    assert list(stack.state_dict()) == want
    assert stack.state_dict()["1.reverse.input.weight"].shape == (6, 4)
    assert max(parameter.abs().max() for parameter in stack.parameters()) <= 2**-0.5
    assert list(Recurrent(3, 2, bias=False).state_dict()) == ["0.input.weight", "0.hidden.weight"]


def test_a_copy_has_weights_of_its_own():
    run = a_run()
    stack = stack_of(run["parameters"], "lstm")
    copied = copy.deepcopy(stack)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    agrees(arrays(outputs(run, stack=copied)), recurrent, **run)
    assert not arrays(outputs(run | {"state": None}, stack=stack))[0].any()


def test_it_is_the_fused_kernel_that_runs():
    stack = Recurrent(3, 2, 2, "gru", bidirectional=True)
    module = nn.GRU(3, 2, 2, bidirectional=True, batch_first=True)
    module.load_state_dict(dict(zip(module.state_dict(), (w for run in stack.runs for w in run.flat()), strict=True)))
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    for one, other in zip((module(x)[0], module(x)[1]), (stack(x)[0], stack(x)[1][0]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("lengths", [None, np.array([3, 0, 5, 1])])
def test_reversing_is_that_of_the_reference_and_undoes_itself(lengths):
    ids = np.arange(20).reshape(4, 5)
    for source in (ids, ids[..., None] + np.zeros((1, 1, 2))):
        own = None if lengths is None else torch.tensor(lengths)
        got = impl.reverse_source(torch.tensor(source), own)
        np.testing.assert_array_equal(got, reverse_source(source, lengths))
        np.testing.assert_array_equal(impl.reverse_source(got, own), source)


def raises(message, call, *args, **kwargs):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(*args, **kwargs)


def test_errors():
    raises("M=0, N=2, layers=1: sizes are 1 or more", Recurrent, 0, 2)
    raises("cell=elman: a cell is one of rnn, rnn_relu, lstm, gru, gru_reset_before;", Recurrent, 3, 2, cell="elman")
    stack, x, h = Recurrent(3, 2), torch.zeros(4, 5, 3), torch.zeros(1, 4, 2)
    raises("x=[4, 5], M=3: x is [B,T,M]", stack, x[..., 0])
    raises("x=[4, 5, 2], M=3: x is [B,T,M]", stack, x[..., :2])
    for lengths in ([1, 2, 3], [1, 2, 3, 6], [1, 2, 3, -1], [1.0, 2, 3, 4], [True] * 4):
        with pytest.raises(ValueError, match=r"lengths are integers \[B\] within 0..T"):
            stack(x, torch.tensor(lengths))
    raises("lengths=tensor([2]), B=1, T=1: lengths are integers", real_steps, torch.tensor([2]), 1, 1)
    for state in ((h,), (h, h, h), (h, h[:, :3]), (h[0], h[0])):
        with pytest.raises(ValueError, match=r"cell=lstm, shape=\[1, 4, 2\]: a state is \(h, c\) for lstm and \(h,\) else"):
            stack(x, None, state)


# Defects in what the kernels are given and in the cell that is written out: each must break the agreement with the reference.
def not_reversed(source, lengths=None):
    return source


def padding_reversed_too(source, lengths=None):
    return source.flip(1)


def one_step_too_many(lengths, B, T):
    return torch.arange(T) <= lengths[:, None]


def without_bias(x, weight, bias=None):
    return x @ weight.mT


def one_bias_twice(run):
    return [run.input.weight, run.hidden.weight, run.input.bias, run.input.bias]


DEFECTS = {
    "the kernel of the other activation": ("rnn", lambda m: m.setitem(impl.KERNELS, "rnn", torch.rnn_relu)),
    "no reverse": ("gru_reset_before", lambda m: m.setattr(impl, "reverse_source", not_reversed)),
    "padding reversed too": ("gru_reset_before", lambda m: m.setattr(impl, "reverse_source", padding_reversed_too)),
    "one step too many": ("gru", lambda m: m.setattr(impl, "real_steps", one_step_too_many)),
    "one bias twice": ("lstm", lambda m: m.setattr(impl.Run, "flat", one_bias_twice)),
    "biases left out": ("gru_reset_before", lambda m: m.setattr(impl.functional, "linear", without_bias)),
    "reset after": ("gru_reset_before", lambda m: m.setitem(impl.KERNELS, "gru_reset_before", torch.gru)),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_seen(defect, monkeypatch):
    cell, plant = DEFECTS[defect]
    run = a_run(cell)
    agrees(arrays(outputs(run)), recurrent, **run)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="recurrent"):
        agrees(arrays(outputs(run)), recurrent, **run)
