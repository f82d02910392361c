"""Each planted defect is wrong somewhere and right elsewhere, beside a plain attention that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnspec.properties.mutant import UnknownMutantError
from attnspec.properties.mutants import FAMILIES, describe, ids, load
from attnspec.properties.mutants.plain import attention
from attnspec.properties.mutants.registry import CANONICAL
from tests.properties.mutant_examples import EXAMPLES, Example, x

Attention = Callable[..., Any]
WHOLE = ("rank", "half", "storage", "random", "output", "sinks")  # families of which each mutant has its examples


@contextmanager
def surroundings(example: Example) -> Iterator[None]:
    """The default dtype, number of threads, state of the global generator and grad mode of an example."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(getattr(torch, example.default))
    torch.set_num_threads(example.threads)
    torch.manual_seed(17)
    try:
        with torch.set_grad_enabled(example.grad_mode):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def observed(function: Attention, example: Example) -> list[Any]:
    """All that a call shows: what is returned, gradients, the inputs after it, the global generator; or an exception."""
    mask = None
    for earlier in example.before:
        arguments = earlier.arguments()
        mask = arguments.get("mask")
        call(function, earlier, arguments)
    arguments = example.arguments()
    if example.same_mask and mask is not None:
        mask.copy_(arguments["mask"])  # the object of the earlier call with other content
        arguments["mask"] = mask
    return call(function, example, arguments)


def call(function: Attention, example: Example, arguments: dict[str, Any]) -> list[Any]:
    inputs = [arguments[name] for name in "qkv"]
    with surroundings(example):
        if example.gradient:
            for array in inputs:
                array.requires_grad_()
        try:
            result = function(**arguments)
        except (RuntimeError, ValueError, IndexError) as error:
            return [type(error).__name__]
        returned = list(result) if isinstance(result, tuple) else [result]
        if example.gradient:
            cotangent = torch.arange(1.0, returned[0].numel() + 1).reshape(returned[0].shape).to(returned[0].dtype)
            returned += torch.autograd.grad(returned[0], inputs, cotangent, allow_unused=True)
        after = [*inputs, torch.get_rng_state()]
        return [None if array is None else (array.dtype, array.detach().double().numpy()) for array in (*returned, *after)]


def equal(a: Any, b: Any, precision: Any = np.float64) -> bool:
    """Whether two observations are the same; at `precision` float32, whether rounding alone could tell them apart."""
    if not isinstance(a, tuple) or not isinstance(b, tuple):
        return a is b or (isinstance(a, str) and a == b)
    same = np.array_equal(a[1].astype(precision), b[1].astype(precision), equal_nan=True)
    return bool(a[0] == b[0] and same)


def test_every_mutant_of_these_families_has_its_examples() -> None:
    assert set(EXAMPLES) <= set(ids())
    assert [m for m in ids() if m.partition(".")[0] in WHOLE and m not in EXAMPLES] == []


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("mutant", EXAMPLES)
def test_the_mutant_is_wrong_where_it_is_said_to_be(mutant: str) -> None:
    wrong, _ = EXAMPLES[mutant]
    got, want = observed(load(mutant), wrong), observed(attention, wrong)
    assert len(got) != len(want) or not all(equal(a, b, np.float32) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("mutant", EXAMPLES)
def test_the_mutant_is_right_elsewhere(mutant: str) -> None:
    """Bit for bit, so that nothing but the defect sets it apart."""
    _, right = EXAMPLES[mutant]
    got, want = observed(load(mutant), right), observed(attention, right)
    assert not isinstance(want[0], str)
    assert len(got) == len(want)
    assert all(equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("mutant", ids())
def test_the_mutant_takes_what_every_mutant_takes(mutant: str) -> None:
    function: Any = load(mutant)
    record = describe(mutant)
    assert record.id == mutant
    assert record.imitates
    assert mutant.partition(".")[0] in FAMILIES
    shown: Any = function.__call__ if type(function).__name__ != "function" else function
    assert [p for p in shown.__signature__.parameters if p != "self"] == list(CANONICAL.parameters)


def test_an_unknown_mutant_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownMutantError, match=r"the nearest is 'sinks\.ignored'"):
        describe("sinks.ignore")


# The plain attention itself


def plain(example: Example) -> tuple[Tensor, ...]:
    result = attention(**example.arguments())
    return result if isinstance(result, tuple) else (result,)


def test_a_sink_is_one_more_key_with_value_zero() -> None:
    example = x(sinks=True, need_weights=True, return_lse=True, mask="TS", empty=(1,))
    arguments = example.arguments()
    out, weights, lse = plain(example)
    k, v = (torch.cat([arguments[name], torch.zeros_like(arguments[name][:, :, :1])], dim=2) for name in "kv")
    bias = torch.zeros(example.H, example.T, example.S + 1, dtype=torch.float64)
    bias[..., -1] = arguments["sinks"][:, None]
    mask = torch.cat([arguments["mask"], torch.ones(example.T, 1, dtype=torch.bool)], dim=-1)
    wide = attention(arguments["q"], k, v, mask=mask, bias=bias, need_weights=True, return_lse=True)
    for got, want in zip((out, weights, lse), (wide[0], wide[1][..., :-1], wide[2]), strict=True):
        assert torch.equal(got.float(), want.float())
    assert torch.equal(out[:, :, 1], torch.zeros_like(out[:, :, 1]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_what_is_returned_beside_the_output_belongs_to_it(dtype: str) -> None:
    example = x(dtype=dtype, need_weights=True, return_lse=True, mask="TS", empty=(2,), softcap=2.0)
    out, weights, lse = plain(example)
    alone = plain(x(dtype=dtype, mask="TS", empty=(2,), softcap=2.0))
    assert torch.equal(out, alone[0])
    assert weights.dtype == out.dtype
    assert weights.shape == (2, 4, 5, 6)
    assert lse.shape == (2, 4, 5)
    assert torch.isneginf(lse[:, :, 2]).all()
    assert not weights.masked_select(~example.arguments()["mask"]).any()


def test_dropout_keeps_the_declared_part_and_the_seed_decides() -> None:
    zero = {"change": lambda a: (a["k"].zero_(), a["v"].fill_(1.0)), "T": 100, "S": 100}
    first, again, other = (plain(x(dropout=0.25, seed=s, need_weights=True, **zero)) for s in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    n = 2 * 4 * 100 * 100
    kept = float((first[0][..., 0] * 0.75 * 100).sum())
    assert abs(kept - 0.75 * n) < 6 * (n * 0.75 * 0.25) ** 0.5  # six standard deviations of a binomial
    assert torch.equal(first[1], plain(x(need_weights=True, **zero))[1])


def test_dropping_everything_gives_zeros() -> None:
    assert not plain(x(dropout=1.0))[0].any()


@pytest.mark.parametrize("sizes", [{"B": 0}, {"T": 0}, {"S": 0}, {"D": 0}, {"E": 0}])
def test_an_axis_may_have_length_zero(sizes: dict[str, int]) -> None:
    example = x(sinks=True, need_weights=True, return_lse=True, **sizes)
    out, weights, lse = plain(example)
    assert out.shape == (example.B, example.H, example.T, example.E)
    assert weights.shape == (example.B, example.H, example.T, example.S)
    assert lse.shape == out.shape[:-1]
    assert not (example.S == 0 and out.any())
