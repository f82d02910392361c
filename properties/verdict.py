"""Verdicts, evidence and result records: what an audit says, as plain data.

The four verdicts merge as VIOLATED > UNKNOWN > HOLDS > NOT APPLICABLE: an error of ours or a crash is never a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Literal, Self

import msgspec

from attnspec.properties.case import Case

RESULT_FORMAT = "attnspec-result/1"
Level = Literal["must", "should", "may"]


class Verdict(StrEnum):
    """What is known of one claim on one subject; the order is the order of merging, worst first."""

    VIOLATED = "VIOLATED"
    UNKNOWN = "UNKNOWN"
    HOLDS = "HOLDS"
    NOT_APPLICABLE = "NOT APPLICABLE"

    @classmethod
    def merge(cls, verdicts: Iterable[Verdict]) -> Verdict:
        order = list(cls)
        return min(verdicts, key=order.index, default=cls.NOT_APPLICABLE)


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The one place where got and expected differ most, in units of what is allowed."""

    what: str
    at: tuple[int, ...] = ()
    got: float | str = "nan"
    expected: float | str = "nan"
    allowed: float | str = 0.0
    why: str = "exact relation: equal bits"


class Violation(AssertionError):
    """A claim does not hold for a case: the only exception by which a claim fails."""

    def __init__(self, evidence: Evidence, decided_by: str = "exact", ratio: float | None = None) -> None:
        self.evidence = evidence
        self.decided_by = decided_by
        self.ratio = ratio
        super().__init__(sentence(evidence))


class Refused(Exception):
    """The subject raises for benign values of the same shapes and options too: it does not offer this (engine 6)."""

    def __init__(self, feature: str, error: BaseException) -> None:
        self.feature = feature
        self.error = error
        super().__init__(f"refuses {feature}: {first_line(error)}")


class ValueFailure(Exception):
    """The subject raised because of the values: benign values of the same shapes and options pass."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(first_line(error))


class BadResult(Exception):
    """The subject returned something that is not an attention output for these inputs."""


class Inapplicable(Exception):
    """The case lies outside what a bound covers (docs/bounds.md, preconditions): it decides nothing."""


class Observation(msgspec.Struct, frozen=True):
    """Something seen beside the claim that was being checked; `audit.observed` turns these into verdicts."""

    kind: Literal["refusal", "exception", "dtype"]
    feature: str
    error: str
    type: str
    case: Case | None = None
    condition: str | None = None  # what a refusal depends on


class Depends(msgspec.Struct, frozen=True):
    """What a failure depends on: its minimal case was run again with one field changed at a time.

    `on` are changes with which the claim holds, `not_on` those with which it fails all the same; `runs` is how many were
    decided.
    """

    on: tuple[str, ...] = ()
    not_on: tuple[str, ...] = ()
    runs: int = 0


class Leak(msgspec.Struct, frozen=True):
    """Which token of a model reaches which position, and the first module that lets the future reach the past.

    `influence[t][s]` is how far another token at t moves the logits at s, in units of the largest; s < t is a leak. It is
    "inf" where numbers become infinite, or not numbers.
    """

    influence: tuple[tuple[float | str, ...], ...]
    module: str | None = None


class Record(msgspec.Struct, kw_only=True):
    """One unit of work: a claim on a subject in one dtype (engine 10). One NDJSON line."""

    format: str = RESULT_FORMAT
    spec: str
    target: str
    options: dict[str, Any]
    claim: str
    level: Level
    dtype: str
    device: str = "cpu"
    profile: str
    seed: int
    verdict: Verdict
    reason: str | None = None
    decided_by: Literal["exact", "bound", "calibrated", "statistic"] | None = None
    cases: int = 0
    tried: int = 0
    exposed: int = 0
    outside: int = 0
    ratio: float | str | None = None
    ratio_limit: float = 1.0
    equivalent_precision: float | None = None
    fits: str | None = None
    case: Case | None = None
    evidence: Evidence | None = None
    implied_by: str | None = None
    causes: list[tuple[str, int, int]] = []
    depends: Depends | None = None
    leak: Leak | None = None
    exception: str | None = None
    seconds: dict[str, float] = {}
    versions: dict[str, str] = {}
    observations: list[Observation] = []
    script: str | None = None

    def line(self) -> bytes:
        """The record as one line of NDJSON, without what only the running audit needs."""
        plain = msgspec.to_builtins(self)
        for private in ("observations", "script"):
            plain.pop(private)
        return msgspec.json.encode(plain)

    @classmethod
    def unknown(cls, reason: str, **fields: Any) -> Self:
        return cls(verdict=Verdict.UNKNOWN, reason=reason, **fields)


def number(x: float) -> float | str:
    """A float as JSON can hold it: those that it lacks become "nan", "inf" and "-inf"."""
    x = float(x)
    return x if x - x == 0 else str(x)


def sentence(e: Evidence) -> str:
    where = f" at {list(e.at)}" if e.at else ""
    return f"{e.what}{where}: got {e.got}, expected {e.expected}, allowed {e.allowed} ({e.why})"


def first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


def failing_levels(fail_on: Level) -> tuple[Level, ...]:
    """The levels whose violation counts: those at least as strict as `fail_on`."""
    levels: tuple[Level, ...] = ("must", "should", "may")
    return levels[: levels.index(fail_on) + 1]


def exit_code(records: Sequence[Record], *, fail_on: Level = "must", interrupted: bool = False) -> int:
    """Priority 130 > 1 > 3 > 5 > 0 (engine 3; a usage error, 2, never gets this far)."""
    if interrupted:
        return 130
    if any(r.verdict is Verdict.VIOLATED and r.level in failing_levels(fail_on) for r in records):
        return 1
    # A claim that proved vacuous is a defect of the claim, printed but not held against the subject.
    if any(r.verdict is Verdict.UNKNOWN and not (r.reason or "").startswith("vacuous") for r in records):
        return 3
    return 0 if any(r.verdict in (Verdict.HOLDS, Verdict.VIOLATED) for r in records) else 5
