"""One claim on one subject in one dtype: fixed cases, then Hypothesis, which finds and shrinks; then an outcome."""

from __future__ import annotations

import hashlib
import math
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import hypothesis
import msgspec
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.strategies import SearchStrategy

from attnspec.draws import by_the_seed_alone
from attnspec.function import FunctionSubject
from attnspec.model import ModelSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.compare import EXACT, Ledger, ledger
from attnspec.properties.fitting import fitted
from attnspec.properties.reduction import reduced
from attnspec.properties.subject import Setting
from attnspec.properties.twins import TwinSubject
from attnspec.properties.verdict import (
    BadResult,
    Evidence,
    Inapplicable,
    Refused,
    ValueFailure,
    Verdict,
    Violation,
    first_line,
)


@dataclass(frozen=True)
class Budget:
    """How long to look. Examples are counted, so that a verdict does not depend on the load of the machine."""

    name: str
    examples: int  # drawn in the widest dtype that is looked at; elsewhere there is more to look at in fewer cases
    others: int  # drawn in each other dtype
    largest: int
    seconds: float  # a guard against hangs, for one unit; beyond it the verdict is UNKNOWN
    target: bool = False
    shrink: bool = True
    # Exposed cases after which a unit's twin is no longer run; None to run it on every case, 0 never: a case that is replayed
    # was violated by someone and so has power, and in the kill matrix only violations count.
    enough: int | None = None
    brief: bool = False  # whether dtypes but the widest have few fixed cases
    extra_size: int = 0  # how much larger the fixed cases are than in an audit
    fixed: bool = True  # whether the fixed cases are tried, which are the same at every seed


BUDGETS = {
    "quick": Budget("quick", 20, 6, 9, 60.0, enough=5, brief=True),
    "ci": Budget("ci", 120, 60, 17, 300.0, target=True),
    "deep": Budget("deep", 5000, 5000, 40, 3600.0, target=True),
    "replay": Budget("replay", 0, 0, 0, 60.0, enough=0),  # the hint alone
    # What differs from seed to seed in quick and in ci: to look for false alarms at many seeds.
    "drawn": Budget("drawn", 20, 6, 9, 60.0, enough=0, fixed=False),
    "drawn-ci": Budget("drawn-ci", 120, 60, 17, 300.0, target=True, enough=0, fixed=False),
    # For the kill matrix: the first of quick's draws, so that quick finds whatever this does.
    "kill": Budget("kill", 8, 2, 9, 60.0, shrink=False, enough=0, brief=True),
    # What quick finds at sizes that the mutants were not written for.
    **{
        f"elsewhere-{n}": Budget(f"elsewhere-{n}", 20, 6, 9, 60.0, shrink=False, enough=0, brief=True, extra_size=n)
        for n in (1, 2, 3)
    },
}


@dataclass
class Outcome:
    """What the search found.

    Of `cases` that were decided, the claim's twin was run on `tried`; `exposed` of these rejected it. `outside` are those
    that no bound covers: they decide nothing.
    """

    verdict: Verdict = Verdict.HOLDS
    reason: str | None = None
    decided_by: str = EXACT
    cases: int = 0
    tried: int = 0
    exposed: int = 0
    outside: int = 0
    ratio: float | None = None
    case: Case | None = None
    evidence: Evidence | None = None
    exception: str | None = None
    refused: str | None = None
    failing: list[Case] = field(default_factory=list)


def search(
    claim: Claim, subject: FunctionSubject | ModelSubject, dtype: str, budget: Budget, seed: int, hint: Case | None = None
) -> Outcome:
    """Looks for a case that violates the claim and shrinks it.

    `hint` is the minimal case of another dtype: if it fails here too, nothing else is tried.
    """
    run = _Run(claim, subject, budget)
    try:
        outcome = run.look(dtype, seed, hint)
        if outcome.evidence and outcome.decided_by == EXACT and not subject.repeats(run.calls):
            # The bits differ from call to call: an exact relation says nothing here, the bound decides (engine 4).
            known = subject.profile.settings.get("deterministic", Setting(True, "inferred"))
            settings = subject.profile.settings | {"deterministic": Setting(False, known.origin)}
            subject.profile = msgspec.structs.replace(subject.profile, settings=settings)
            run = _Run(claim, subject, budget)
            outcome = run.look(dtype, seed, hint)
            outcome.decided_by = "bound"
        if outcome.evidence:
            subject.calls[:] = run.calls  # those of the smallest case, from which the script is written
        return outcome
    except hypothesis.errors.Flaky as error:
        return Outcome(Verdict.UNKNOWN, f"flaky: {first_line(error)}", cases=run.outcome.cases)
    except MemoryError:
        return Outcome(Verdict.UNKNOWN, "MemoryError in the subject", cases=run.outcome.cases)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"error of attnspec in {claim.id}: {first_line(error)} ({where.filename}:{where.lineno})"
        return Outcome(Verdict.UNKNOWN, reason, cases=run.outcome.cases, exception=traceback.format_exc())


