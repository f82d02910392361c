"""Every case that is drawn, fixed or met on the way of a reduction is one that the subject's profile admits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from itertools import combinations, islice, product

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.properties.admitted import SCORE_KINDS, STORAGES, VALUE_KINDS, zero_rows
from attnspec.properties.case import LOWEST, MASK_AXES, Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.numbers import rounded
from attnspec.properties.oracle import visible
from attnspec.properties.reduction import reduced, simpler
from attnspec.properties.showcases import showcases
from attnspec.properties.showcases_pairs import covering
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import DTYPES, FEATURES, Profile, Setting
from attnspec.search import BUDGETS

NO = "not offered: in this test"
FIRST = hypothesis.settings(max_examples=1, database=None, phases=[hypothesis.Phase.generate])  # the simplest there is


def profile(*lacking: str, **settings: object) -> Profile:
    """Everything is offered but what is named."""
    given = {"alignment": "top-left", "empty_row": "zero", "window": "left", "layout": "bhtd"} | settings
    return Profile(
        {name: Setting(value, "inferred") for name, value in given.items()},
        {feature: NO if feature in lacking else None for feature in FEATURES},
    )


PROFILES = {
    "everything": profile(),
    "nan": profile(empty_row="nan", empty_row_bias="nan"),
    "bottom-right": profile(alignment="bottom-right"),
    "bottom-right-nan": profile(alignment="bottom-right", empty_row="nan"),
    "window-both-mean": profile(empty_row="mean", window="both"),
    "td": profile("batch", "heads", "grouped"),
    "one-width": profile("value-width", "grouped"),
    "square": profile("rectangular", "causal-rectangular", "causal-tall", alignment="refused"),
    "causal-square": profile("causal-rectangular", "causal-tall", alignment="refused"),
    "always-causal": profile("non-causal", "mask", "bias", "mask-and-bias", "mask-and-causal", "window"),
    "always-causal-and-mask": profile("non-causal", "grouped"),
    "either": profile("mask-and-causal", "mask-and-bias", "bias"),
    "bias-only": profile("mask", "mask-and-bias", empty_row="mean"),
    "padding-only": profile(mask_axes=("B11S",), bias_axes=("B11S",)),
    "plain": profile(
        "mask", "bias", "mask-and-bias", "mask-and-causal", "causal", "causal-rectangular", "causal-tall", "window"
    ),
}
CLAIMS = [claim for claim in claims().values() if isinstance(claim.given, Cases)]
PAIRS = [
    pytest.param(claim, subject, id=f"{claim.id}-{name}")
    for claim, (name, subject) in product(CLAIMS, PROFILES.items())
    if claim.lacking(subject) is None
]


def admissible(case: Case, given: Cases, subject: Profile) -> None:
    """Asserts that the subject offers all that the case has, and that no row is empty that must not be."""
    z, call, mask, offers = case.sizes, case.call, case.mask, subject.offers
    assert min(z.H, z.G, z.D) >= 1
    empty = [letter for letter in "BTSE" if getattr(z, letter) == 0]
    assert set(empty) <= set(given.zero) | ({"T", "S"} if "T" in given.zero or "S" in given.zero else set())
    assert bool(empty) == bool(given.zero)
    assert z.H % z.G == 0
    needed = {
        "rectangular": z.T != z.S,
        "batch": z.B > 1,
        "heads": z.H > 1,
        "grouped": z.H != z.G,
        "value-width": z.D != z.E,
        "causal": call.causal,
        "non-causal": not call.causal,
        "causal-rectangular": call.causal and z.T < z.S,
        "causal-tall": call.causal and z.T > z.S,
        "scale": call.scale is not None,
        "window": call.window is not None,
        "softcap": call.softcap is not None,
        "mask": mask is not None and mask.kind == "bool",
        "bias": mask is not None and mask.kind == "bias",
        "mask-and-causal": mask is not None and call.causal,
        "sinks": call.sinks,
        "dropout": call.dropout > 0,
    }
    assert not [feature for feature, there in needed.items() if there and not offers(feature)]
    for option in ("causal", "scale", "window", "softcap", "sinks", "dropout"):
        wanted = getattr(given, option)
        there = getattr(call, option) not in (None, False) or (option == "scale" and call.scale == 0)
        there = there and not (option == "dropout" and not call.dropout)
        assert wanted != "always" or there, option
        assert wanted != "never" or not there or (option == "causal" and not offers("non-causal")), option
    assert given.mask != "always" or mask is not None
    assert given.mask != "never" or mask is None
    lacking = {"B": "batch", "H": "heads", "G": "heads"}  # where there is none, its size is 1 whatever is pinned
    pinned = {a: n if a not in lacking or offers(lacking[a]) else 1 for a, n in given.sizes.items()}
    assert all(getattr(z, letter) == size for letter, size in pinned.items())
    assert not given.square or z.T == z.S
    assert not given.identity or (z.E == z.S and case.values["v"].kind == "one-hot")
    for plant, asked in zip(case.plant, given.plant, strict=True):
        assert (plant.array, plant.where) == (asked.array, asked.where)
        assert 0 <= plant.t <= max(0, {"after": z.T - 2, "other-rows": z.B - 1}.get(plant.where, 0))
    if mask is not None:
        assert mask.axes in subject.get("mask_axes" if mask.kind == "bool" else "bias_axes", MASK_AXES)
        assert given.empty != "never" or not mask.empty
        assert mask.finite is None or mask.finite in given.finite
    if not zero_rows(subject) and given.empty != "always" and z.S:
        assert visible(subject, case.build()).any(-1).all(), "a row sees no key"


@pytest.mark.parametrize(("claim", "subject"), PAIRS)
def test_fixed_cases_are_admissible(claim: Claim, subject: Profile) -> None:
    cases = showcases(claim.given, claim.id, subject, "float32")
    assert cases
    assert len({case.canonical() for case in cases}) == len(cases)
    for case in cases:
        if max(case.sizes.T, case.sizes.S) < 100:  # large ones differ in size alone
            admissible(case, claim.given, subject)


@pytest.mark.parametrize(("claim", "subject"), PAIRS)
def test_drawn_cases_are_admissible(claim: Claim, subject: Profile) -> None:
    for case in islice(claim.given.drawn(claim.id, subject, "float16", 9, seed=1), 6):
        admissible(case, claim.given, subject)


@hypothesis.settings(max_examples=100, deadline=None, database=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_hypothesis_draws_the_same_cases(data: st.DataObject) -> None:
    claim, (_, subject) = data.draw(st.sampled_from(CLAIMS)), data.draw(st.sampled_from(list(PROFILES.items())))
    if claim.lacking(subject) is None:
        admissible(data.draw(claim.given.strategy(claim.id, subject, "float32", 9)), claim.given, subject)


def test_what_is_drawn_is_a_function_of_the_seed() -> None:
    given, subject = Cases(), PROFILES["everything"]
    one, same, other = (list(islice(given.drawn("mask.causal", subject, "float32", 9, seed), 30)) for seed in (1, 1, 2))
    assert one == same
    assert not set(one_ids := [c.canonical() for c in one]) & {c.canonical() for c in other}
    assert len(set(one_ids)) == 30


@pytest.mark.parametrize("name", PROFILES)
def test_sizes_are_at_least_what_the_claim_wants(name: str) -> None:
    """Of all cases; B and H may be smaller where the subject has no batch and no heads."""
    subject = PROFILES[name]
    for claim in CLAIMS:
        wanted = {letter: least for letter, least in claim.given.at_least.items() if letter not in "BH"}
        if claim.lacking(subject) is not None or not wanted:
            continue
        smallest = hypothesis.find(claim.given.strategy(claim.id, subject, "float32", 9), lambda _: True, settings=FIRST)
        for case in (smallest, *showcases(claim.given, claim.id, subject, "float32")):
            sizes = {letter: getattr(case.sizes, letter) for letter in wanted}
            assert all(sizes[letter] >= least for letter, least in wanted.items()), (claim.id, sizes, wanted)


def fails(case: Case, share: int) -> bool:
    """A defect that one in `share` cases shows, the same whenever it is asked."""
    return hashlib.sha256(case.canonical()).digest()[0] % share == 0


@pytest.mark.parametrize(("claim", "subject"), PAIRS)
def test_a_reduction_ends_and_stays_admissible(claim: Claim, subject: Profile) -> None:
    given, share = claim.given, (1, 2, 5)[len(claim.id) % 3]
    case = next(given.drawn(claim.id, subject, "float32", 9, seed=share))
    tried: list[Case] = []

    def failing(candidate: Case) -> bool:
        tried.append(candidate)
        admissible(candidate, given, subject)
        assert len(tried) < 2000, "it does not end"
        return fails(candidate, share)

    smallest = reduced(case, partial(simpler, given=given, profile=subject), failing)
    assert smallest == case or fails(smallest, share)
    assert not any(fails(candidate, share) for candidate in simpler(smallest, given, subject))


def test_a_defect_in_every_case_is_reduced_to_almost_nothing() -> None:
    given = Cases()
    everything = PROFILES["everything"]
    for case in showcases(given, "reference.forward", everything, "float32"):
        z = reduced(case, partial(simpler, given=given, profile=everything), lambda _: True).sizes
        assert max(z.B, z.H, z.G, z.T, z.S, z.D, z.E) == 1


def test_a_claim_that_wants_an_option_gets_it() -> None:
    for claim, (_, subject) in product(CLAIMS, PROFILES.items()):
        if claim.lacking(subject) is None:
            cases = showcases(claim.given, claim.id, subject, "float64")
            for option in ("scale", "window", "softcap"):
                assert getattr(claim.given, option) != "always" or all(getattr(c.call, option) is not None for c in cases)


# What quick reaches

QUICK = BUDGETS["quick"]
EVERYTHING = PROFILES["everything"]
OPTIONS: dict[str, Callable[[Case], bool]] = {
    "causal": lambda c: c.call.causal,
    "mask": lambda c: c.mask is not None and c.mask.kind == "bool",
    "bias": lambda c: c.mask is not None and c.mask.kind == "bias",
    "window": lambda c: c.call.window is not None,
    "softcap": lambda c: c.call.softcap is not None,
    "scale": lambda c: c.call.scale is not None,
    "grouped": lambda c: c.sizes.G < c.sizes.H,
    "sinks": lambda c: c.call.sinks,
    "dropout": lambda c: c.call.dropout > 0,
    "storage": lambda c: c.storage != "plain",
}
REGIONS: dict[str, Callable[[Case], bool]] = {
    "T = 1": lambda c: c.sizes.T == 1 < c.sizes.S,
    "1 < T < S": lambda c: 1 < c.sizes.T < c.sizes.S,
    "T = S": lambda c: c.sizes.T == c.sizes.S > 1,
    "T > S": lambda c: c.sizes.T > c.sizes.S,
    "1 < G < H": lambda c: 1 < c.sizes.G < c.sizes.H,
    "B, H, T, S differ": lambda c: c.mask is not None and len({c.sizes.B, c.sizes.H, c.sizes.T, c.sizes.S}) == 4,
    "every axis differs": lambda c: len({c.sizes.B, c.sizes.H, c.sizes.T, c.sizes.S, c.sizes.D, c.sizes.E}) == 6,
    "one empty row": lambda c: c.mask is not None and len(c.mask.empty) == 1 and "T" in c.mask.axes and c.sizes.T > 1,
    "an empty sample": lambda c: _empty_samples(c) == 1 < c.sizes.B,
    "an empty batch": lambda c: _empty_samples(c) == c.sizes.B,
    "a window not dividing S": lambda c: 1 < (c.call.window or 0) < c.sizes.S and c.sizes.S % (c.call.window or 1) > 0,
    **{f"a bias of {n}": lambda c, n=n: c.mask is not None and c.mask.finite == n for n in (-2.0, -3.0, -1e4, LOWEST)},
    "a bias of -inf": lambda c: OPTIONS["bias"](c) and c.mask.finite is None and c.mask.pattern != "normal",
    "a bias of numbers": lambda c: c.mask is not None and c.mask.pattern == "normal",
    **{f"a mask {axes}": lambda c, axes=axes: c.mask is not None and c.mask.axes == axes for axes in MASK_AXES},
    **{f"storage {storage}": lambda c, storage=storage: c.storage == storage for storage in STORAGES},
    **{f"{kind} queries": lambda c, kind=kind: c.values["q"].kind == kind for kind in SCORE_KINDS},
    **{f"{kind} keys": lambda c, kind=kind: c.values["k"].kind == kind for kind in SCORE_KINDS},
    **{f"{kind} values": lambda c, kind=kind: c.values["v"].kind == kind for kind in VALUE_KINDS},
    "block edges": lambda c: c.sizes.S > 64,
}  # fmt: skip


def _empty_samples(case: Case) -> int:
    """How many samples have no row that sees a key, as far as the mask hides."""
    x = case.build()
    hidden = None if case.mask is None or not case.mask.empty else ~visible(EVERYTHING, x.but(causal=False, window=None))
    return 0 if hidden is None else int(hidden.all((1, 2, 3)).sum())


def quick(claim: Claim, dtype: str, subject: Profile) -> list[Case]:
    """All cases that a quick audit looks at in the dtype, if none fails."""
    given, widest = claim.given, dtype == claim.dtypes_of(DTYPES)[0]
    examples = QUICK.examples if widest else QUICK.others
    examples = examples if given.draws is None else min(examples, given.draws)
    fixed = showcases(given, claim.id, subject, dtype, brief=QUICK.brief and not widest)
    return [*fixed, *islice(given.drawn(claim.id, subject, dtype, QUICK.largest, seed=DTYPES.index(dtype)), examples)]


@pytest.fixture(scope="module")
def forward() -> list[Case]:
    return [case for dtype in DTYPES for case in quick(claims()["reference.forward"], dtype, EVERYTHING)]


@pytest.mark.parametrize("region", REGIONS)
def test_quick_reaches_the_region(region: str, forward: list[Case]) -> None:
    assert sum(REGIONS[region](case) for case in forward) >= (1 if region.startswith(("a mask", "a bias")) else 2)


@pytest.mark.parametrize(("one", "other"), list(combinations(OPTIONS, 2)), ids="-".join)
def test_quick_reaches_both_options_together(one: str, other: str) -> None:
    """In every dtype, for a claim that wants them all."""
    if {one, other} == {"mask", "bias"}:
        return  # a case has one of them; claims on both add the other
    claim = dataclasses.replace(claims()["reference.forward"], given=ALL)
    for dtype in DTYPES:
        assert any(OPTIONS[one](case) and OPTIONS[other](case) for case in PAIRS_OF[dtype] or quick(claim, dtype, EVERYTHING))


ALL = Cases(storage="drawn", sinks="drawn", dropout="drawn")
PAIRS_OF = {dtype: showcases(ALL, "reference.forward", EVERYTHING, dtype, brief=True) for dtype in DTYPES}


def test_the_pairs_are_few() -> None:
    assert all(len(cases) <= 26 for cases in PAIRS_OF.values())


@pytest.mark.parametrize("levels", [(4, 2, 3, 2, 2, 2, 2), (1, 1, 2), (3, 3, 3), (1, 1)])
def test_a_covering_array_covers(levels: tuple[int, ...]) -> None:
    rows = covering(levels)
    assert rows[0] == (0,) * len(levels)
    for (i, n), (j, m) in combinations(enumerate(levels), 2):
        assert {(row[i], row[j]) for row in rows} == set(product(range(n), range(m)))


def test_a_covering_array_leaves_out_what_is_never_together() -> None:
    rows = covering((2, 3, 2), ((0, 1),))
    assert not any(row[0] and row[1] for row in rows)
    assert {(row[0], row[2]) for row in rows} == {(row[1] > 0, row[2]) for row in rows} == set(product((0, 1), (0, 1)))


# Exactness


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_every_case_is_one_of_the_dtype(dtype: str) -> None:
    for claim in CLAIMS:
        if claim.lacking(EVERYTHING) is not None or dtype not in claim.dtypes_of(DTYPES):
            continue
        for case in quick(claim, dtype, EVERYTHING):
            if max(case.sizes.T, case.sizes.S) > 100:
                continue
            x = case.build()
            plants = [case.redrawn(p, getattr(x, p.array)) for p in case.plant if p.array in ("q", "k", "v")]
            arrays = [x.q, x.k, x.v, x.bias, x.sinks, case.cotangent(), *plants]
            for array in (a for a in arrays if a is not None):
                assert np.array_equal(rounded(array, dtype), array, equal_nan=True), case
            assert all(np.isfinite(a).all() for a in (x.q, x.k, x.v))
            assert x.scale is None or rounded(np.array(x.scale), dtype) == x.scale


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.lacking(EVERYTHING) is None], ids=lambda c: c.id)
def test_gains_are_such_that_float16_holds_scores_and_sums(claim: Claim) -> None:
    for case in quick(claim, "float16", EVERYTHING):
        x = case.build()
        if 0 not in (x.q.size, x.k.size, x.v.size):
            assert np.abs(x.q).max() * np.abs(x.k).max() * x.q.shape[3] * max(1.0, abs(x.scale or 0.0)) < 32752
            assert np.abs(x.v).sum(2).max() < 32752
