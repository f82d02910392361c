"""Every case that is drawn, fixed or met on the way of a reduction is one that the subject's profile admits."""

from __future__ import annotations

import hashlib
from itertools import product

import hypothesis
import pytest
from hypothesis import strategies as st

from attnspec.properties.case import MASK_AXES, Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.oracle import visible
from attnspec.properties.reduction import reduced, simpler
from attnspec.properties.showcases import showcases
from attnspec.properties.strategies import Cases, zero_rows
from attnspec.properties.subject import FEATURES, Profile, Setting

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
CLAIMS = [claim for claim in claims().values() if claim.given is not None]
PAIRS = [
    pytest.param(claim, subject, id=f"{claim.id}-{name}")
    for claim, (name, subject) in product(CLAIMS, PROFILES.items())
    if claim.lacking(subject) is None
]


def admissible(case: Case, given: Cases, subject: Profile) -> None:
    """Asserts that the subject offers all that the case has, and that no row is empty that must not be."""
    z, call, mask, offers = case.sizes, case.call, case.mask, subject.offers
    assert min(z.B, z.H, z.G, z.T, z.S, z.D, z.E) >= 1
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
    }
    assert not [feature for feature, there in needed.items() if there and not offers(feature)]
    for option in ("causal", "scale", "window", "softcap"):
        wanted = getattr(given, option)
        there = getattr(call, option) is not None and getattr(call, option) is not False
        assert wanted != "always" or there, option
        assert wanted != "never" or not there or (option == "causal" and not offers("non-causal")), option
    assert given.mask != "always" or mask is not None
    assert given.mask != "never" or mask is None
    assert all(getattr(z, letter) == size for letter, size in given.sizes.items())
    assert not given.square or z.T == z.S
    assert not given.identity or (z.E == z.S and case.values["v"].kind == "one-hot")
    for plant, asked in zip(case.plant, given.plant, strict=True):
        assert (plant.array, plant.where) == (asked.array, asked.where)
        assert 0 <= plant.t <= max(0, {"after": z.T - 2, "other-rows": z.B - 1}.get(plant.where, 0))
    if mask is not None:
        assert mask.axes in subject.get("mask_axes" if mask.kind == "bool" else "bias_axes", MASK_AXES)
        assert given.empty != "never" or not mask.empty
    if not zero_rows(subject) and given.empty != "always":
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
@hypothesis.settings(max_examples=6, deadline=None, database=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_drawn_cases_are_admissible(claim: Claim, subject: Profile, data: st.DataObject) -> None:
    admissible(data.draw(claim.given.strategy(claim.id, subject, "float32", 9)), claim.given, subject)


@pytest.mark.parametrize("name", PROFILES)
def test_sizes_are_at_least_what_the_claim_wants(name: str) -> None:
    """Of all cases; H may be smaller where the subject has no heads."""
    subject = PROFILES[name]
    for claim in CLAIMS:
        wanted = {letter: least for letter, least in claim.given.at_least.items() if letter != "H"}
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
@hypothesis.settings(max_examples=2, deadline=None, database=None, derandomize=True, phases=[hypothesis.Phase.generate])
@hypothesis.given(data=st.data(), share=st.sampled_from((1, 2, 5)))
def test_a_reduction_ends_and_stays_admissible(claim: Claim, subject: Profile, data: st.DataObject, share: int) -> None:
    given = claim.given
    case = data.draw(given.strategy(claim.id, subject, "float32", 9))
    tried: list[Case] = []

    def failing(candidate: Case) -> bool:
        tried.append(candidate)
        admissible(candidate, given, subject)
        assert len(tried) < 2000, "it does not end"
        return fails(candidate, share)

    smallest = reduced(case, given, subject, failing)
    assert smallest == case or fails(smallest, share)
    assert not any(fails(candidate, share) for candidate in simpler(smallest, given, subject))


def test_a_defect_in_every_case_is_reduced_to_almost_nothing() -> None:
    given = Cases()
    everything = PROFILES["everything"]
    for case in showcases(given, "reference.forward", everything, "float32"):
        z = reduced(case, given, everything, lambda _: True).sizes
        assert max(z.B, z.H, z.G, z.T, z.S, z.D, z.E) == 1


def test_a_claim_that_wants_an_option_gets_it() -> None:
    for claim, (_, subject) in product(CLAIMS, PROFILES.items()):
        if claim.lacking(subject) is None:
            cases = showcases(claim.given, claim.id, subject, "float64")
            for option in ("scale", "window", "softcap"):
                assert getattr(claim.given, option) != "always" or all(getattr(c.call, option) is not None for c in cases)
