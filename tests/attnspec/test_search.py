"""The search: what a claim's twin says of its power, cases that no bound covers, and how many cases are looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from attnspec.conventions import subject_of
from attnspec.function import FunctionSubject
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Claim, claims
from attnspec.properties.compare import same_bits
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest, mean_of_values
from attnspec.properties.verdict import Inapplicable, Verdict
from attnspec.search import BUDGETS, search
from attnspec.target import load

QUICK = BUDGETS["quick"]


@pytest.fixture(scope="module")
def subject() -> FunctionSubject:
    return subject_of(load("impl:attention", {}))


def made(body: Callable[[Attention, Case], None], **changes: object) -> Claim:
    return dataclasses.replace(claims()["softmax.in-hull"], **({"body": body, "given": Cases(), "mutants": ()} | changes))


def shaped(subject: Attention, case: Case) -> None:
    """The output has a shape: no wrong numbers are seen."""
    x = case.build()
    same_bits(np.zeros(x.through(subject).shape), np.zeros((*x.q.shape[:3], x.v.shape[3])), "shape")


def finite(subject: Attention, case: Case) -> None:
    x = case.build()
    same_bits(np.isfinite(x.through(subject)) * 1.0, np.ones((*x.q.shape[:3], x.v.shape[3])), "finiteness")


def infinite(honest: Honest, x: Inputs) -> FloatArray:
    return np.full_like(honest(x), np.inf) if x.q.shape[2] == 1 else honest(x)


def broken(honest: Honest, x: Inputs) -> FloatArray:
    raise ZeroDivisionError("a twin of ours")


def test_a_claim_that_its_twin_passes_is_vacuous(subject: FunctionSubject) -> None:
    outcome = search(made(shaped, twin=mean_of_values), subject, "float64", QUICK, 1)
    assert outcome.verdict is Verdict.UNKNOWN
    assert "vacuous" in (outcome.reason or "")
    assert outcome.exposed == 0 < outcome.tried == outcome.cases


def test_a_case_is_exposed_if_the_twin_is_rejected_on_it(subject: FunctionSubject) -> None:
    claim = made(finite, twin=infinite)
    outcome = search(claim, subject, "float64", dataclasses.replace(QUICK, enough=None), 1)
    assert outcome.verdict is Verdict.HOLDS
    assert 0 < outcome.exposed < outcome.tried == outcome.cases  # only where T = 1


def test_quick_asks_the_twin_until_enough_cases_are_exposed(subject: FunctionSubject) -> None:
    outcome = search(claims()["reference.forward"], subject, "float64", QUICK, 1)
    assert outcome.exposed == QUICK.enough <= outcome.tried < outcome.cases


def test_an_error_in_a_twin_is_one_of_ours(subject: FunctionSubject) -> None:
    outcome = search(made(finite, twin=broken), subject, "float64", QUICK, 1)
    assert outcome.verdict is Verdict.UNKNOWN
    assert "error of attnspec" in (outcome.reason or "")
    assert "a twin of ours" in (outcome.reason or "")


def test_cases_that_no_bound_covers_decide_nothing(subject: FunctionSubject) -> None:
    def outside(subject: Attention, case: Case) -> None:
        if case.sizes.T > 1:
            raise Inapplicable("P1: scores reach 4e+04")
        finite(subject, case)

    def nowhere(subject: Attention, case: Case) -> None:
        raise Inapplicable("P1: scores reach 4e+04")

    some = search(made(outside, twin=infinite), subject, "float64", QUICK, 1)
    assert some.verdict is Verdict.HOLDS
    assert some.outside > some.cases > 0
    assert some.reason is None
    none = search(made(nowhere, twin=infinite), subject, "float64", QUICK, 1)
    assert none.verdict is Verdict.NOT_APPLICABLE
    assert none.reason == "no bound covers these cases: P1: scores reach 4e+04"


@pytest.mark.parametrize(("draws", "fewer"), [(0, 20), (3, 17), (None, 0), (99, 0)])
def test_a_claim_may_limit_what_is_drawn(subject: FunctionSubject, draws: int | None, fewer: int) -> None:
    all_of_them = search(made(finite, twin=infinite), subject, "float64", QUICK, 1).cases
    given = Cases(draws=draws)
    assert search(made(finite, twin=infinite, given=given), subject, "float64", QUICK, 1).cases == all_of_them - fewer


def test_the_cases_of_the_widest_dtype_are_the_most(subject: FunctionSubject) -> None:
    claim = claims()["softmax.in-hull"]
    counts = [search(claim, subject, dtype, QUICK, 1).cases for dtype in ("float64", "float32")]
    assert counts[0] > 1.5 * counts[1] > 20


def test_hypothesis_climbs_towards_the_bound(subject: FunctionSubject) -> None:
    claim = claims()["reference.forward"]
    few = dataclasses.replace(BUDGETS["ci"], examples=60, largest=9)
    climbed = search(made(claim.body, given=Cases(gains=(1.0,)), twin=mean_of_values), subject, "float32", few, 1)
    assert climbed.verdict is Verdict.HOLDS
    assert climbed.cases > 60
    assert climbed.ratio is not None
    assert 0 < climbed.ratio < 1
