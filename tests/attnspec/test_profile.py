"""What probing finds beside the conventions: dtypes, what is returned, sinks, dropout, gradients of the subject's own."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attnspec
from attnspec.conventions import subject_of
from attnspec.errors import CannotRun, UsageError
from attnspec.function import FunctionSubject
from attnspec.properties import numbers
from attnspec.returned import Returned
from attnspec.target import wrap

Parts = namedtuple("Parts", "out lse")


def parts(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, weights and log-sum-exp."""
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / math.sqrt(q.shape[-1])
    v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(*scores.shape[:-1], 1)], -1)
    weights = scores.softmax(-1)[..., : v.shape[-2]]
    return weights @ v, weights, scores.logsumexp(-1)


def subject(function: Callable[..., Any], **options: Any) -> FunctionSubject:
    return subject_of(wrap(function, {"arrays": "torch"} | options))


def drawn(b: int = 2, h: int = 3, t: int = 4, s: int = 5) -> list[np.ndarray]:
    return [numbers.normal(3, n, (b, h, size, 4)) for n, size in (("q", t), ("k", s), ("v", s))]


# Dtypes


def test_each_dtype_is_asked_for_and_the_refused_ones_say_why() -> None:
    def no_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.dtype is torch.float16:
            raise TypeError("float16 is not for this kernel")
        return parts(q, k, v)[0]

    profile = subject(no_half).profile
    assert profile["dtypes"] == ("float64", "float32", "bfloat16")
    assert profile.lacks("float16") == "refuses: TypeError: float16 is not for this kernel"
    assert profile.offers("bfloat16")


def test_a_refused_dtype_is_not_uneven() -> None:
    def no_bfloat16(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if q.dtype is torch.bfloat16 and mask is not None:
            raise TypeError("no masks in bfloat16")
        return parts(q, k, v)[0] if mask is None else torch.where(mask, 1.0, 0.0).to(q.dtype).softmax(-1) @ v

    found = subject(no_bfloat16, mask="bool", polarity="attend")
    q, k, v = drawn()
    with pytest.raises(Exception, match="no masks in bfloat16"):
        found(q, k, v, mask=np.ones((4, 5), dtype=bool), dtype="bfloat16")
    assert [o.condition for o in found.observations.values()] == ["the dtype"]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("fused", ("wide", "wide", "fused", "fused")),
        ("float16:fused", ("wide", "wide", "stored-blocks", "fused")),
        ("float16:fused,bfloat16:stored", ("wide", "wide", "stored", "fused")),
        ("wide", ("wide", "wide", "wide", "wide")),
        ({"float16": "fused"}, ("wide", "wide", "stored-blocks", "fused")),
    ],
)
def test_a_class_of_rounding_is_declared_by_dtype(said: Any, wanted: tuple[str, ...]) -> None:
    found = subject(lambda q, k, v: parts(q, k, v)[0], precision=said).profile.settings["precision"]
    assert tuple(found.value[d] for d in ("float64", "float32", "bfloat16", "float16")) == wanted
    assert found.origin == "declared"


# What is returned


