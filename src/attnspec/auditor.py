"""Subject times claims gives verdicts: units of work, the report object, and what was observed along the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from attnspec import __version__
from attnspec.causes import explain
from attnspec.conventions import Subject
from attnspec.independence import depend
from attnspec.lanes import Task, jobs_for, lanes_for, shared, work_through
from attnspec.observed import decide
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.claim import select as chosen_claims
from attnspec.properties.oracle import CLOCK
from attnspec.properties.spec import SPEC
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Level, Record, Verdict, exit_code, number
from attnspec.report.script import script
from attnspec.search import BUDGETS, Budget, search
from attnspec.target import Loaded, wrap

RUN_FORMAT = "attnspec-run/1"
DEFAULT_SEED = 2718


@dataclass(frozen=True)
class Unit:
    """One unit of work: a claim on a target in one dtype. Plain data, done by `run_unit` in whatever process."""

    target: str
    options: Mapping[str, Any]
    claim: str
    dtype: str
    budget: str
    seed: int
    hint: Case | None = None


def run_unit(unit: Unit, loaded: Loaded, subject: Subject) -> Record:
    """Does one unit: searches, and writes down what was found."""
    claim = claims()[unit.claim]
    start, before, oracle = time.perf_counter(), subject.seconds, CLOCK.seconds
    subject.observations.clear()
    outcome = search(claim, subject, unit.dtype, BUDGETS[unit.budget], unit.seed, unit.hint)
    seconds = {"subject": subject.seconds - before, "oracle": CLOCK.seconds - oracle}
    seconds["engine"] = time.perf_counter() - start - sum(seconds.values())
    case = outcome.case.signed() if outcome.case is not None else None
    observed = list(subject.observations.values())
    if outcome.failing:
        observed = [
            msgspec.structs.replace(o, case=outcome.failing[0].signed()) if o.kind == "exception" else o for o in observed
        ]
    return Record(
        **_named(unit, claim, subject.profile),
        verdict=outcome.verdict,
        reason=outcome.reason,
        decided_by=outcome.decided_by,  # type: ignore[arg-type]
        cases=outcome.cases,
        tried=outcome.tried,
        exposed=outcome.exposed,
        outside=outcome.outside,
        ratio=None if outcome.ratio is None else number(outcome.ratio),
        case=case,
        evidence=outcome.evidence,
        exception=outcome.exception,
        seconds={k: round(v, 4) for k, v in seconds.items()},
        versions=versions(subject),
        observations=observed,
        script=script(loaded, subject, claim, case, outcome.evidence) if case is not None and outcome.evidence else None,
    )


def _named(unit: Unit, claim: Claim, profile: Profile) -> dict[str, Any]:
    return {
        "spec": SPEC,
        "target": unit.target,
        "options": dict(unit.options),
        "claim": unit.claim,
        "level": claim.level_for(profile),
        "dtype": unit.dtype,
        "device": profile.get("device", "cpu"),
        "profile": unit.budget,
        "seed": unit.seed,
    }


def versions(subject: Subject) -> dict[str, str]:
    return {"attnspec": __version__, **subject.arrays.versions(), "numpy": np.__version__}


@dataclass
class Report:
    """What an audit of one target found."""

    target: str
    options: dict[str, Any]
    budget: str
    seed: int
    profile: Profile | None = None
    records: list[Record] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Path | None] = field(default_factory=dict)  # of leaks, by case; None without a library that draws
    seconds: float = 0.0
    cannot_run: str | None = None
    interrupted: bool = False
    fail_on: Level = "must"

    @property
    def exit_code(self) -> int:
        if self.cannot_run is not None:
            return 3
        return exit_code(self.records, fail_on=self.fail_on, interrupted=self.interrupted)

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def violations(self) -> list[Record]:
        return [r for r in self.records if r.verdict is Verdict.VIOLATED]

    @property
    def exercised(self) -> list[Record]:
        return [r for r in self.records if r.verdict in (Verdict.HOLDS, Verdict.VIOLATED)]

    @property
    def not_applicable(self) -> list[Record]:
        return [r for r in self.records if r.verdict is Verdict.NOT_APPLICABLE]

    def by_claim(self) -> dict[str, list[Record]]:
        grouped: dict[str, list[Record]] = {}
        for record in self.records:
            grouped.setdefault(record.claim, []).append(record)
        return {i: grouped[i] for i in claims() if i in grouped}

    def header_line(self) -> bytes:
        profile = msgspec.to_builtins(self.profile) if self.profile else None
        header = {
            "format": RUN_FORMAT,
            "spec": SPEC,
            "target": self.target,
            "options": self.options,
            "profile": self.budget,
            "seed": self.seed,
            "subject": profile,
        }
        return msgspec.json.encode(header)

    def summary_line(self) -> bytes:
        summary = {
            "format": RUN_FORMAT,
            "summary": {v.value: sum(r.verdict is v for r in self.records) for v in Verdict},
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "reason": self.cannot_run,
        }
        return msgspec.json.encode(summary)

    def to_json(self, path: str | Path | None = None) -> str:
        """NDJSON: the header, one line a record, and the summary with the exit code."""
        lines = [self.header_line(), *(r.line() for r in self.records)]
        if not self.interrupted:  # a file without the summary was interrupted
            lines.append(self.summary_line())
        text = b"\n".join(lines).decode() + "\n"
        if path is not None:
            Path(path).write_text(text)
        return text

    def __str__(self) -> str:
        from attnspec.report.terminal import render

        return render(self)


def audit(
    target: str | Callable[..., Any],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    profile: str = "quick",
    seed: int = DEFAULT_SEED,
    timeout: float | None = None,
    in_process: bool | None = None,
    jobs: int | None = None,
    progress: Callable[[Unit, Record], None] | None = None,
    begun: Callable[[Report, Sequence[Unit]], None] | None = None,
    **options: Any,
) -> Report:
    """Audits an attention function against the claims.

    A target string runs in worker processes, two for more than a few claims (lanes.py), so that a crash or a hang costs one
    verdict; a callable, which may not be picklable, runs in this process. `jobs` says how many of the processes work at a
    time: 1, or as many as there are cores; the verdicts are the same. `begun` is called once it is known what there is to do,
    `progress` for each unit that is done. `options` are the declarations of `attnspec audit -o`.

    Errors: UsageError for a target or option that cannot be used; UnknownClaim for a selection that matches nothing.
    """
    from attnspec.worker import InProcess, Worker

    chosen, jobs = chosen_claims(tuple(select), tuple(ignore)), jobs_for(jobs)
    runners: list[Any]
    if isinstance(target, str):
        name, seconds, patient = target, timeout or BUDGETS[profile].seconds, timeout is None
        lanes = 1 if in_process else lanes_for(sum(claim.given is not None for claim in chosen))
        runners = [
            InProcess(target, options) if in_process else Worker(target, options, seconds, patient=patient)
            for _ in range(lanes)
        ]
    else:
        loaded = wrap(target, options)
        name, runners = loaded.name, [InProcess(loaded.name, options, loaded)]
    with ExitStack() as stack:
        for runner in runners:
            stack.enter_context(runner)
        return _audit(name, dict(options), chosen, BUDGETS[profile], seed, runners, jobs, progress, begun)


class ClaimViolation(AssertionError):
    """What `check` raises: the text of the failure, with the record it was made from."""

    def __init__(self, text: str, record: Record) -> None:
        self.record = record
        super().__init__(text)


def check(
    function: str | Callable[..., Any], claim: str, *, profile: str = "quick", seed: int = DEFAULT_SEED, **options: Any
) -> Report:
    """Checks one claim, or each claim of a family, and raises ClaimViolation for the first that is violated.

    Errors: ClaimViolation; UsageError; UnknownClaim; RuntimeError if nothing could be decided (UNKNOWN, or not applicable).
    """
    from attnspec.report.terminal import failure

    report = audit(function, select=(claim,), profile=profile, seed=seed, in_process=True, **options)
    for record in report.violations:
        raise ClaimViolation(failure([record], report) or str(record.evidence), record)
    if report.exit_code != 0:
        reasons = {r.reason for r in report.records if r.reason}
        raise RuntimeError(
            f"{claim} was not decided on {report.target}: {report.cannot_run or '; '.join(sorted(map(str, reasons)))}"
        )
    return report


def _audit(
    target: str,
    options: dict[str, Any],
    chosen: list[Claim],
    budget: Budget,
    seed: int,
    runners: list[Any],
    jobs: int,
    progress: Callable[[Unit, Record], None] | None,
    begun: Callable[[Report, Sequence[Unit]], None] | None,
) -> Report:
    from attnspec.errors import CannotRun

    start = time.perf_counter()
    report = Report(target, options, budget.name, seed)
    found: dict[int, Record] = {}

    def done(task: Task, record: Record) -> None:
        found[task.place] = record
        if record.script and record.case:
            report.scripts[record.case.id] = record.script
        if progress is not None:
            progress(task.unit, record)

    try:
        profile = report.profile = _profile(runners, jobs)
        chosen = [claim for claim in chosen if claim.applies_to(profile.get("kind", "attention"))]
        units = [unit for unit, _ in _units(target, options, chosen, budget, seed, profile["dtypes"])]
        if begun is not None:
            begun(report, units)
        tasks = [Task(place, unit.claim, unit) for place, unit in enumerate(units)]
        work_through(shared(tasks, len(runners)), [_lane(runner, profile) for runner in runners], jobs, done)
        report.records = [found[place] for place in sorted(found)]
        report.records += _observed(report, chosen)
        explain(report.records)
        if budget.shrink:
            depend(report.records, runners[0])
    except CannotRun as error:
        report.cannot_run = str(error)
    except KeyboardInterrupt:
        report.interrupted = True
        report.records = report.records or [found[place] for place in sorted(found)]
    report.seconds = time.perf_counter() - start
    return report


def _profile(runners: list[Any], jobs: int) -> Profile:
    """Probed by the first worker and taken over by the others, which load the target in the meantime."""
    first, *others = runners
    for runner in others if jobs > 1 else ():
        runner.warm_up()
    profile: Profile = first.profile()
    for runner in others:
        runner.adopt(profile)
    return profile


def _lane(runner: Any, profile: Profile) -> Callable[[Task], Record]:
    """What one worker does with each of its tasks, knowing what it found before."""
    records: list[Record] = []

    def work(task: Task) -> Record:
        unit: Unit = task.unit
        record: Record = _inapplicable(unit, claims()[unit.claim], profile) or runner.run(_hinted(unit, records))
        records.append(record)
        return record

    return work


def _units(
    target: str, options: dict[str, Any], chosen: list[Claim], budget: Budget, seed: int, dtypes: Sequence[str]
) -> Iterator[tuple[Unit, Claim]]:
    for claim in chosen:
        if claim.given is None:
            continue
        for dtype in claim.dtypes_of(dtypes):
            yield Unit(target, options, claim.id, dtype, budget.name, seed), claim


def explained(report: Report, claim: Claim, dtype: str, runner: Any) -> Record:
    """One record alone, with its causes. A claim without cases is decided by what `reference.forward` meets."""
    assert report.profile is not None
    name = claim.id if claim.given is not None else "reference.forward"
    unit = Unit(report.target, report.options, name, dtype, report.budget, report.seed)
    record = _inapplicable(unit, claims()[name], report.profile) or runner.run(unit)
    report.records.append(record)
    if record.script and record.case:
        report.scripts[record.case.id] = record.script
    if claim.given is None:
        report.records += _observed(report, [claim])
    explain(report.records)
    depend(report.records[-1:], runner)
    return report.records[-1]


def _inapplicable(unit: Unit, claim: Claim, profile: Profile) -> Record | None:
    reason = claim.lacking(profile)
    if unit.dtype not in profile["dtypes"]:
        declared = profile.settings["dtypes"].origin == "declared"
        reason = f"{unit.dtype} is not among the declared dtypes" if declared else profile.lacks(unit.dtype) or "not offered"
    if reason is None:
        return None
    return Record(**_named(unit, claim, profile), verdict=Verdict.NOT_APPLICABLE, reason=reason)


def _hinted(unit: Unit, records: list[Record]) -> Unit:
    """With the minimal case of another dtype, if the claim is violated there."""
    found = next((r.case for r in records if r.claim == unit.claim and r.verdict is Verdict.VIOLATED and r.case), None)
    return replace(unit, hint=found)


def _observed(report: Report, chosen: list[Claim]) -> list[Record]:
    """Records of the claims without cases."""
    profile = report.profile
    assert profile is not None
    records = []
    for claim in (c for c in chosen if c.given is None):
        unit = Unit(report.target, report.options, claim.id, "float32", report.budget, report.seed)
        record = Record.unknown("not decided", **_named(unit, claim, profile))
        record.reason = None
        decide(claim, report.records, profile, record)
        records.append(record)
    return records
