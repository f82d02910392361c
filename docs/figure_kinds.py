"""What a figure of the notes is, and how it is judged: numbers by their digits, rows of weights by a claim, statements by a
counterexample. docs/figures.py lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import attnspec
from attnspec.auditor import Report
from attnspec.properties.verdict import Evidence, Verdict
from attnspec.reference.attention import attention_weights

ELLIPSIS = " … "  # between two places of one page that are quoted together
SUMS_TO_ONE = "softmax.rows-sum-to-one"

Readings = dict[str, Any]  # what the page may mean -> the numbers that follow; "" is what it says


class Found(NamedTuple):
    """What a figure amounts to, and the audits that found it out."""

    recomputed: str
    verdict: str
    why: str
    audits: tuple[Report, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A number, a row or a statement of the notes, in the place where it stands."""

    name: str
    document: str
    quote: str
    says: str  # the notes' numbers with the notes' digits
    section: str
    recompute: Callable[[Figure], Found]

    def found(self) -> Found:
        return self.recompute(self)

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(self.says.split())


FIGURES: dict[str, Figure] = {}
_section = ""


def section(title: str) -> None:
    """The figures that follow stand under this title."""
    global _section
    _section = title


def _listed(name: str, document: str, quote: str, says: str, recompute: Callable[[Figure], Found]) -> None:
    if name in FIGURES:
        raise ValueError(f"figure {name!r}: it is listed twice; give another name")
    FIGURES[name] = Figure(name, document, quote, says, _section, recompute)


# Numbers


def rounded(value: float, like: str) -> Decimal:
    """A number, rounded to as many digits as another is written with."""
    return Decimal(repr(float(value))).quantize(Decimal(like), ROUND_HALF_UP)


def agrees(numbers: Sequence[str], values: Any) -> bool:
    """Whether the notes' numbers are the values, rounded."""
    flat = np.ravel(np.asarray(values, dtype=np.float64))
    return len(flat) == len(numbers) and all(rounded(x, n) == Decimal(n) for x, n in zip(flat, numbers, strict=True))


def shown(values: Any) -> str:
    return ", ".join(f"{x:.6g}" for x in np.ravel(np.asarray(values, dtype=np.float64)))


def judged(numbers: Sequence[str], readings: Readings, otherwise: str) -> str:
    """right; right, as one of the readings; or what it is otherwise."""
    for reading, values in readings.items():
        if agrees(numbers, values):
            return f"right, as {reading}" if reading else "right"
    return otherwise


def figure(document: str, quote: str, says: str, otherwise: str = "wrong") -> Callable[[Any], Any]:
    """Lists a figure by the function that recomputes it: it returns the readings, and what else there is to say."""

    def listed(function: Callable[[], tuple[Readings, str]]) -> Callable[[], tuple[Readings, str]]:
        def recompute(it: Figure) -> Found:
            readings, why = function()
            text = "; ".join(f"{reading}: {shown(x)}" if reading else shown(x) for reading, x in readings.items())
            return Found(text, judged(it.numbers, readings, otherwise), why)

        _listed(function.__name__, document, quote, says, recompute)
        return function

    return listed


# Rows of weights


@lru_cache(maxsize=64)
def audited(row: tuple[float, ...]) -> Report:
    """Audits attention that answers with the notes' row wherever there are as many keys, and rightly elsewhere."""
    met = Counter[int]()

    def as_in_the_notes(q: Any, k: Any, v: Any) -> Any:
        weights = attention_weights(q, k)
        if v.shape[-2] == v.shape[-1]:  # as the claim's cases are: one-hot values show the weights
            met[v.shape[-1]] += 1
        if weights.shape[-1] == len(row):
            weights = np.broadcast_to(row, weights.shape)
        return (weights @ v).astype(q.dtype)

    report = audit_of_sums(as_in_the_notes)
    if not met[len(row)]:
        raise RuntimeError(f"row={row}: no case with {len(row)} keys was drawn, so nothing was checked; audit more cases")
    return report


def audit_of_sums(subject: Callable[..., Any]) -> Report:
    return attnspec.audit(subject, select=[SUMS_TO_ONE], arrays="numpy", layout="bhtd", dtypes="float64")


def evidence(report: Report) -> Evidence | None:
    """What the claim has found, or None if it holds. Errors: RuntimeError if nothing was decided."""
    merged = Verdict.merge(r.verdict for r in report.records)
    if merged not in (Verdict.HOLDS, Verdict.VIOLATED):
        raise RuntimeError(f"{SUMS_TO_ONE} is {merged} on a row: {report}")
    return next((r.evidence for r in report.violations), None)


def weights(name: str, document: str, quote: str, says: str, why: str = "", units: dict[str, int] | None = None) -> None:
    """Lists a row of weights; `units` are readings of it, each with the number that it is to be divided by."""

    def recompute(it: Figure) -> Found:
        audits, parts, verdict = [], [], "not attention weights"
        for reading, unit in (units or {"": 1}).items():
            row = tuple(float(Decimal(n) / unit) for n in it.numbers)
            audits.append(audited(row))
            against = evidence(audits[-1])
            parts.append(f"{reading}: sum {shown(sum(row))}".removeprefix(": "))
            if against is None and verdict.startswith("not"):
                verdict = f"attention weights, as {reading}" if reading else "attention weights"
        return Found("; ".join(parts), verdict, why, tuple(audits))

    _listed(name, document, quote, says, recompute)


# Statements


def statement(document: str, quote: str, says: str = "") -> Callable[[Any], Any]:
    """Lists a sentence by the function that looks for a counterexample: it returns a Found."""

    def listed(function: Callable[[], Found]) -> Callable[[], Found]:
        _listed(function.__name__, document, quote, says, lambda _: function())
        return function

    return listed


def refuted(is_so: bool, recomputed: str, why: str) -> Found:
    return Found(recomputed, "false as stated" if is_so else "not refuted", why)
