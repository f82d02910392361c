"""One claim on one subject in one dtype: fixed cases, then Hypothesis, which finds and shrinks; then an outcome."""

from __future__ import annotations

import hashlib
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import msgspec
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity

from attnspec.draws import by_the_seed_alone
from attnspec.function import FunctionSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.compare import EXACT, ledger
from attnspec.properties.reduction import reduced
from attnspec.properties.showcases import showcases
from attnspec.properties.subject import Setting
from attnspec.properties.verdict import BadResult, Evidence, Refused, ValueFailure, Verdict, Violation, first_line


@dataclass(frozen=True)
class Budget:
    """How long to look. Examples are counted, so that a verdict does not depend on the load of the machine."""

    name: str
    examples: int
    largest: int
    seconds: float  # a guard against hangs, for one unit; beyond it the verdict is UNKNOWN
    target: bool = False
    shrink: bool = True


BUDGETS = {
    "quick": Budget("quick", 25, 9, 60.0),
    "ci": Budget("ci", 200, 17, 300.0, target=True),
    "deep": Budget("deep", 5000, 40, 3600.0, target=True),
    "replay": Budget("replay", 0, 0, 60.0),  # the hint alone
    "kill": Budget("kill", 25, 9, 60.0, shrink=False),  # quick's verdicts, for the kill matrix
}


@dataclass
class Outcome:
    """What the search found."""

    verdict: Verdict = Verdict.HOLDS
    reason: str | None = None
    decided_by: str = EXACT
    cases: int = 0
    exposed: int = 0
    ratio: float | None = None
    case: Case | None = None
    evidence: Evidence | None = None
    exception: str | None = None
    refused: str | None = None
    failing: list[Case] = field(default_factory=list)


def search(
    claim: Claim, subject: FunctionSubject, dtype: str, budget: Budget, seed: int, hint: Case | None = None
) -> Outcome:
    """Looks for a case that violates the claim and shrinks it.

    `hint` is the minimal case of another dtype: if it fails here too, nothing else is tried.
    """
    run = _Run(claim, subject, budget)
    try:
        outcome = run.look(dtype, seed, hint)
        if outcome.evidence and outcome.decided_by == EXACT and not run.repeatable():
            # The bits differ from call to call: an exact relation says nothing here, the bound decides (engine 4).
            known = subject.profile.settings.get("deterministic", Setting(True, "inferred"))
            settings = subject.profile.settings | {"deterministic": Setting(False, known.origin)}
            subject.profile = msgspec.structs.replace(subject.profile, settings=settings)
            outcome = _Run(claim, subject, budget).look(dtype, seed, hint)
            outcome.decided_by = "bound"
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
    def __init__(self, claim: Claim, subject: FunctionSubject, budget: Budget) -> None:
        self.claim, self.subject, self.budget = claim, subject, budget
        self.outcome = Outcome()
        self.calls: list[dict[str, Any]] = []

    def look(self, dtype: str, seed: int, hint: Case | None) -> Outcome:
        given = self.claim.given
        assert given is not None
        if hint is not None and (self._fails(hint.but(dtype=dtype, id="", sha256="")) or not self.budget.examples):
            return self._settled()
        first = next((c for c in showcases(given, self.claim.id, self.subject.profile, dtype) if self._fails(c)), None)
        if first is None:
            self._shrunk_by_hypothesis(dtype, seed)
        elif self.budget.shrink:
            self._fails(reduced(first, given, self.subject.profile, self._fails))  # the last failure noted is the smallest
        return self._settled()

    def _settled(self) -> Outcome:
        o = self.outcome
        if o.evidence is not None:
            o.verdict = Verdict.VIOLATED
        elif o.cases == 0:
            o.verdict, o.reason = Verdict.NOT_APPLICABLE, o.refused or "no case applies"
            if o.failing:
                o.verdict, o.reason = Verdict.UNKNOWN, "every case raised an exception that depends on the values"
        elif o.exposed == 0:
            o.verdict, o.reason = Verdict.UNKNOWN, "vacuous: no case could have exposed a wrong implementation"
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
        with ledger() as book:
            try:
                self.claim.body(self.subject, case)
            except Refused as refused:
                o.refused = str(refused)
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
                o.cases, o.exposed = o.cases + 1, o.exposed + 1
                o.case, o.evidence, o.decided_by, o.ratio = case, found.evidence, found.decided_by, found.ratio
                self.calls = list(self.subject.calls)
                raise found from None
        o.cases += 1
        o.exposed += book.exposed
        if o.evidence is None:
            o.decided_by = book.decided_by if o.decided_by == EXACT else o.decided_by
            if book.ratio is not None:
                o.ratio = max(book.ratio, o.ratio or 0.0)
        if self.budget.target and book.ratio is not None and hypothesis.currently_in_test_context():
            hypothesis.target(book.ratio, label="error in units of the bound")

    def _shrunk_by_hypothesis(self, dtype: str, seed: int) -> None:
        assert self.claim.given is not None
        strategy = self.claim.given.strategy(self.claim.id, self.subject.profile, dtype, self.budget.largest)
        phases = {Phase.generate: True, Phase.target: self.budget.target, Phase.shrink: self.budget.shrink}
        own = int.from_bytes(hashlib.sha256(f"{seed}/{self.claim.id}/{dtype}".encode()).digest()[:8], "big")

        @hypothesis.seed(own)
        @hypothesis.settings(
            max_examples=self.budget.examples,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
            phases=[p for p, wanted in phases.items() if wanted],
        )
        @hypothesis.given(strategy)
        def attempt(case: Case) -> None:
            self.check(case)

        with suppress(Violation), by_the_seed_alone():  # the last failing case, which `check` noted, is the minimal one
            attempt()

    def repeatable(self) -> bool:
        """Whether each call of the failing case gives the same bits three times over."""
        try:
            return all(self._same_bits(dict(call)) for call in self.calls if "cotangent" not in call)
        finally:
            self.subject.calls[:] = self.calls  # from which the script is written

    def _same_bits(self, call: dict[str, Any]) -> bool:
        arrays = [call.pop(n) for n in "qkv"]
        try:
            outputs = [self.subject(*arrays, **call).out for _ in range(3)]
        except (BadResult, Refused, ValueFailure):
            return True  # it refuses alike
        return all(np.array_equal(outputs[0], o, equal_nan=True) for o in outputs[1:])
