"""What a failure depends on: its minimal case is run again with one field changed at a time.

A change with which the claim fails all the same shows what does not matter; one with which it holds shows what does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from attnspec.exactness import exactness
from attnspec.function import FunctionSubject
from attnspec.localisation import leak
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.given import Diagnosis, Variation
from attnspec.properties.subject import FloatArray, Profile, Result
from attnspec.properties.verdict import Depends, Record, Verdict
from attnspec.search import BUDGETS, search
from attnspec.target import Loaded


def depends(loaded: Loaded, subject: FunctionSubject, case: Case) -> Depends:
    """What the failure of this case depends on. It runs in the worker, beside the subject."""
    del loaded
    claim, profile = claims()[case.claim], subject.profile
    results: list[tuple[Variation, bool]] = []
    try:
        for variation in variations(case, claim, profile):
            fails = _fails(claim, subject, variation)
            if fails is not None:
                results.append((variation, fails))
    finally:
        subject.profile = profile  # one run alone may have taken it for one that gives other bits each time
    return summed_up(case, results)


def _fails(claim: Claim, subject: FunctionSubject, variation: Variation) -> bool | None:
    """Whether the claim fails for the changed case; None if that case decides nothing."""
    runs: Any = _Recorded(subject) if variation.recorded else subject
    outcome = search(claim, runs, variation.case.dtype, BUDGETS["replay"], 0, variation.case)
    return {Verdict.VIOLATED: True, Verdict.HOLDS: False}.get(outcome.verdict)


class _Recorded:
    """The subject as it computes when gradients are recorded; some libraries take another kernel then."""

    def __init__(self, subject: FunctionSubject) -> None:
        self._subject = subject
        self.profile = subject.profile
        self.calls = subject.calls

    def __call__(self, q: FloatArray, k: FloatArray, v: FloatArray, **options: Any) -> Result:
        options.pop("need", None)
        found = self._subject.vjp(q, k, v, np.zeros((*q.shape[:3], v.shape[3])), **options)
        return Result(found.out, found.dtype)

    def repeats(self, calls: Iterable[Mapping[str, Any]]) -> bool:
        return self._subject.repeats(calls)


def variations(case: Case, claim: Claim, profile: Profile) -> Iterator[Variation]:
    """The cases that differ from this one in one field, and this one while gradients are recorded."""
    assert claim.given is not None
    yield from claim.given.variations(case, profile)
    if profile.offers("gradients") and claim.family != "grad":
        yield Variation("recorded", "with gradients recorded", case.but(id="", sha256=""), recorded=True)


def summed_up(case: Case, results: Sequence[tuple[Variation, bool]]) -> Depends:
    """The outcomes in few words: fields with one answer are named once, others change by change."""
    on: list[str] = []
    not_on: list[str] = []
    same: dict[str, list[str]] = {"for other values of": [], "with larger": []}
    fields: dict[str, list[tuple[Variation, bool]]] = {}
    for variation, fails in results:
        fields.setdefault(variation.field, []).append((variation, fails))
    for field, tries in fields.items():
        failing = [v.text for v, fails in tries if fails]
        holding = [v.text for v, fails in tries if not fails]
        kind, _, name = field.partition(" ")
        if kind == "seed":
            failing, holding = _counted(len(failing), len(tries))
        elif kind == "values" and not holding:
            same["for other values of"].append(name)
            failing = []
        elif kind == "size":
            before = _size(case, name)
            grown = [fails for v, fails in tries if _size(v.case, name) > before]
            shrunk = [fails for v, fails in tries if _size(v.case, name) < before]
            if grown and all(grown):
                same["with larger"].append(name)
                failing = [v.text for v, fails in tries if fails and _size(v.case, name) < before]
            if len(shrunk) > 1 and not any(shrunk):
                holding = [v.text for v, fails in tries if not fails and _size(v.case, name) > before]
                holding.append(f"for {name} < {before}")
        not_on += dict.fromkeys(failing)
        on += [text for text in dict.fromkeys(holding) if text not in failing]
    not_on += [f"{words} {', '.join(names)}" for words, names in same.items() if names]
    return Depends(tuple(on), tuple(not_on), len(results))


def _counted(failing: int, tries: int) -> tuple[list[str], list[str]]:
    counted = [f"for other seeds ({failing} of {tries})"]
    return (counted, []) if failing else ([], counted)


def _size(case: Case, letters: str) -> int:
    return int(getattr(case.sizes, letters[0]))


def _depends(record: Record, runner: Any) -> None:
    record.depends = runner.do(depends, record.case)


def _exactness(record: Record, runner: Any) -> None:
    if record.decided_by == "bound":
        record.equivalent_precision, record.fits = runner.do(exactness, record.dtype)


def _leak(record: Record, runner: Any) -> None:
    record.leak = runner.do(leak, record.case)


DIAGNOSES: dict[Diagnosis, Callable[[Record, Any], None]] = {
    "variations": _depends,
    "exactness": _exactness,
    "leak": _leak,
}


def depend(records: Sequence[Record], runner: Any) -> None:
    """Fills in what the cases of their claims tell of the violations that no other implies: one dtype of each claim.

    The runner has the subject; one that dies here leaves the record as it is.
    """
    from attnspec.worker import LostError

    told: set[str] = set()
    for record in records:
        root, given = record.verdict is Verdict.VIOLATED and not record.implied_by, claims()[record.claim].given
        if not root or record.claim in told or record.case is None or given is None:
            continue
        told.add(record.claim)
        try:
            for diagnosis in given.diagnoses:
                DIAGNOSES[diagnosis](record, runner)
        except LostError:
            continue
        except Exception:  # an error of ours in the diagnosis changes no verdict
            record.exception = traceback.format_exc()
