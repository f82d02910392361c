"""Contracts, the same conventions everywhere, and what refusals depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attnspec
from attnspec.contracts import CONTRACTS, recognised
from attnspec.conventions import subject_of
from attnspec.properties.verdict import Refused
from attnspec.signature import read
from attnspec.target import wrap

ONE = "batch.alone"  # a claim with cases, so that something is exercised


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, empty: float = 0.0) -> Tensor:
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / math.sqrt(q.shape[-1])
    if mask is not None and mask.dtype is not torch.bool:
        scores = scores + mask
    elif mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).nan_to_num(empty) @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


# Recognition


def of_jax(query, key, value, bias=None, mask=None, *, scale=None, is_causal=False, local_window_size=None): ...


def of_keras(query, key, value, bias=None, mask=None, scale=None, is_causal=False, flash_attention=None): ...


def of_mlx(q, k, v, *, scale, mask=None, sinks=None, stream=None): ...


def near_mlx(q, k, v, *, scale, mask=None, sinks=None): ...


def near_jax(query, key, value, bias=None, mask=None, *, scale=None, is_causal=False): ...


@pytest.mark.parametrize(
    ("function", "contract"),
    [
        (scaled_dot_product_attention, "torch"),
        (of_jax, "jax"),
        (of_keras, "keras"),
        (of_mlx, "mlx"),
        (near_mlx, "none"),
        (near_jax, "none"),
        (attend, "none"),
    ],
)
def test_a_contract_is_recognised_by_its_names(function: Callable[..., Any], contract: str) -> None:
    assert recognised(read(function, "f")) == contract


def test_each_contract_can_be_declared_and_lifted() -> None:
    for contract, promises in CONTRACTS.items():
        found = subject_of(wrap(attend, {"arrays": "torch", "contract": contract, "layout": "bhtd"})).profile
        assert found["contract"] == contract
        assert {n for n in promises if found.settings[n].origin == "contract"} == set(promises) - {"layout"}
    lifted = subject_of(wrap(scaled_dot_product_attention, {"contract": "none"})).profile
    assert lifted.settings["polarity"].origin == "inferred"


# Contradictions


def tiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, *(x.repeat(1, q.shape[1] // x.shape[1], 1, 1) for x in (k, v)))


def adds_booleans(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, None if mask is None else mask.to(q.dtype))


@pytest.mark.parametrize(
    ("function", "claim", "options"),
    [
        (tiled, "convention.group-order", {"contract": "onnx-23"}),
        (adds_booleans, "convention.mask", {"mask": "bool,bias"}),
        (attend, "convention.causal", {"causal": "always"}),
    ],
)
def test_what_is_promised_is_held_against_probing(function: Callable[..., Any], claim: str, options: dict[str, str]) -> None:
    report = attnspec.audit(function, select=[claim, ONE], arrays="torch", **options)
    assert [(r.claim, r.level) for r in report.violations] == [(claim, "must")]
    free = attnspec.audit(function, select=[claim, ONE], arrays="torch")
    assert not free.violations


# The same everywhere


def nan_when_added(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, mask, empty=math.nan if mask is not None and mask.dtype is not torch.bool else 0.0)


def nan_in_bfloat16(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, mask, empty=math.nan if q.dtype is torch.bfloat16 else 0.0)


def nan_for_one_query(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, mask, empty=math.nan if q.shape[2] == 1 else 0.0)


def nan_for_the_whole_batch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    hides_all = mask is not None and mask.dtype is torch.bool and not mask.any()
    return attend(q, k, v, mask, empty=math.nan if hides_all and q.shape[0] > 1 else 0.0)


def nan_in_views(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, mask, empty=0.0 if q.is_contiguous() else math.nan)


def nan_with_gradients(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return attend(q, k, v, mask, empty=math.nan if q.requires_grad else 0.0)


def inverts_keys(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    padding = mask is not None and mask.dtype is torch.bool and mask.ndim == 4 and mask.shape[2] == 1 < q.shape[2]
    return attend(q, k, v, ~mask if padding else mask)  # type: ignore[operator]


def decodes_from_the_end(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    T, S = q.shape[2], k.shape[2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - 1 if T == 1 else 0)
    return attend(q, k, v, mask if causal else None)


def consistent(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    seen = seen.tril() if causal else seen
    added = 0.0 if mask is None or mask.dtype is torch.bool else mask
    seen = seen if mask is None or mask.dtype is not torch.bool else seen & mask
    return attend(q, k, v, torch.zeros((), dtype=q.dtype).masked_fill(~seen, -math.inf) + added)


@pytest.mark.parametrize(
    ("function", "convention", "where"),
    [
        (nan_when_added, "empty row", "for an additive mask"),
        (nan_in_bfloat16, "empty row", "in bfloat16"),
        (nan_for_one_query, "empty row", "at T = 1, S = 4"),
        (nan_for_the_whole_batch, "empty row", "for both samples of a batch"),
        (nan_in_views, "empty row", "for strided storage"),
        (nan_with_gradients, "empty row", "with gradients"),
        (inverts_keys, "polarity", "for a mask of shape B11S"),
        (decodes_from_the_end, "alignment", "at T = 1, S = 8"),
    ],
)
def test_a_convention_that_is_not_the_same_everywhere_is_found(
    function: Callable[..., Any], convention: str, where: str
) -> None:
    report = attnspec.audit(function, select=["convention.consistent"], arrays="torch")
    assert [(r.claim, r.level) for r in report.violations] == [("convention.consistent", "should")]
    evidence = report.violations[0].evidence
    assert evidence is not None
    assert evidence.what.startswith(convention)
    assert where in evidence.what + evidence.why
    name = convention.replace(" ", "_")
    base = {"empty_row": "zero", "polarity": "attend", "alignment": "top-left"}[name]
    declared = attnspec.audit(function, select=["convention.consistent"], arrays="torch", **{name: base})
    assert [r.level for r in declared.violations] == ["must"]


def test_a_convention_that_is_the_same_everywhere_holds() -> None:
    report = attnspec.audit(consistent, select=["convention", ONE], arrays="torch")
    assert not report.violations
    assert "convention.consistent" in {r.claim for r in report.exercised}


# What a refusal depends on


def picky(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    if k.shape[2] == 7:
        raise ValueError("seven keys")
    if q.shape[0] == 3:
        raise ValueError("three samples")
    if not q.is_contiguous():
        raise ValueError("a view")
    if q.requires_grad and mask is not None:
        raise ValueError("a mask with gradients")
    if mask is not None and scale is not None:
        raise ValueError("both")
    if mask is not None and q.dtype is torch.float64:
        raise ValueError("a mask in float64")
    return attend(q if scale is None else q * scale * math.sqrt(q.shape[-1]), k, v, mask)


@pytest.mark.parametrize(
    ("sizes", "options", "depends"),
    [
        ((2, 7), {}, "the sizes"),
        ((3, 3), {}, "the batch"),
        ((2, 3), {"storage": "transposed"}, "the storage"),
        ((2, 3), {"mask": True, "recorded": True}, "gradients"),
        ((2, 3), {"mask": True, "scale": 0.5}, "mask beside scale"),
        ((2, 3), {"mask": True, "dtype": "float64"}, "the dtype"),
    ],
)
def test_what_a_refusal_depends_on(sizes: tuple[int, int], options: dict[str, Any], depends: str) -> None:
    b, s = sizes
    subject = subject_of(wrap(picky, {"arrays": "torch"}))
    subject.observations.clear()
    options = dict(options)
    if options.pop("mask", False):
        options["mask"] = np.ones((2, s), dtype=bool)
    q, k, v = (np.ones((b, 2, size, 4)) for size in (2, s, s))
    call = subject.recorded if options.pop("recorded", False) else subject
    with pytest.raises(Refused):
        call(q, k, v, **options)
    assert [o.condition for o in subject.observations.values()] == [depends]


@pytest.mark.parametrize(("only", "uneven"), [("seven keys", True), ("both", False), ("a mask in float64", False)])
def test_a_refusal_is_uneven_where_the_same_features_work_otherwise(only: str, uneven: bool) -> None:
    def refusing(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
        try:
            return picky(q.contiguous().detach(), k, v, mask, scale)
        except ValueError as error:
            if str(error) == only:
                raise
            return attend(q if scale is None else q * scale * math.sqrt(q.shape[-1]), k, v, mask)

    report = attnspec.audit(refusing, select=["robust.uniform-refusal", "reference.forward"], arrays="torch")
    assert [r.claim for r in report.violations] == (["robust.uniform-refusal"] if uneven else [])
