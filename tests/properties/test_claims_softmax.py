"""The claims on softmax, scale and heads: they hold on the reference, and reject their twin and a bug of another kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnspec.properties import numbers
from attnspec.properties.case import Inputs
from attnspec.properties.claim import claims
from attnspec.properties.claims.scores import taken
from attnspec.properties.subject import FloatArray, Profile, Result, Setting
from attnspec.properties.twins import Honest, TwinSubject
from attnspec.properties.verdict import Inapplicable
from tests.properties.claim_runs import EVERYTHING, holds, some_cases, violations

MODULES = ("softmax", "values", "scores", "weights", "range", "scale", "heads")
MINE = [c for c in claims().values() if c.body.__module__.rpartition(".")[2] in MODULES]
DTYPES = ("float64", "bfloat16", "float16")

Bug = Callable[[Honest, Inputs], FloatArray | Result]


def rounds_values_by_head(honest: Honest, x: Inputs) -> FloatArray:
    """Eight-bit values with one unit for all channels of a head."""
    unit = np.abs(x.v).max((-2, -1), keepdims=True) / 15
    return honest(x.but(v=np.rint(x.v / np.where(unit == 0, 1, unit)) * unit))


def adds_one(honest: Honest, x: Inputs) -> FloatArray:
    """A bias of the output projection that went astray."""
    return honest(x) + 1.0


def cuts_small_keys(honest: Honest, x: Inputs) -> FloatArray:
    """Keys between -1 and 1 count as zero."""
    return honest(x.but(k=np.where(np.abs(x.k) > 1, x.k, 0.0)))


def only_whole_blocks(honest: Honest, x: Inputs) -> FloatArray:
    """Keys beyond the last whole block of two are dropped."""
    return honest(taken(x, np.arange(x.k.shape[2] // 2 * 2)))


def unshifted(honest: Honest, x: Inputs) -> FloatArray:
    """exp without the maximum subtracted, in the range of float16."""
    with np.errstate(all="ignore"):
        weights = honest.weights(x) * np.exp(honest.lse(x))[..., None]
        weights = numbers.rounded(weights, "float16")
        return weights / weights.sum(-1, keepdims=True) @ np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1)


def weights_squared(honest: Honest, x: Inputs) -> Result:
    return Result(honest(x), x.dtype, honest.weights(x) ** 2)


def weights_of_hidden(honest: Honest, x: Inputs) -> Result:
    """What is hidden from the output is not hidden from the weights."""
    return Result(honest(x), x.dtype, honest.weights(x.but(mask=None, bias=None, causal=False, window=None)))


def rounds_with_weights(honest: Honest, x: Inputs) -> FloatArray:
    """Code for weights that computes with three bits."""
    return np.rint(8 * honest(x)) / 8 if "weights" in honest.need else honest(x)


def maximum_for_lse(honest: Honest, x: Inputs) -> Result:
    """The maximum of the scores where its log-sum-exp is meant."""
    weights = honest.weights(x)
    with np.errstate(divide="ignore"):
        return Result(honest(x), x.dtype, lse=honest.lse(x) + np.log(weights.max(-1)))


def plus_infinity(honest: Honest, x: Inputs) -> Result:
    """As flash-attn has it."""
    lse = honest.lse(x)
    return Result(honest(x), x.dtype, lse=np.where(np.isneginf(lse), np.inf, lse))


def one_by_one(honest: Honest, x: Inputs) -> FloatArray:
    """A sum of weights that stops at 256 terms, as one in bfloat16 does."""
    return honest(x) * min(1.0, 256.0 / x.k.shape[2])


def two_means_default(honest: Honest, x: Inputs) -> FloatArray:
    """A scale above 1 is taken for a mistake."""
    return honest(x.but(scale=1.0 if x.scale is not None and x.scale > 1 else x.scale))


def hides_before_scaling(honest: Honest, x: Inputs) -> FloatArray:
    """Minus infinity times a negative scale is plus infinity."""
    out = honest(x)
    return np.full_like(out, np.nan) if x.scale is not None and x.scale < 0 else out


def scale_of_padded(honest: Honest, x: Inputs) -> FloatArray:
    """The scale follows the width of the head, whatever was asked."""
    return honest(x.but(scale=x.q.shape[3] ** -0.5))


def first_head_for_mask(honest: Honest, x: Inputs) -> FloatArray:
    """The output of head 0 is that of the last."""
    out = honest(x)
    return np.concatenate([out[:, -1:], out[:, 1:]], axis=1)


BUGS: dict[str, Bug] = {
    "softmax.values-scale": adds_one,
    "softmax.values-add": adds_one,
    "softmax.channels-independent": rounds_values_by_head,
    "softmax.key-offset": cuts_small_keys,
    "softmax.sign-flip": lambda honest, x: honest(x.but(k=np.maximum(x.k, -0.5))),
    "softmax.rotation": cuts_small_keys,
    "softmax.duplicated-keys": only_whole_blocks,
    "softmax.duplicate-is-bias": lambda honest, x: honest(x.but(bias=None if x.bias is None else x.bias / 2)),
    "softmax.large-scores": unshifted,
    "softmax.many-equal-keys": one_by_one,
    "softmax.returned-weights": weights_squared,
    "softmax.weights-beside-output": rounds_with_weights,
    "softmax.log-sum-exp": maximum_for_lse,
    "softmax.empty-log-sum-exp": plus_infinity,
    "softmax.merge": maximum_for_lse,
    "scale.powers-of-two": two_means_default,
    "scale.negative": hides_before_scaling,
    "scale.padded-width": scale_of_padded,
    "heads.order": first_head_for_mask,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_holds_on_the_reference_and_rejects_its_twin(claim, dtype: str) -> None:  # type: ignore[no-untyped-def]
    assert claim.twin is not None
    if dtype not in claim.dtypes_of(DTYPES) and claim.dtypes == "float32":
        pytest.skip("a claim on float32 alone")
    assert holds(claim.id, dtype)
    assert any(violations(claim.id, dtype, claim.twin))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BUGS)
def test_rejects_another_bug(name: str, dtype: str) -> None:
    assert any(violations(name, dtype, BUGS[name]))


def test_weights_of_hidden_keys_are_seen() -> None:
    found = [v for v in violations("softmax.returned-weights", "float32", weights_of_hidden, most=44) if v]
    assert any("weight of a hidden key" in str(v) for v in found)


def test_scores_past_float16_are_judged_only_where_they_are_declared_to_be_held_in_float32() -> None:
    """Code that holds scores in float16 overflows by nature; code that is declared to hold them in float32 must not."""
    claim = claims()["softmax.large-scores"]
    declared = {"float16": "fused"}
    seen: list[float] = []

    def noting(honest: Honest, x: Inputs) -> FloatArray:
        seen.append(float((np.abs(x.q) @ np.abs(x.k[:, :1]).swapaxes(-1, -2)).max()))
        return honest(x)

    for settings in ({}, {"precision": Setting(declared, "declared")}):
        profile = Profile(settings=EVERYTHING.settings | settings, features=EVERYTHING.features)
        claim.body(TwinSubject(profile, noting, None), some_cases(claim, "float16", 1)[0])
    assert seen[0] < 65504 / 4 < 2 * 65504 < seen[1]


def test_a_declared_default_scale_is_not_judged() -> None:
    claim = claims()["scale.sqrt-dk"]
    profile = Profile(settings={"scale": Setting(0.125, "declared")}, features=EVERYTHING.features)
    with pytest.raises(Inapplicable, match=r"declared to be 0\.125"):
        claim.body(TwinSubject(profile, None, None), some_cases(claim, "float32", 1)[0])


def test_the_grid_has_both_sides_of_the_edges_of_blocks() -> None:
    """IV8, IV10: reference.forward looks at T and S of 2^k - 1, 2^k and 2^k + 1."""
    claim = claims()["reference.forward"]
    sizes = [case.sizes for case in some_cases(claim, "float32", 10_000)]
    for edge in (32, 64, 128, 256):
        assert {edge - 1, edge, edge + 1} <= {z.S for z in sizes}
    for edge in (32, 64):
        assert {edge - 1, edge, edge + 1} <= {z.T for z in sizes}