def both(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return parts(q, k, v)


def lse_first(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    out, _, lse = parts(q, k, v)
    return {"lse": lse, "output": out}


def named(q: Tensor, k: Tensor, v: Tensor) -> Parts:
    out, _, lse = parts(q, k, v)
    return Parts(out, lse)


def switched(q: Tensor, k: Tensor, v: Tensor, return_lse: bool = False, need_weights: bool = True) -> Any:
    out, weights, lse = parts(q, k, v)
    extra = [*([weights] if need_weights else []), *([lse.mT] if return_lse else [])]
    return (out, *extra) if extra else out


def test_values_beside_the_output_are_known_by_what_they_are() -> None:
    q, k, v = drawn()
    out, weights, lse = (x.numpy() for x in parts(*(torch.tensor(x) for x in (q, k, v))))
    for function in (both, lse_first, named, switched):
        found = subject(function)
        result = found(q, k, v, dtype="float64", need=("weights", "lse"))
        np.testing.assert_array_equal(result.out, out)
        np.testing.assert_array_equal(result.lse, lse)
        assert found.profile.offers("lse")
        assert found.profile.offers("weights") == (function in (both, switched))
        if found.profile.offers("weights"):
            np.testing.assert_array_equal(result.weights, weights)
        assert found(q, k, v).weights is found(q, k, v).lse is None


def test_a_switch_is_on_only_where_its_value_is_asked_for() -> None:
    seen = []

    def watched(q: Tensor, k: Tensor, v: Tensor, need_weights: bool = True) -> Any:
        seen.append(need_weights)
        return parts(q, k, v)[:2] if need_weights else parts(q, k, v)[0]

    found = subject(watched)
    assert found.profile["weights"] == Returned(1, "bhts", "return_weights")
    seen.clear()
    found(*drawn())
    found(*drawn(), need=("weights",))
    assert seen == [False, True]


def averaged(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, weights, _ = parts(q, k, v)
    return out, weights.mean(1)


def raw_scores(q: Tensor, k: Tensor, v: Tensor, return_attention_scores: bool = False) -> Any:
    return (parts(q, k, v)[0], q @ k.mT) if return_attention_scores else parts(q, k, v)[0]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (averaged, "not offered: weights are averaged over heads"),
        (raw_scores, "not offered: what is returned is not attention weights"),
        (lse_first, "not offered: not returned"),
    ],
)
def test_weights_that_are_none_are_not_offered(function: Callable[..., Any], reason: str) -> None:
    assert subject(function).profile.lacks("weights") == reason


# Sinks and dropout


def test_sinks_reach_the_function() -> None:
    def with_sink(q: Tensor, k: Tensor, v: Tensor, s_aux: Tensor | None = None) -> Tensor:
        return parts(q, k, v, s_aux)[0]

    found = subject(with_sink)
    q, k, v = drawn()
    sinks = numbers.normal(3, "sinks", (3,))
    got = found(q, k, v, sinks=sinks, dtype="float64").out
    np.testing.assert_array_equal(got, parts(*(torch.tensor(x) for x in (q, k, v)), torch.tensor(sinks))[0].numpy())
    assert subject(lambda q, k, v: parts(q, k, v)[0]).profile.lacks("sinks") == "not offered: no such parameter"


def dropping(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    _, weights, _ = parts(q, k, v)
    keep = torch.rand(weights.shape, generator=generator) >= dropout_p
    return (weights * keep / (1 - dropout_p)).to(v.dtype) @ v


def from_the_global(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    return dropping(q, k, v, dropout)


@pytest.mark.parametrize("function", [dropping, from_the_global])
def test_dropout_follows_the_seed_and_leaves_the_global_state(function: Callable[..., Tensor]) -> None:
    found = subject(function)
    assert found.profile["dropout"] == "argument"
    q, k, v = drawn()
    before = torch.random.get_rng_state()
    first, again, other = (found(q, k, v, dropout=0.5, seed=seed).out for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert torch.equal(torch.random.get_rng_state(), before)


def ignoring(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    return parts(q, k, v)[0]


def test_dropout_without_effect_is_worth_knowing_and_declared_a_must() -> None:
    assert subject(ignoring).profile["dropout"] == "none"
    for options, levels, code in (({}, ["may"], 0), ({"dropout": "none"}, [], 0), ({"dropout": "argument"}, ["must"], 1)):
        report = attnspec.audit(ignoring, select=["convention.dropout", "batch.alone"], arrays="torch", **options)
        assert [r.level for r in report.violations] == levels
        assert report.exit_code == code


# Gradients of the subject's own


def in_numpy(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype))
    return weights / weights.sum(-1, keepdims=True) @ v


def gradients(q: np.ndarray, k: np.ndarray, v: np.ndarray, cotangent: np.ndarray) -> tuple[np.ndarray, ...]:
    tensors = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    pulled = torch.autograd.grad(parts(*tensors)[0], tensors, torch.tensor(cotangent))
    return tuple(x.numpy() for x in pulled)


def test_a_declared_gradient_is_audited() -> None:
    options = {"arrays": "numpy", "select": ["grad.reference"], "dtypes": "float64,float32"}
    assert attnspec.audit(in_numpy, **options).exit_code == 5  # not applicable
    report = attnspec.audit(in_numpy, vjp=f"{__file__}::gradients", **options)
    assert report.ok
    assert report.profile is not None
    assert report.profile.offers("gradients")


def test_a_declared_gradient_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(q: Any, k: Any, v: Any, cotangent: Any) -> Any:
        return tuple(2 * x for x in gradients(q, k, v, cotangent))

    def attention(q: Any, k: Any, v: Any) -> Any:
        return in_numpy(q, k, v)

    attention.vjp = doubled  # type: ignore[attr-defined]
    assert attnspec.audit(attention, select=["grad.reference"], arrays="numpy", dtypes="float64").exit_code == 1


# What is declared


def test_a_declared_scale_holds_and_another_is_violated() -> None:
    def unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return parts(q * math.sqrt(q.shape[-1]), k, v)[0]

    for scale, code in (("1.0", 0), ("0.5", 1)):
        report = attnspec.audit(unscaled, select=["convention.scale", "batch.alone"], arrays="torch", scale=scale)
        assert report.exit_code == code


def test_approximate_attention_gets_laws_without_values() -> None:
    def linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.relu(q) @ torch.relu(k).mT + 1.0
        return scores / scores.sum(-1, keepdim=True) @ v

    claims = ["reference.forward", "batch.neighbours-unseen", "softmax.dominant-score-selects"]
    assert attnspec.audit(linear, select=claims, arrays="torch").exit_code == 1
    report = attnspec.audit(linear, select=claims, arrays="torch", form="approximate")
    assert report.ok
    assert {r.claim for r in report.exercised} == {"batch.neighbours-unseen"}


def test_a_folded_layout_needs_the_number_of_heads() -> None:
    with pytest.raises(UsageError, match="no parameter for their number"):
        subject(averaged, layout="btm")


def test_a_vjp_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="'gradient'; did you mean 'gradients'"):
        subject(in_numpy, vjp=f"{__file__}::gradient")
    with pytest.raises((UsageError, CannotRun)):
        subject(in_numpy, vjp="no_such_module_at_all:f")
