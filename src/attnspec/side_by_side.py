"""One case on two subjects: what each gives, how far from right each is, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np

from attnspec.function import FunctionSubject
from attnspec.properties.case import Case, Inputs
from attnspec.properties.compare import ledger, within
from attnspec.properties.oracle import Expected, expected, expected_gradients
from attnspec.properties.subject import FloatArray, Profile
from attnspec.properties.verdict import (
    BadResult,
    Evidence,
    Inapplicable,
    Refused,
    ValueFailure,
    Violation,
    first_line,
    number,
)
from attnspec.target import Loaded
from attnspec.worker import LostError

GRADIENTS = {"q": "gradient for queries", "k": "gradient for keys", "v": "gradient for values"}
CONVENTIONS = ("alignment", "empty_row", "empty_row_bias", "window")  # with which a right answer changes
MOST_LOST = 3  # crashes or hangs of one side, after which it is not called again
BOTH = "the sum of both bounds: each within E, hence within 2 E (IV10)"

Side = Literal["A", "B", "A against B"]
SIDES: tuple[Side, ...] = ("A", "B", "A against B")


@dataclass
class Subject:
    """One of the two: where it runs, and how it is written on the command line."""

    name: str
    options: dict[str, Any]
    runner: Any
    profile: Profile = field(default_factory=Profile)
    lost: list[str] = field(default_factory=list)

    def __call__(self, case: Case) -> Answer:
        if len(self.lost) >= MOST_LOST:
            return Answer(said=self.lost[-1], kind="lost")
        try:
            found: Answer = self.runner.do(answer, case)
            return found
        except LostError as lost:
            self.lost.append(str(lost))
            return Answer(said=str(lost), kind="lost")

    @property
    def shown(self) -> str:
        return " ".join([self.name, *(f"-o {k}={v}" for k, v in self.options.items())])


class Answer(msgspec.Struct, frozen=True):
    """What one subject gave for a case: arrays by name; or what it said instead, and which kind of saying that is."""

    arrays: dict[str, Any] = {}
    said: str | None = None
    kind: Literal["answered", "refused", "failed", "lost"] = "answered"


def answer(loaded: Loaded, subject: FunctionSubject, case: Case) -> Answer:
    """Runs in a worker, beside the subject."""
    del loaded
    x = case.build()
    try:
        if case.claim == "reference.forward":
            return Answer({"output": x.through(subject)})
        found = subject.vjp(x.q, x.k, x.v, case.cotangent(), **x.options)
        return Answer({"output": found.out, **{text: getattr(found, n) for n, text in GRADIENTS.items()}})
    except Refused as refused:
        return Answer(said=first_line(refused.error), kind="refused")
    except (ValueFailure, BadResult) as failed:
        return Answer(said=str(failed), kind="failed")


@dataclass(frozen=True)
class Place:
    """Where A and B differ most, in units of the sum of their bounds."""

    case: Case
    what: str
    at: tuple[int, ...]
    a: float | str
    b: float | str
    right: float | str
    allowed: float | str


@dataclass(frozen=True)
class Seen:
    """One case on both: the worst error of each and between them, evidence of what exceeds a bound."""

    case: Case
    ratio: dict[Side, float]
    evidence: dict[Side, Evidence]
    apart: bool = False
    numbers: int = 0
    equal: int = 0
    place: Place | None = None


def read_alike(a: Profile, b: Profile) -> bool:
    """Whether the right answer and its bound are the same for both, whatever the case."""
    same = all(a.get(n) == b.get(n) for n in (*CONVENTIONS, "precision"))
    return same and a.promises("empty_row") == b.promises("empty_row")


def look(a: Subject, b: Subject, case: Case) -> Seen | str:
    """One case on both; the reason, for one that says nothing of either: outside the bounds, refused, or lost."""
    x = case.build()
    try:
        right = [_right(a.profile, case, x)]
        right.append(right[0] if read_alike(a.profile, b.profile) else _right(b.profile, case, x))
    except Inapplicable as outside:
        return f"outside the bounds: {outside}"
    answers = {"A": a(case), "B": b(case)}
    for side, said in answers.items():
        if said.kind in ("refused", "lost"):
            return f"{side} {'refuses' if said.kind == 'refused' else 'was lost'}: {said.said}"
    seen = Seen(case, dict.fromkeys(SIDES, 0.0), {})
    sides: tuple[Side, Side] = ("A", "B")
    for side, want in zip(sides, right, strict=True):
        said = answers[side]
        if said.kind == "failed":
            seen.ratio[side] = float("inf")
            seen.evidence[side] = Evidence(str(said.said), got="an error", expected="an output", why="none is allowed")
            continue
        for name, array in said.arrays.items():
            _held(seen, side, array, want[name].out, want[name].error, name, want[name].why)
    if any(said.kind == "failed" for said in answers.values()):
        return seen
    if any(
        (w.out != o.out)[~(np.isnan(w.out) & np.isnan(o.out))].any() for w, o in zip(*map(dict.values, right), strict=True)
    ):
        return replace(seen, apart=True)  # by convention the right answers differ
    return _against(seen, answers["A"].arrays, answers["B"].arrays, right)


def _right(profile: Profile, case: Case, x: Inputs) -> dict[str, Expected]:
    right = {"output": expected(profile, x)}
    if case.claim == "grad.reference":
        right |= {GRADIENTS[n]: e for n, e in expected_gradients(profile, x, case.cotangent()).items()}
    return right


def _held(seen: Seen, side: Side, got: FloatArray, want: FloatArray, allowed: FloatArray, what: str, why: str) -> float:
    """Compares; notes the worst ratio, and the evidence of what exceeds the bound."""
    with ledger() as book:
        try:
            within(got, want, allowed, what, why=why)
        except Violation as violation:
            if not (violation.ratio or float("inf")) <= seen.ratio[side]:
                seen.evidence[side] = violation.evidence
            book.ratio = violation.ratio or float("inf")
    ratio = book.ratio or 0.0
    seen.ratio[side] = max(seen.ratio[side], ratio)
    return ratio


def _against(seen: Seen, a: dict[str, FloatArray], b: dict[str, FloatArray], right: list[dict[str, Expected]]) -> Seen:
    side: Side = "A against B"
    numbers = equal = 0
    place, worst = None, 0.0
    for name, got in a.items():
        first, second = right[0][name], right[1][name]
        allowed = np.broadcast_to(first.error + second.error, got.shape)
        ratio = _held(seen, side, got, b[name], allowed, name, BOTH)
        bits = (got == b[name]) | (np.isnan(got) & np.isnan(b[name]))
        numbers, equal = numbers + bits.size, equal + int(bits.sum())
        if ratio > worst:
            worst = ratio
            with np.errstate(invalid="ignore", divide="ignore"):
                badness = np.where(bits, 0.0, np.nan_to_num(np.abs(got - b[name]) / allowed, nan=np.inf))
            at = tuple(int(i) for i in np.unravel_index(int(badness.argmax()), badness.shape))
            values = [number(x[at]) for x in (got, b[name], np.broadcast_to(first.out, got.shape), allowed)]
            place = Place(seen.case, name, at, *values)
    return replace(seen, numbers=numbers, equal=equal, place=place)
