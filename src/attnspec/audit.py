"""Subject times claims gives verdicts: units of work, the report object, and what was observed along the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from attnspec import __version__
from attnspec.causes import explain
from attnspec.conventions import subject_of
from attnspec.function import INTERNAL, FunctionSubject
from attnspec.properties.case import SPEC, Case
from attnspec.properties.claim import Claim, claims, select
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Evidence, Level, Record, Verdict, exit_code, number
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


def run_unit(unit: Unit, loaded: Loaded, subject: FunctionSubject) -> Record:
    """Does one unit: searches, and writes down what was found."""
    claim = claims()[unit.claim]
    start, before = time.perf_counter(), subject.seconds
    subject.observations.clear()
    outcome = search(claim, subject, unit.dtype, BUDGETS[unit.budget], unit.seed, unit.hint)
    seconds = {"subject": subject.seconds - before}
    seconds["engine"] = time.perf_counter() - start - seconds["subject"]
    case = outcome.case.signed() if outcome.case is not None else None
    observed = list(subject.observations.values())
    if outcome.failing:
        observed = [
            msgspec.structs.replace(o, case=outcome.failing[0].signed()) if o.kind == "exception" else o
            for o in observed
        ]
    return Record(
        **_named(unit, claim, subject.profile),
        verdict=outcome.verdict,
        reason=outcome.reason,
        decided_by=outcome.decided_by,  # type: ignore[arg-type]
        cases=outcome.cases,
        exposed=outcome.exposed,
        ratio=None if outcome.ratio is None else number(outcome.ratio),
        case=case,
        evidence=outcome.evidence,
        exception=outcome.exception,
        seconds={k: round(v, 4) for k, v in seconds.items()},
        versions=versions(subject),
        observations=observed,
        script=script(loaded, subject, claim, case, outcome.evidence)
        if case is not None and outcome.evidence
        else None,
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


def versions(subject: FunctionSubject) -> dict[str, str]:
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

    def header(self) -> dict[str, Any]:
        profile = msgspec.to_builtins(self.profile) if self.profile else None
        return {
            "format": RUN_FORMAT,
            "spec": SPEC,
            "target": self.target,
            "options": self.options,
            "profile": self.budget,
            "seed": self.seed,
            "subject": profile,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """NDJSON: the header, one line a record, and the summary with the exit code."""
        counts = {v.value: sum(r.verdict is v for r in self.records) for v in Verdict}
        summary = {
            "format": RUN_FORMAT,
            "summary": counts,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "reason": self.cannot_run,
        }
        lines = [msgspec.json.encode(self.header()), *(r.line() for r in self.records)]
        if not self.interrupted:  # a file without the summary was interrupted
            lines.append(msgspec.json.encode(summary))
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
    progress: Callable[[Unit, Record], None] | None = None,
    **options: Any,
) -> Report:
    """Audits an attention function against the claims.

    A target string runs in a worker process, so that a crash or a hang costs one verdict; a callable, which may not be
    picklable, runs in this process. `options` are the declarations of `attnspec audit -o`.

    Errors: UsageError for a target or option that cannot be used; UnknownClaim for a selection that matches nothing.
    """
    from attnspec.worker import InProcess, Worker

    chosen = _select(tuple(select), tuple(ignore))
    if isinstance(target, str):
        name = target
        runner = (
            InProcess(target, options) if in_process else Worker(target, options, timeout or BUDGETS[profile].seconds)
        )
    else:
        loaded = wrap(target, options)
        name, runner = loaded.name, InProcess(loaded.name, options, loaded)
    with runner:
        return _audit(name, dict(options), chosen, BUDGETS[profile], seed, runner, progress)


_select = select


def _audit(
    target: str,
    options: dict[str, Any],
    chosen: list[Claim],
    budget: Budget,
    seed: int,
    runner: Any,
    progress: Callable[[Unit, Record], None] | None,
) -> Report:
    from attnspec.errors import CannotRun

    start = time.perf_counter()
    report = Report(target, options, budget.name, seed)
    try:
        report.profile = runner.profile()
        for unit, claim in _units(target, options, chosen, report.profile, budget, seed):
            record = _inapplicable(unit, claim, report.profile) or runner.run(_hinted(unit, report.records))
            report.records.append(record)
            if record.script and record.case:
                report.scripts[record.case.id] = record.script
            if progress is not None:
                progress(unit, record)
        report.records += _observed(report, chosen)
        explain(report.records)
    except CannotRun as error:
        report.cannot_run = str(error)
    except KeyboardInterrupt:
        report.interrupted = True
    report.seconds = time.perf_counter() - start
    return report


def _units(
    target: str, options: dict[str, Any], chosen: list[Claim], profile: Profile, budget: Budget, seed: int
) -> Iterator[tuple[Unit, Claim]]:
    for claim in chosen:
        if claim.given is None:
            continue
        for dtype in claim.dtypes:
            yield Unit(target, options, claim.id, dtype, budget.name, seed), claim


def _inapplicable(unit: Unit, claim: Claim, profile: Profile) -> Record | None:
    reason = claim.lacking(profile)
    if unit.dtype not in profile["dtypes"]:
        declared = profile.settings["dtypes"].origin == "declared"
        reason = (
            f"{unit.dtype} is not among the declared dtypes" if declared else profile.lacks(unit.dtype) or "not offered"
        )
    if reason is None:
        return None
    return Record(**_named(unit, claim, profile), verdict=Verdict.NOT_APPLICABLE, reason=reason)


def _hinted(unit: Unit, records: list[Record]) -> Unit:
    """With the minimal case of another dtype, if the claim is violated there."""
    found = next((r.case for r in records if r.claim == unit.claim and r.verdict is Verdict.VIOLATED and r.case), None)
    return replace(unit, hint=found)


# What was observed while other claims ran


def _observed(report: Report, chosen: list[Claim]) -> list[Record]:
    """Verdicts of the claims without cases: from probing, and from refusals and exceptions seen along the way."""
    profile = report.profile
    assert profile is not None
    records: list[Record] = []
    for claim in chosen:
        if claim.given is not None:
            continue
        unit = Unit(report.target, report.options, claim.id, "float32", report.budget, report.seed)
        record = Record(
            **_named(unit, claim, profile),
            verdict=Verdict.HOLDS,
            decided_by="exact",
            cases=sum(r.cases for r in report.records),
        )
        if (reason := claim.lacking(profile)) is not None:
            record.verdict, record.reason, record.cases = Verdict.NOT_APPLICABLE, reason, 0
        elif (found := _OBSERVERS[claim.id](report, profile)) is not None:
            record.verdict, record.evidence, record.case = Verdict.VIOLATED, *found
        elif (
            not any(r.verdict in (Verdict.HOLDS, Verdict.VIOLATED) for r in report.records) and claim.family == "robust"
        ):
            record.verdict, record.reason, record.cases = Verdict.NOT_APPLICABLE, "nothing else was exercised", 0
        records.append(record)
    return records


Finding = tuple[Evidence, Case | None] | None


def _seen(report: Report, kind: str, keep: Callable[[Any], bool] = lambda _: True) -> Finding:
    for record in report.records:
        for o in record.observations:
            if o.kind == kind and keep(o):
                return Evidence(
                    f"{o.feature} (while checking {record.claim})",
                    got=o.error,
                    expected="an output",
                    why="no error is allowed here",
                ), o.case
    return None


def _contradiction(name: str) -> Callable[[Report, Profile], Finding]:
    def find(report: Report, profile: Profile) -> Finding:
        for c in profile.contradictions:
            if c.convention == name:
                origin = profile.settings[name].origin
                return Evidence(
                    f"{name.replace('_', ' ')}, {origin}",
                    got=f"{c.got} (probed)",
                    expected=c.expected,
                    why="what is declared or promised is kept",
                ), None
        if name == "polarity" and profile.get("polarity") == "masked" and not profile.promises("polarity"):
            return Evidence(
                "polarity of the boolean mask",
                got="True = masked out",
                expected="True = may attend",
                why="a convention worth knowing",
            ), None
        return None

    return find


def _dtype(report: Report, profile: Profile) -> Finding:
    found = _seen(report, "dtype")
    return None if found is None else (msgspec.structs.replace(found[0], expected="the dtype of the queries"), None)


def _unclear(report: Report, profile: Profile) -> Finding:
    internal = {e.__name__ for e in INTERNAL} | {"UnboundLocalError"}
    if (found := _seen(report, "refusal", lambda o: o.type in internal)) is not None:
        return msgspec.structs.replace(found[0], expected="an error that says what is not offered"), None
    for feature, reason in profile.refusals.items():
        if any(reason.startswith(f"refuses: {name}") for name in internal):
            return Evidence(
                feature,
                got=reason.removeprefix("refuses: "),
                expected="an error that says what is not offered",
                why="no error from inside",
            ), None
    return None


def _broken_promise(report: Report, profile: Profile) -> Finding:
    promised = {"mask": "bool", "bias": "bias"}
    kinds = profile.get("mask", ()) if profile.promises("mask") else ()
    wanted = [f for f, kind in promised.items() if kind in kinds]
    wanted += ["grouped"] if profile.promises("grouped") and profile["grouped"] else []
    wanted += ["causal"] if profile.promises("causal") and profile["causal"] in ("flag", "always") else []
    wanted += list(profile["dtypes"]) if profile.promises("dtypes") else []
    for feature in wanted:
        if (reason := profile.lacks(feature) if feature != "float32" else None) is not None:
            return Evidence(
                f"{feature}, promised", got=reason, expected="offered", why="what is promised is offered"
            ), None
    return None


_OBSERVERS: dict[str, Callable[[Report, Profile], Finding]] = {
    "convention.layout": _contradiction("layout"),
    "convention.alignment": _contradiction("alignment"),
    "convention.empty-row": _contradiction("empty_row"),
    "convention.polarity": _contradiction("polarity"),
    "convention.output-dtype": _dtype,
    "contract.promised": _broken_promise,
    "robust.no-exception": lambda report, _: _seen(report, "exception"),
    "robust.clear-refusal": _unclear,
    "robust.uniform-refusal": lambda report, _: _seen(report, "refusal"),
}
