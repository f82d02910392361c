"""The claims on masks, causal order, windows, empty rows, sinks, batches and storage.

Each holds on the reference, rejects its twin, and rejects a bug of another kind that is planted here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnspec.properties.case import MASK_AXES, Inputs
from attnspec.properties.claim import Claim, claims
from attnspec.properties.claims.mask import hidden_except
from attnspec.properties.oracle import visible
from attnspec.properties.subject import FloatArray, Profile, Setting
from attnspec.properties.twins import Honest, TwinSubject
from attnspec.properties.verdict import Violation
from attnspec.reference.mask import causal_mask
from tests.properties.claim_runs import EVERYTHING, some_cases, violations

HOMES = ("mask", "hidden", "causal", "window", "empty_row", "sinks", "batch", "invariance")
MINE = [c for c in claims().values() if c.body.__module__.rpartition(".")[2] in HOMES]
Bug = Callable[[Honest, Inputs], FloatArray]


def annuls(honest: Honest, x: Inputs) -> FloatArray:
    """The reference, but for NaN in keys and values, which a weight of zero annuls."""
    return honest(x.but(k=np.nan_to_num(x.k), v=np.nan_to_num(x.v)))


def leaks(honest: Honest, x: Inputs) -> FloatArray:
    """A little of the mean of all values, hidden or not."""
    mean = x.v.mean(2, keepdims=True) / 1024
    return honest(x) + np.repeat(mean, x.q.shape[1] // x.v.shape[1], axis=1)


def caps_last(honest: Honest, x: Inputs) -> FloatArray:
    """A hidden score is minus the soft cap."""
    seen = visible(honest.profile, x)
    return honest(x.but(mask=None, bias=np.where(seen, 0.0, -(x.softcap or 1.0)), causal=False, window=None))


def other_alignment(honest: Honest, x: Inputs) -> FloatArray:
    seen = causal_mask(x.q.shape[2], x.k.shape[2], "bottom-right")
    return honest(x.but(causal=False, mask=seen if x.mask is None else x.mask & seen) if x.causal else x)


def scaled_by_length(honest: Honest, x: Inputs) -> FloatArray:
    """The scale depends on the number of keys."""
    return honest(x.but(scale=(x.scale or x.q.shape[3] ** -0.5) * (1 + x.k.shape[2] / 64)))


def no_window(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(window=None))


def column_is_dropped(honest: Honest, x: Inputs) -> FloatArray:
    """A mask with one column has no effect."""
    narrow = {n: None for n in ("mask", "bias") if (a := getattr(x, n)) is not None and a.shape[-1] == 1 < x.k.shape[2]}
    return honest(x.but(**narrow))


def wide_window_of_one(honest: Honest, x: Inputs) -> FloatArray:
    """One key is taken for two."""
    return honest(x.but(window=2 if x.window == 1 else x.window))


def five_less(honest: Honest, x: Inputs) -> FloatArray:
    """An additive mask of minus infinity takes five from a score."""
    return honest(x.but(bias=None if x.bias is None else np.maximum(x.bias, -5.0)))


def half_a_bias(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(bias=None if x.bias is None else x.bias / 2))


def half_a_bias_beside_a_mask(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x) if x.mask is None else half_a_bias(honest, x)


def either(honest: Honest, x: Inputs) -> FloatArray:
    """Beside the causal flag a key is seen if either lets it."""
    if not x.causal or (x.mask is None and x.bias is None):
        return honest(x)
    seen = visible(honest.profile, x.but(causal=False)) | visible(honest.profile, x.but(mask=None, bias=None))
    return honest(x.but(causal=False, mask=seen, bias=None))


def window_drops_mask(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(mask=None, bias=None) if x.window is not None else x)


def mask_of_first_query(honest: Honest, x: Inputs) -> FloatArray:
    """A mask with an axis for queries is read for the first one only, unless it is given in full."""
    if x.mask is None or x.mask.ndim == 4 or x.mask.ndim < 2:
        return honest(x)
    return honest(x.but(mask=np.broadcast_to(x.mask[..., :1, :], x.mask.shape)))


def drops_small(honest: Honest, x: Inputs) -> FloatArray:
    """One-hot values: weights below a tenth are zero."""
    out = honest(x)
    return np.where(np.abs(out) < 0.1, 0.0, out)


def without_mask(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(mask=None, bias=None))


def nan_when_empty(honest: Honest, x: Inputs) -> FloatArray:
    return np.where(visible(honest.profile, x).any(-1, keepdims=True), honest(x), np.nan)


def unmasked_when_all_empty(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x) if visible(honest.profile, x).any() else honest(x.but(mask=None, bias=None))


def spoils_the_next(honest: Honest, x: Inputs) -> FloatArray:
    """The row after an empty row is empty too."""
    seen = visible(honest.profile, x).any(-1)
    return np.where(np.roll(seen, 1, -1)[..., None], honest(x), 0.0)


def sink_of_next_head(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(sinks=None if x.sinks is None else np.roll(x.sinks, 1)))


def sink_twice(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(sinks=None if x.sinks is None else x.sinks + np.log(2.0)))


def largest_of_batch(honest: Honest, x: Inputs) -> FloatArray:
    """Outputs are cut at a thousandth below the largest value of the whole batch."""
    return np.minimum(honest(x), np.abs(x.v).max() * 0.001)


def by_position(honest: Honest, x: Inputs) -> FloatArray:
    """Each batch row is larger than the one before."""
    return honest(x) * (1 + np.arange(x.q.shape[0])[:, None, None, None] / 1024)


def by_batch_size(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x) * (1 + x.q.shape[0] / 1024)


def strides_lost(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(q=-x.q) if x.storage == "strided" else x)


def small_cap(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(softcap=None if x.softcap is None else min(x.softcap, 4.0)))


BUGS: dict[str, Bug] = {
    "mask.hidden-content": leaks,
    "mask.hidden-nan": leaks,
    "mask.finite-fill": leaks,
    "mask.softcap-keeps-hidden": caps_last,
    "mask.causal": leaks,
    "mask.causal-rectangular": other_alignment,
    "mask.causal-is-triangle": other_alignment,
    "mask.parallel-is-stepwise": scaled_by_length,
    "mask.parallel-is-chunks": scaled_by_length,
    "mask.window": no_window,
    "mask.window-content": no_window,
    "mask.window-edges": wide_window_of_one,
    "mask.bool-is-additive": five_less,
    "mask.composes-with-bias": half_a_bias_beside_a_mask,
    "mask.beside-causal": either,
    "mask.beside-window": window_drops_mask,
    "mask.broadcasts": mask_of_first_query,
    "mask.one-column": column_is_dropped,
    "mask.packed-sequences": without_mask,
    "mask.zero-where-hidden": drops_small,
    "mask.bias-is-added": half_a_bias,
    "mask.empty-row": nan_when_empty,
    "mask.empty-batch": unmasked_when_all_empty,
    "mask.empty-row-alone": spoils_the_next,
    "mask.sink-takes-a-share": sink_of_next_head,
    "mask.sink-is-a-key": sink_twice,
    "batch.neighbours-unseen": largest_of_batch,
    "batch.order": by_position,
    "batch.alone": by_batch_size,
    "robust.storage": strides_lost,
    "scale.wide-softcap": small_cap,
}


def test_a_bug_is_planted_for_each_claim() -> None:
    assert sorted(BUGS) == sorted(c.id for c in MINE)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_holds_on_the_reference(claim: Claim, dtype: str) -> None:
    found = list(violations(claim.id, dtype, annuls if claim.id == "mask.hidden-nan" else None))
    assert found
    assert not any(found)


@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_rejects_its_twin_and_a_planted_bug(claim: Claim) -> None:
    assert claim.twin is not None
    assert any(violations(claim.id, "float64", claim.twin, most=100))
    assert any(violations(claim.id, "float64", BUGS[claim.id], most=100))


@pytest.mark.parametrize("claim", [c for c in MINE if c.dtypes == "all"], ids=lambda c: c.id)
def test_rejects_its_twin_in_every_dtype_that_it_looks_at(claim: Claim) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        assert any(violations(claim.id, dtype, claim.twin, most=12)), dtype


@pytest.mark.parametrize("accepted", [("BHTS",), ("TS", "S"), ("1HTS", "BHTS"), ("B1TS", "BHTS")])
def test_a_mask_is_given_in_the_smallest_shape_that_takes_it(accepted: tuple[str, ...]) -> None:
    x = some_cases(claims()["mask.causal"], "float64", 1)[0].build().but(causal=False)
    B, H, T, S = (*x.q.shape[:3], x.k.shape[2])
    profile = Profile({"mask_axes": Setting(accepted, "inferred")})
    seen = causal_mask(T, S)
    sizes = {"B": B, "H": H, "T": T, "S": S, "1": 1}
    made = hidden_except(profile, x, seen, "bool").mask
    assert made is not None
    assert made.shape == tuple(sizes[a] for a in accepted[0])
    assert (made == seen).all()
    each = np.broadcast_to(seen, (B, H, T, S)) & (np.arange(B) > 0)[:, None, None, None]
    full = hidden_except(Profile({"mask_axes": Setting(MASK_AXES, "inferred")}), x, each, "bool").mask
    assert full is not None
    assert full.shape == (B, H, T, S)
    assert (full == each).all()


def test_hidden_nan_is_a_must_only_where_it_is_declared() -> None:
    claim = claims()["mask.hidden-nan"]
    assert claim.level_for(Profile({"poison": Setting("nan", "declared")})) == "must"
    assert claim.level_for(Profile({"poison": Setting("huge", "declared")})) == "may"
    assert claim.level_for(Profile()) == "may"


def test_a_claim_on_either_kind_of_mask_needs_one() -> None:
    claim = claims()["mask.hidden-content"]
    only_bias = dict(EVERYTHING.features) | {"mask": "not offered: no such parameter"}
    assert claim.lacking(Profile(EVERYTHING.settings, only_bias)) is None
    neither = only_bias | {"bias": "refuses: no"}
    assert claim.lacking(Profile(EVERYTHING.settings, neither)) == "not offered: no such parameter"


def test_an_empty_row_that_nobody_promised_may_be_the_mean_but_not_nan() -> None:
    for name in ("mask.empty-row", "mask.empty-batch"):
        claim = claims()[name]
        for policy, right in (("zero", True), ("mean", True), ("nan", False), ("unmasked", False)):
            profile = Profile({"empty_row": Setting(policy, "inferred")}, EVERYTHING.features)
            subject = TwinSubject(profile, None, None)
            wrong = 0
            for case in some_cases(claim, "float32", 4):
                try:
                    claim.body(subject, case)
                except Violation:
                    wrong += 1
            assert (wrong == 0) is right, (name, policy)


def test_the_cases_of_a_claim_differ() -> None:
    """Each claim looks at more than one size."""
    for claim in MINE:
        cases = some_cases(claim, "float64", 100)
        assert len({c.sizes for c in cases}) > 1, claim.id
