"""Two implementations on the same cases: each against the derived bound, and each against the other.

The cases are those of `reference.forward` and `grad.reference`, as far as both subjects admit them. Two backends that are
each within E of the right answer are within 2 E of each other (IV10), so a larger difference is a defect of at least one, and
the oracle says of which. A case that the two read differently by convention is held against each one's own reading alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from attnspec.auditor import DEFAULT_SEED
from attnspec.draws import drawn
from attnspec.errors import CannotRun
from attnspec.kept_cases import CASES
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.reduction import reduced
from attnspec.properties.subject import DTYPES, Profile, Setting
from attnspec.search import BUDGETS, Budget
from attnspec.side_by_side import CONVENTIONS, SIDES, Place, Seen, Side, Subject, look
from attnspec.target import wrap
from attnspec.worker import InProcess, Worker

FORMAT = "attnspec-compare/1"
KINDS = ("reference.forward", "grad.reference")


@dataclass
class Row:
    """What was seen of one dtype and one group of cases; errors in units of the bound."""

    dtype: str
    group: str
    cases: int = 0
    apart: int = 0
    worst: dict[Side, float] = field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))
    beyond: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    numbers: int = 0
    equal: int = 0
    place: Place | None = None

    @property
    def equal_bits(self) -> float | None:
        """The share of numbers in which A and B agree bit by bit."""
        return self.equal / self.numbers if self.numbers else None


@dataclass(frozen=True)
class Failure:
    """A minimal case with which one side exceeds its bound, or the two differ by more than both bounds."""

    side: Side
    seen: Seen
    dtypes: tuple[str, ...]


@dataclass
class Comparison:
    """What a comparison found."""

    a: Subject
    b: Subject
    budget: str
    seed: int
    dtypes: tuple[str, ...] = ()
    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    cannot_run: str | None = None
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 if they disagree beyond the bounds or either exceeds its own; 3, 5, 130 and 0 as for an audit."""
        if self.interrupted:
            return 130
        if self.cannot_run is not None:
            return 3
        if self.failures:
            return 1
        if self.a.lost or self.b.lost:
            return 3
        return 0 if self.rows else 5

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def conventions(self) -> dict[str, tuple[Any, Any]]:
        """Conventions in which the two differ and with which the right answer changes: of A and of B."""
        found = {n: (self.a.profile.get(n), self.b.profile.get(n)) for n in CONVENTIONS}
        both = all(p.offers("causal-rectangular") or p.offers("causal-tall") for p in (self.a.profile, self.b.profile))
        return {n: v for n, v in found.items() if v[0] != v[1] and None not in v and (n != "alignment" or both)}

    def to_json(self, path: str | Path | None = None) -> str:
        """NDJSON: a header, one line for each dtype and group, one for each failure, and a summary with the exit code."""
        from attnspec.report.comparison import lines

        text = b"\n".join(map(msgspec.json.encode, lines(self))).decode() + "\n"
        if path is not None:
            Path(path).write_text(text)
        return text

    def __str__(self) -> str:
        from attnspec.report.comparison import render

        return render(self)


def compare(
    a: str | Callable[..., Any],
    b: str | Callable[..., Any],
    *,
    profile: str = "quick",
    seed: int = DEFAULT_SEED,
    timeout: float | None = None,
    in_process: bool = False,
    a_options: Mapping[str, Any] | None = None,
    b_options: Mapping[str, Any] | None = None,
    progress: Callable[[str, Case], None] | None = None,
    **options: Any,
) -> Comparison:
    """Runs two implementations on the same cases.

    `options` declare conventions of both, `a_options` and `b_options` of one. Target strings run in a worker process each,
    callables in this one. Errors: UsageError for a target or option that cannot be used.
    """
    seconds = timeout or BUDGETS[profile].seconds
    first = _subject(a, {**options, **(a_options or {})}, seconds, in_process=in_process)
    second = _subject(b, {**options, **(b_options or {})}, seconds, in_process=in_process)
    found = Comparison(first, second, profile, seed)
    start = time.perf_counter()
    with first.runner, second.runner:
        try:
            first.profile, second.profile = first.runner.profile(), second.runner.profile()
            _compare(found, BUDGETS[profile], progress)
        except CannotRun as error:
            found.cannot_run = str(error)
        except KeyboardInterrupt:
            found.interrupted = True
    found.seconds = time.perf_counter() - start
    return found


def _subject(target: str | Callable[..., Any], options: dict[str, Any], seconds: float, *, in_process: bool) -> Subject:
    if not isinstance(target, str):
        loaded = wrap(target, options)
        return Subject(loaded.name, options, InProcess(loaded.name, options, loaded))
    return Subject(target, options, InProcess(target, options) if in_process else Worker(target, options, seconds))


