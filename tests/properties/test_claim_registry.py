"""The registry: ids that are well formed and unique, one order, and a selection that names families or claims."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

import pytest

from attnspec.properties import models, planted
from attnspec.properties.claim import (
    FAMILIES,
    REGISTRY,
    Allowed,
    Claim,
    Option,
    Registry,
    Source,
    UnknownClaim,
    claims,
    select,
)
from attnspec.properties.subject import FEATURES, Profile, Setting
from attnspec.properties.verdict import Level

ALL = list(claims().values())


def made(name: str = "mask.causal", module: str = "one") -> Claim:
    def body(subject: object, case: object) -> None:
        """It holds."""

    body.__module__ = module
    return Claim(name, "must", "MK1", "I25", Source("a paper", "eq. 1"), (), None, "exact", (), body)


@pytest.mark.parametrize("claim", ALL, ids=lambda c: c.id)
def test_every_claim_says_what_where_from_and_who_kills_it(claim: Claim) -> None:
    assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+(-[a-z0-9]+)*", claim.id)
    assert claim.family in FAMILIES
    assert claim.level in get_args(Level)
    assert re.fullmatch(r"[A-Z]{2,3}\d+", claim.handle)
    assert re.fullmatch(r"I\d+", claim.idea)
    assert claim.source.work
    assert str(claim.source).startswith(claim.source.work)
    assert claim.within in get_args(Allowed)
    assert claim.about is None or claim.about in get_args(Option)
    assert set(claim.needs) <= set(FEATURES if claim.of == "attention" else models.FEATURES)
    assert (claim.given is None) == (claim.within == "observed")
    assert claim.mutants
    assert len(set(claim.mutants)) == len(claim.mutants)
    assert claim.body.__module__.startswith("attnspec.properties.claims.")


@pytest.mark.parametrize("claim", ALL, ids=lambda c: c.id)
def test_the_docstring_is_the_statement(claim: Claim) -> None:
    """One sentence in the first line, then nothing or an explanation after an empty line."""
    first, *rest = (claim.body.__doc__ or "").strip().splitlines()
    assert claim.statement == first
    assert first.endswith(".")
    assert first[0].isupper() or first.startswith("scale")  # a parameter's own name stays in lower case
    assert not rest or not rest[0].strip()
    assert len(claim.statement) <= 120


def test_statements_and_bodies_are_unique() -> None:
    assert len({claim.statement for claim in ALL}) == len(ALL)
    assert len({claim.body.__name__ for claim in ALL}) == len(ALL)


def test_the_mutants_that_claims_name_exist() -> None:
    assert sorted({mutant for claim in ALL for mutant in claim.mutants} - set(planted.ids())) == []


def test_claims_and_mutants_have_no_id_in_common() -> None:
    assert not set(claims()) & set(planted.ids())


def test_a_duplicate_id_names_both_modules() -> None:
    registry = Registry()
    registry.add(made(module="attnspec.properties.claims.mask"))
    with pytest.raises(ValueError, match=r"registered twice: by attnspec\.properties\.claims\.mask and by elsewhere"):
        registry.add(made(module="elsewhere"))
    assert len(registry) == 1


@pytest.mark.parametrize(
    "name",
    ["mask", "mask.", ".causal", "Mask.causal", "mask.off_by_one", "mask.a--b", "mask.causal-", "mask.a.b", "maks.causal"],
)
def test_a_malformed_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"an id is family\.what-is-true"):
        Registry().add(made(name))


def test_the_order_is_that_of_the_families_whatever_was_registered_first() -> None:
    names = ["reference.forward", "mask.b", "softmax.z", "mask.a"]
    for order in (names, names[::-1]):
        registry = Registry()
        for name in order:
            registry.add(made(name))
        assert list(registry) == ["softmax.z", "mask.a", "mask.b", "reference.forward"]


def test_the_order_is_the_same_in_every_process() -> None:
    code = "from attnspec.properties.claim import claims; print(*claims())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {" ".join(claims())}


def test_select_all_some_and_not_some() -> None:
    everything = [claim.id for claim in select(())]
    assert everything == list(claims()) == list(REGISTRY)
    masks = [i for i in everything if i.startswith("mask.")]
    assert [c.id for c in select(("mask",))] == [c.id for c in select(("mask.",))] == masks
    assert [c.id for c in select(("mask.causal",))] == ["mask.causal"]
    assert [c.id for c in select((), ("mask",))] == [i for i in everything if i not in masks]
    assert [c.id for c in select(("mask",), ("mask.causal",))] == [i for i in masks if i != "mask.causal"]
    assert [c.id for c in select(("mask.causal", "softmax", "mask"))] == [i for i in everything if i[:4] in ("mask", "soft")]
    assert select(("mask",), ("mask",)) == []


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("mask.caus", "did you mean 'mask.causal'"),  # a prefix ends at a dot: mask.causal-is-triangle is another claim
        ("mas", "did you mean 'mask'"),
        ("mask.casual", "did you mean 'mask.causal'"),
        ("mask_causal", "did you mean 'mask.causal'"),
        ("MASK.CAUSAL", "did you mean 'mask.causal'"),
        ("zzzz", "claim 'zzzz' matches nothing"),
        ("", "claim '' matches nothing"),
    ],
)
def test_a_selection_that_matches_nothing_names_the_nearest(pattern: str, said: str) -> None:
    for arguments in (((pattern,), ()), ((), (pattern,)), (("mask", pattern), ())):
        with pytest.raises(UnknownClaim) as caught:
            select(*arguments)
        assert said in str(caught.value)


def test_mask_causal_does_not_select_what_only_begins_so() -> None:
    assert [i for i in claims() if i.startswith("mask.causal")] != ["mask.causal"]
    assert [c.id for c in select(("mask.causal",))] == ["mask.causal"]


def test_a_claim_lacks_what_the_profile_lacks() -> None:
    window = claims()["mask.window"]
    everything = Profile(features=dict.fromkeys(FEATURES))
    assert window.lacking(everything) is None
    without = Profile(features=dict.fromkeys(FEATURES) | {"window": "not offered: no such parameter"})
    assert window.lacking(without) == "not offered: no such parameter"
    assert window.lacking(Profile()) == "not offered"


@pytest.mark.parametrize(
    ("origin", "level"), [("inferred", "may"), ("declared", "must"), ("contract", "must"), ("adapter", "must")]
)
def test_a_promise_raises_the_level(origin: str, level: str) -> None:
    claim = claims()["convention.polarity"]
    assert claim.level_for(Profile({"polarity": Setting("attend", origin)})) == level
    assert claim.level_for(Profile()) == claim.level == "may"
