"""The only comparisons. They raise `Violation`; they never return a bool that someone could forget to read.

While a claim runs, what was compared is noted in a `Ledger`: the worst ratio of error to bound, and whether any comparison
could have rejected zeros. The power of a claim is shown by its twin (`twins`); only for one that names none, as a claim from
elsewhere may, the ledger stands in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from attnspec.properties import bounds_models
from attnspec.properties.subject import FloatArray
from attnspec.properties.verdict import Evidence, Violation, number

EXACT = "exact"


@dataclass
class Ledger:
    """What the comparisons of one case amounted to."""

    exposed: bool = False
    ratio: float | None = None
    decided_by: str = EXACT


_ledger: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Collects what is compared inside the block."""
    book = Ledger()
    token = _ledger.set(book)
    try:
        yield book
    finally:
        _ledger.reset(token)


def same_bits(got: FloatArray, want: FloatArray, what: str, *, live: bool = True, noise: FloatArray | None = None) -> None:
    """Equal shape and equal values; NaN equals NaN and +0 equals -0.

    `live` says whether a wrong implementation could have differed here. `noise` is the error allowed between two runs of a
    subject that is not deterministic; None for one that is (engine 4).
    """
    if noise is not None:
        within(got, want, noise, what, why="run-to-run noise: the subject is not deterministic, so the bound decides")
        return
    _same_shape(got, want, what)
    _note(exposed=live)
    differs = ~((got == want) | (np.isnan(got) & np.isnan(want)))
    if differs.any():
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.where(np.isfinite(got - want), np.abs(got - want), np.inf)
        raise Violation(
            _evidence(got, want, np.zeros(1), _worst(np.where(differs, size, -1.0)), what, "exact relation: equal bits")
        )


def within(
    got: FloatArray,
    want: FloatArray,
    allowed: FloatArray,
    what: str,
    *,
    why: str,
    rival: float = 0.0,
    live: bool | None = None,
    decided_by: str = "bound",
) -> None:
    """|got - want| <= allowed for each element; where `want` is NaN or infinite, `got` must be the same.

    `rival` is what a wrong implementation could have given: the comparison had power if it would have been rejected. Whoever
    knows better says whether it had by `live`.
    """
    _same_shape(got, want, what)
    allowed = np.broadcast_to(allowed, want.shape)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.abs(got - want)
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        ratio = np.where(same, 0.0, np.where(np.isfinite(error), error / allowed, np.inf))
        power = np.abs(want - rival) > allowed
    worst = float(ratio.max(initial=0.0))
    _note(exposed=bool(power.any()) if live is None else live, ratio=worst, decided_by=decided_by)
    if not worst <= 1.0:
        raise Violation(_evidence(got, want, allowed, _worst(ratio), what, why), decided_by=decided_by, ratio=worst)


def alike(
    got: FloatArray, want: FloatArray, dtype: str, what: str, *, change: FloatArray, among: FloatArray | None = None
) -> None:
    """Logits as near to each other as two computations of the same ones are (docs/bounds.md, Models).

    The limit is a share of the largest logit, of `want` or of all those `among` which it stands. `change` is what a wrong
    model would have moved logits by: the comparison had power if that is not small.
    """
    scale = want if among is None else among
    within(
        got,
        want,
        bounds_models.allowed(scale, dtype),
        what,
        why=bounds_models.why(dtype),
        live=bounds_models.lively(change, scale),
        decided_by="calibrated",
    )


def between(got: FloatArray, low: FloatArray, high: FloatArray, slack: FloatArray, what: str, *, why: str) -> None:
    """low - slack <= got <= high + slack for each element."""
    low, high = np.broadcast_to(low, got.shape), np.broadcast_to(high, got.shape)
    with np.errstate(invalid="ignore"):
        nearest = np.where(np.isnan(got), low, np.clip(got, low, high))
    within(got, nearest, slack, what, why=why)


def statistic(value: float, low: float, high: float, what: str, *, why: str) -> None:
    """low <= value <= high, where the interval belongs to a statistical test."""
    _note(exposed=True, decided_by="statistic")
    if not low <= value <= high:
        nearest = low if value < low else high
        allowed = number(max(high - 1.0, 1.0 - low))
        raise Violation(
            Evidence(what=what, got=number(value), expected=number(nearest), allowed=allowed, why=why),
            decided_by="statistic",
        )


def none_of(names: tuple[str, ...], what: str) -> None:
    """No name is listed: the inputs that a call altered, say."""
    _note(exposed=True)
    if names:
        raise Violation(Evidence(what=what, got=", ".join(names), expected="none"))


def nonzero(got: FloatArray, where: np.ndarray, what: str) -> None:
    """Every element marked in `where` is finite and not zero: an influence that must exist does."""
    dead = where & ((got == 0) | ~np.isfinite(got))
    _note(exposed=bool(where.any()))
    if dead.any():
        at = tuple(int(i) for i in np.argwhere(dead)[0])
        raise Violation(
            Evidence(what=what, at=at, got=number(got[at]), expected="not zero", why="liveness: this influence must exist")
        )


def _same_shape(got: FloatArray, want: FloatArray, what: str) -> None:
    if got.shape != want.shape:
        raise Violation(Evidence(what=f"shape of {what}", got=str(got.shape), expected=str(want.shape)))


def _worst(badness: FloatArray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(badness)), badness.shape))


def _evidence(got: FloatArray, want: FloatArray, allowed: FloatArray, at: tuple[int, ...], what: str, why: str) -> Evidence:
    limit = np.broadcast_to(allowed, got.shape)[at]
    return Evidence(what=what, at=at, got=number(got[at]), expected=number(want[at]), allowed=number(limit), why=why)


def _note(*, exposed: bool, ratio: float | None = None, decided_by: str = EXACT) -> None:
    book = _ledger.get()
    if book is None:
        return
    book.exposed |= exposed
    if decided_by != EXACT:
        book.decided_by = decided_by
    if ratio is not None:
        book.ratio = max(ratio, book.ratio or 0.0)