def joint(a: Profile, b: Profile) -> Profile:
    """What both offer, so that cases are drawn that both admit."""
    late = b if b.alignment == "bottom-right" else a  # the reading under which a row may see no key at all
    settings = dict(a.settings) | {"alignment": Setting(late.alignment, "default")}
    for name in ("mask_axes", "bias_axes", "dtypes"):
        known = [p[name] for p in (a, b) if name in p.settings]
        if known:
            settings[name] = Setting(tuple(v for v in known[0] if all(v in other for other in known)), "default")
    for name in ("empty_row", "empty_row_bias"):
        if a.get(name, "zero") != b.get(name, "zero"):  # no row may be empty by the way
            settings[name] = Setting("raises", "default")
    features = {f: a.lacks(f) or b.lacks(f) for f in {**a.features, **b.features}}
    return Profile(settings, features)


def _compare(found: Comparison, budget: Budget, progress: Callable[[str, Case], None] | None) -> None:
    profile = joint(found.a.profile, found.b.profile)
    found.dtypes = tuple(d for d in DTYPES if d in profile["dtypes"])
    bad: dict[tuple[str, Side], dict[str, Seen]] = {}
    for kind in (claims()[i] for i in KINDS):
        if kind.lacking(profile) is not None:
            continue
        for dtype in found.dtypes:
            for case in _cases(kind, profile, dtype, budget, found.seed):
                if progress is not None:
                    progress(dtype, case)
                seen = look(found.a, found.b, case)
                if isinstance(seen, str):
                    found.left_out[seen] = found.left_out.get(seen, 0) + 1
                    continue
                _noted(found.rows, seen)
                for side in SIDES:
                    if not seen.ratio[side] <= 1.0:
                        bad.setdefault((kind.id, side), {}).setdefault(dtype, seen)
    for (kind_id, side), by_dtype in bad.items():
        smallest = _smallest(found, claims()[kind_id], side, next(iter(by_dtype.values())), profile)
        found.failures.append(Failure(side, smallest, tuple(by_dtype)))
    found.failures.sort(key=lambda f: (-SIDES.index(f.side), KINDS.index(f.seen.case.claim)))


def _cases(kind: Claim, profile: Profile, dtype: str, budget: Budget, seed: int) -> Iterator[Case]:
    assert kind.given is not None
    yield from kind.given.fixed(kind.id, profile, dtype)
    strategy = kind.given.strategy(kind.id, profile, dtype, budget.largest)
    yield from drawn(strategy, budget.examples, f"{seed}/{kind.id}/{dtype}")


def groups(case: Case) -> list[str]:
    """The groups that a case belongs to: all of its dtype, and one for each option that it has."""
    if case.claim == "grad.reference":
        return ["gradients"]
    given = claims()[case.claim].given
    assert given is not None
    names = given.present(case) - {"heads", "batch", "empty"}
    return ["all", *(sorted(names - {"mask"} if "bias" in names else names) or ["plain"])]


def _noted(rows: list[Row], seen: Seen) -> None:
    for group in groups(seen.case):
        row = next((r for r in rows if (r.dtype, r.group) == (seen.case.dtype, group)), None)
        if row is None:
            row = Row(seen.case.dtype, group)
            rows.append(row)
        row.cases += 1
        row.apart += seen.apart
        row.numbers, row.equal = row.numbers + seen.numbers, row.equal + seen.equal
        if seen.place is not None and seen.ratio["A against B"] > row.worst["A against B"]:
            row.place = seen.place
        for side in SIDES:
            row.worst[side] = max(row.worst[side], seen.ratio[side])
            row.beyond[side] += not seen.ratio[side] <= 1.0


def _smallest(found: Comparison, kind: Claim, side: Side, seen: Seen, profile: Profile) -> Seen:
    """The case made as small as possible while the same side still fails."""
    assert kind.given is not None
    ways, last = partial(kind.given.simpler, profile=profile), seen

    def fails(case: Case) -> bool:
        nonlocal last
        now = look(found.a, found.b, case)
        if isinstance(now, str) or now.ratio[side] <= 1.0:
            return False
        last = now
        return True

    reduced(seen.case, ways, fails)
    return replace(last, case=last.case.signed())


def keep_cases(found: Comparison, folder: Path) -> None:
    """Writes the minimal cases where `replay` looks, each with the target that exceeds its bound there."""
    for failure in found.failures:
        cases, case = folder / CASES, failure.seen.case
        cases.mkdir(parents=True, exist_ok=True)
        (cases / f"{case.id}.json").write_text(case.to_json() + "\n")
        guilty = found.b if failure.seen.ratio["B"] > failure.seen.ratio["A"] else found.a
        lines = [guilty.name, *(f"{k}={v}" for k, v in guilty.options.items())]
        (cases / f"{case.id}.target").write_text("\n".join(lines) + "\n")
