"""Programs of models: what is drawn is offered and can be played, what is made smaller is smaller, lists are the oracle."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from attnspec.draws import drawn
from attnspec.properties.case import Case, Mask, Sizes, Values
from attnspec.properties.claim import claims
from attnspec.properties.models import FEATURES, Ids
from attnspec.properties.programs import NEEDS, Programs, admissible
from attnspec.properties.sessions import Session, real_tokens, tokens
from attnspec.properties.subject import BoolArray, FloatArray, Profile, Setting

CLAIMS = [c for c in claims().values() if c.of == "lm"]
VOCABULARY = 11
MORE = list(FEATURES)[list(FEATURES).index("routes") :]  # what a model may offer beside logits and a state


class Sums:
    """A model without numerics: the logit of word w after a row is the sum of its tokens plus w. Its state is the sums."""

    vocab_size, max_length = VOCABULARY, 100

    def __init__(self, *lacks: str) -> None:
        features = {name: "not offered" if name in (*lacks, *MORE) else None for name in FEATURES}
        settings = {"dtypes": ("float64",), "surroundings": ("none",)}
        self.profile = Profile({name: Setting(value, "inferred") for name, value in settings.items()}, features)

    def logits(self, ids: Ids, mask: BoolArray | None = None) -> FloatArray:
        return self.extend(ids, self.start(len(ids)), mask)[0]

    def start(self, batch: int) -> Any:
        return [[] for _ in range(batch)]

    def extend(self, ids: Ids, state: Any, mask: BoolArray | None = None) -> tuple[FloatArray, Any]:
        real = np.ones(ids.shape, bool) if mask is None else mask
        out = np.zeros((*ids.shape, VOCABULARY))
        for t in range(ids.shape[1]):
            for row, token, seen, to in zip(state, ids[:, t], real[:, t], out[:, t], strict=True):
                row += [int(token)] if seen else []
                to += sum(row) + np.arange(VOCABULARY)
        return out, state

    def reorder(self, state: Any, index: Ids) -> Any:
        return [list(state[i]) for i in index]

    def crop(self, state: Any, length: int) -> Any:
        return [row[:length] for row in state]

    def fork(self, state: Any) -> Any:
        return [list(row) for row in state]

    def surrounded(self, around: str, ids: Ids, mask: BoolArray | None = None) -> tuple[FloatArray, tuple[str, ...]]:
        del around
        return self.logits(ids, mask), ()

    def altered(self, what: str) -> tuple[str, ...]:
        del what
        return ()


def cases_of(given: Programs, profile: Profile) -> list[Case]:
    return [
        *given.fixed("cache.programs", profile, "float64"),
        *drawn(given.strategy("cache.programs", profile, "float64", 9), 30, "programs"),
        *itertools.islice(given.drawn("cache.programs", profile, "float64", 9, 1), 60),
    ]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
@pytest.mark.parametrize("lacks", [(), ("batch",), ("chunks", "crop"), ("cached-padding", "fork")])
def test_cases_are_what_the_subject_offers(claim: Any, lacks: tuple[str, ...]) -> None:
    profile = Sums(*lacks).profile
    if claim.lacking(profile) is not None:
        return
    for case in cases_of(claim.given, profile):
        assert admissible(case, profile)
        assert case.sizes.B == 1 or profile.offers("batch")
        assert Case.from_json(case.to_json()).canonical() == case.canonical()
        assert all(profile.offers(NEEDS.get(op, "cache")) for op, _ in case.schedule or ())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_claims_hold_on_sums(claim: Any) -> None:
    model = Sums()
    for case in cases_of(claim.given, model.profile) if claim.lacking(model.profile) is None else ():
        if claim.id != "cache.overflow-raises":
            claim.body(model, case)


def test_programs_say_what_a_list_says() -> None:
    """Every kind of step occurs, and the logits that are wanted are those of the lists."""
    given, seen = claims()["cache.programs"].given, set()
    for case in cases_of(given, Sums().profile):
        for heard in Session(Sums(), case).play():
            assert np.array_equal(heard.got, heard.want)
        seen |= {op for op, _ in case.schedule or ()}
    assert seen == set(given.ops)


def test_a_wrong_state_is_heard() -> None:
    class KeepsOneMore(Sums):
        def crop(self, state: Any, length: int) -> Any:
            return super().crop(state, length + 1)

    case = Case("cache.crop", "float64", Sizes(B=2), schedule=(("append", 3), ("crop", 1), ("append", 1)), values=WORDS)
    heard = list(Session(KeepsOneMore(), case).play())
    assert np.array_equal(heard[0].got, heard[0].want)
    assert not np.array_equal(heard[1].got, heard[1].want)


WORDS = {"ids": Values("normal")}


def test_simpler_programs_are_shorter() -> None:
    profile = Sums().profile
    given = Programs(("append", "crop"))
    case = Case(
        "cache.crop", "float64", Sizes(B=3), schedule=(("append", 4), ("crop", 2), ("append", 3)), values=WORDS, seed=5
    )

    def size(one: Case) -> tuple[int, int, int, int]:
        return (len(one.schedule or ()), sum(n for _, n in one.schedule or ()), one.sizes.B, one.seed)

    simpler = list(given.simpler(case, profile))
    assert simpler
    for one in simpler:
        assert all(a <= b for a, b in zip(size(one), size(case), strict=True))
        assert one.canonical() != case.canonical()
        assert (one.schedule or ())[0][0] == "append"  # there is nothing to crop before


@pytest.mark.parametrize("side", ["padding", "left-padding", "random"])
def test_padding_is_where_it_is_said(side: Any) -> None:
    idle = 0
    for seed in range(20):
        case = Case("mask.padded-left", "float64", Sizes(B=3, T=6), mask=Mask("bool", side), values=WORDS, seed=seed)
        alone = real_tokens(case, "ids", 1, 6)
        assert 0 < alone.sum() < 6
        real = real_tokens(case, "ids", 3, 6)
        idle += int((~real.any(axis=1)).sum())
        assert real.all(axis=1).any()  # as long as the call
        if side != "random":
            ordered = np.sort(real, axis=1)
            assert np.array_equal(real, ordered if side == "left-padding" else ordered[:, ::-1])
    assert idle  # a row that reads nothing while others do


def test_tokens_are_different_or_few() -> None:
    model = Sums()
    case = Case("cache.programs", "float64", Sizes(B=2, T=8), values=WORDS)
    ids = tokens(model, case, "ids", 2, 8)
    assert all(len(set(row)) == 8 for row in ids.tolist())
    assert ids.min() >= 0
    assert ids.max() < VOCABULARY
    few = tokens(model, case.but(values={"ids": Values("ties")}), "ids", 2, 40)
    assert len(set(few.ravel().tolist())) <= 3
