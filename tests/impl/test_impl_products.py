"""impl.products: oneDNN's product is the product, with its gradients, and PyTorch's own wherever it does not apply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from attnspec.impl import products
from attnspec.impl.products import linear
from attnspec.reference.linear import linear as reference_linear
from tests.authorities.agreement import agrees
from tests.impl.impl_models import always

SIZES = st.integers(1, 40)


def whole(*shape: int, seed: int = 0, **options: Any) -> torch.Tensor:
    """Whole numbers, of which float32 has all sums exactly."""
    return torch.tensor(np.random.default_rng(seed).integers(-8, 9, shape), dtype=torch.float32, **options)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each product of oneDNN."""
    made: list[int] = []
    product = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *a: made.append(1) or product(*a))
    return made


@always(SIZES, SIZES, SIZES, st.booleans(), st.integers(0, 99), max_examples=40)
def test_it_is_the_reference(rows: int, M: int, V: int, biased: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((rows, M), (V, M), V))
    got = linear(*(torch.tensor(one) for one in (x, weight)), torch.tensor(bias) if biased else None)
    parameters = {"weight": weight.astype(float)} | ({"bias": bias.astype(float)} if biased else {})
    agrees(got.numpy(), reference_linear, x.astype(float), parameters, unit="float32")


@pytest.mark.parametrize("biased", [True, False])
def test_gradients_are_those_of_pytorch(biased: bool, calls: list[int]) -> None:
    found = []
    for product in (linear, functional.linear):
        x, weight, bias = (whole(*size, requires_grad=True) for size in ((2, 5, 7), (3, 7), (3,)))
        out = product(x, weight, bias if biased else None)
        out.backward(whole(2, 5, 3, seed=1))
        found.append([out, x.grad, weight.grad, *([bias.grad] if biased else [])])
    assert calls
    for got, want in zip(*found, strict=True):
        assert torch.equal(got, want)


def test_second_derivatives(calls: list[int]) -> None:
    found = []
    for product in (linear, functional.linear):
        x, weight = (one.sign().requires_grad_() for one in (whole(4, 7), whole(3, 7, seed=1)))  # small: all is exact
        first = torch.autograd.grad((product(x, weight) ** 3).sum(), (x, weight), create_graph=True)
        found.append(torch.autograd.grad(sum((one * one).sum() for one in first), (x, weight)))
    assert calls
    for got, want in zip(*found, strict=True):
        assert torch.equal(got, want)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own
def test_transformed_functions_have_the_products_of_pytorch(calls: list[int]) -> None:
    """torch.func and forward derivatives have rules for these, and none for oneDNN's."""
    x, weight = whole(4, 7), whole(3, 7, seed=1)
    got, want = (torch.func.vmap(one, (0, None))(x[:, None], weight) for one in (linear, functional.linear))
    assert torch.equal(got, want)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(linear(dual, weight)).tangent
    assert torch.equal(tangent, functional.linear(torch.ones_like(x), weight))
    with FlopCounterMode(display=False) as counted:
        linear(x, weight)
    assert counted.get_total_flops() == 2 * 4 * 7 * 3
    assert not calls


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (whole(4, 7).double(), whole(3, 7).double()), (whole(7), whole(3, 7)), (whole(0, 7), whole(3, 7)),
        (whole(4, 7).bfloat16(), whole(3, 7).bfloat16()),
    ],
    ids=["float64", "vector", "empty", "bfloat16"],
)  # fmt: skip
def test_elsewhere_it_is_pytorchs(x: torch.Tensor, weight: torch.Tensor, calls: list[int]) -> None:
    assert torch.equal(linear(x, weight), functional.linear(x, weight))
    assert not calls


def test_autocast_and_a_build_without_onednn_are_pytorchs(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = whole(4, 7), whole(3, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(products, "WORKS", False)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))
    assert not calls


def test_an_operator_that_is_missing_or_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise AttributeError

    for wrong in (missing, lambda x, weight, _: functional.linear(x, weight)):
        monkeypatch.setattr(products, "_onednn", wrong)
        assert not products._works()


def test_sizes_that_do_not_fit_are_refused_by_pytorch() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(whole(4, 7), whole(3, 8))


@pytest.mark.parametrize("gradient", ["x", "weight", "bias"])
def test_a_wrong_gradient_is_noticed(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = products._Product.backward

    def doubled(ctx: Any, d: torch.Tensor) -> tuple[Any, ...]:
        found = list(backward(ctx, d))
        at = ["x", "weight", "bias"].index(gradient)
        found[at] = 2 * found[at]
        return tuple(found)

    monkeypatch.setattr(products._Product, "backward", staticmethod(doubled))
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_pytorch(True, [1])