class _Run:
    def __init__(self, claim: Claim, subject: FunctionSubject | ModelSubject, budget: Budget) -> None:
        self.claim, self.subject, self.budget = claim, subject, budget
        self.outcome = Outcome()
        self.twin = TwinSubject(subject.profile, claim.twin, claim.gradient_twin)
        self.calls: list[dict[str, Any]] = []

    def look(self, dtype: str, seed: int, hint: Case | None) -> Outcome:
        given = self.claim.given
        assert given is not None
        if hint is not None and (self._fails(fitted(hint.but(dtype=dtype, id="", sha256=""))) or not self.budget.examples):
            return self._settled()
        first = next((c for c in self._fixed(dtype) if self._fails(c)), None)
        if first is None:
            first = self._drawn(dtype, seed)
        if first is not None and self.budget.shrink:
            # The last failure noted is the smallest.
            reduced(first, partial(given.simpler, profile=self.subject.profile), self._fails)
        return self._settled()

    def _fixed(self, dtype: str) -> list[Case]:
        assert self.claim.given is not None
        if not self.budget.fixed:
            return []
        brief, given = self.budget.brief and not self._is_widest(dtype), self.claim.given
        return given.fixed(self.claim.id, self.subject.profile, dtype, brief=brief, extra_size=self.budget.extra_size)

    def _is_widest(self, dtype: str) -> bool:
        return dtype == self.claim.dtypes_of(self.subject.profile.get("dtypes", (dtype,)))[0]

    def _settled(self) -> Outcome:
        o = self.outcome
        if o.evidence is not None:
            o.verdict = Verdict.VIOLATED
        elif o.cases == 0:
            o.verdict, o.reason = Verdict.NOT_APPLICABLE, o.refused or o.reason or "no case applies"
            if o.failing:
                o.verdict, o.reason = Verdict.UNKNOWN, "every case raised an exception that depends on the values"
        elif o.exposed == 0 and self.budget.enough != 0:
            o.verdict, o.reason = Verdict.UNKNOWN, "vacuous: no case could have exposed a wrong implementation"
        else:
            o.reason = None
        return o

    def _fails(self, case: Case) -> bool:
        try:
            self.check(case)
        except Violation:
            return True
        return False

    def check(self, case: Case) -> None:
        """Runs the claim on one case and notes what it amounted to. Raises Violation."""
        o = self.outcome
        self.subject.calls.clear()
        with ledger() as book, np.errstate(invalid="ignore", over="ignore"):  # of a subject whose numbers are not finite
            try:
                self.claim.body(self.subject, case)
            except Refused as refused:
                o.refused = str(refused)
                return
            except Inapplicable as outside:
                o.outside += 1
                o.reason = o.reason or (
                    f"no bound covers these cases: {outside}" if self.claim.of == "attention" else str(outside)
                )
                return
            except ValueFailure:
                o.failing.append(case)
                return
            except (Violation, BadResult) as wrong:
                found = (
                    wrong
                    if isinstance(wrong, Violation)
                    else Violation(Evidence(str(wrong), got="another", expected="an output"))
                )
                o.cases, o.tried, o.exposed = o.cases + 1, o.tried + 1, o.exposed + 1
                o.case, o.evidence, o.decided_by, o.ratio = case, found.evidence, found.decided_by, found.ratio
                self.calls = list(self.subject.calls)
                raise found from None
        o.cases += 1
        self._try_the_twin(case, book)
        if o.evidence is None:
            o.decided_by = book.decided_by if o.decided_by == EXACT else o.decided_by
            if book.ratio is not None:
                o.ratio = max(book.ratio, o.ratio or 0.0)
        if self.budget.target and book.ratio is not None and hypothesis.currently_in_test_context():
            hypothesis.target(book.ratio, label="error in units of the bound")

    def _try_the_twin(self, case: Case, book: Ledger) -> None:
        """Notes whether the claim rejects its twin on a case on which it held.

        A twin is ours: what it raises beside a violation is an error of attnspec. A claim of others that names none is
        believed about its own power.
        """
        o = self.outcome
        if self.budget.enough is not None and o.exposed >= self.budget.enough:
            return
        o.tried += 1
        if self.claim.twin is None and self.claim.gradient_twin is None:
            o.exposed += book.exposed
            return
        with suppress(Inapplicable):
            try:
                self.claim.body(self.twin, case)
            except Violation:
                o.exposed += 1

    def _drawn(self, dtype: str, seed: int) -> Case | None:
        """The first drawn case that fails, or None. Where Hypothesis draws, it also shrinks, and None is left to do."""
        given, profile = self.claim.given, self.subject.profile
        assert given is not None
        wanted = self.budget.examples if self._is_widest(dtype) else self.budget.others
        wanted = math.ceil(given.share * wanted)
        examples = wanted if given.draws is None else min(wanted, given.draws)
        own = int.from_bytes(hashlib.sha256(f"{seed}/{self.claim.id}/{dtype}".encode()).digest()[:8], "big")
        if not self.budget.target:
            drawn = given.drawn(self.claim.id, profile, dtype, self.budget.largest, own)
            return next((case for case in islice(drawn, examples) if self._fails(case)), None)
        if examples:
            self._climb(given.strategy(self.claim.id, profile, dtype, self.budget.largest), own, examples)
        return None

    def _climb(self, cases: SearchStrategy[Case], seed: int, examples: int) -> None:
        """Hypothesis draws, climbs towards the largest errors in units of the bound, and shrinks."""
        phases = [Phase.generate, Phase.target, *([Phase.shrink] if self.budget.shrink else [])]

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
            phases=phases,
        )
        @hypothesis.given(cases)
        def attempt(case: Case) -> None:
            self.check(case)

        with suppress(Violation), by_the_seed_alone():  # the last failing case, which `check` noted, is the minimal one
            attempt()
