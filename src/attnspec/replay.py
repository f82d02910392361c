"""Replaying a saved case: one claim, one case, one subject, in milliseconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from attnspec.auditor import Report, Unit, _inapplicable, _observed
from attnspec.causes import explain
from attnspec.errors import CannotRun, UsageError
from attnspec.independence import depend
from attnspec.properties.case import Case, CaseError
from attnspec.properties.claim import UnknownClaim, claims, select
from attnspec.worker import InProcess, Worker


def find(name: str, folder: Path) -> Path:
    """The case file that is meant. Errors: UsageError if there is none, or more than one."""
    if Path(name).is_file():
        return Path(name)
    matches = sorted(folder.glob(f"{name}*.json")) if len(name) >= 4 and "/" not in name else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"case {name!r}: {len(matches)} cases begin so ({', '.join(m.stem for m in matches[:4])}); give more characters"
        )
    known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))[:6]) or "none"
    rule = (
        "an id prefix has 4 characters or more" if len(name) < 4 else f"neither a file nor an id in {folder} (there: {known})"
    )
    raise UsageError(f"case {name!r}: {rule}")


def read(path: Path) -> Case:
    """The case of a file. Errors: CaseError; UnknownClaim if this version does not know the claim."""
    try:
        case = Case.from_json(path.read_bytes())
    except CaseError as error:
        raise CaseError(f"{path}: {error}") from None
    try:
        select((case.claim,))
    except UnknownClaim as error:
        raise UnknownClaim(f"{path}: {error}; the case is of spec {case.spec}") from None
    if case.claim not in claims() or claims()[case.claim].given is None:
        raise CaseError(f"{path}: claim={case.claim!r} is a family, or has no cases of its own; name the claim of the case")
    return case


def replay_case(path: Path, target: str | None, options: dict[str, Any], *, in_process: bool) -> Report:
    """Runs the case's claim on it alone, on the target that is given or that the case was found on."""
    case = read(path)
    if target is None:
        beside = path.with_suffix(".target")
        if not beside.is_file():
            raise UsageError(f"{path}: no target is recorded beside it; give one with --target")
        target, *pairs = beside.read_text().splitlines()
        options = dict(pair.split("=", 1) for pair in pairs) | options
    start = time.perf_counter()
    report = Report(target, options, "replay", case.seed)
    try:
        with InProcess(target, options) if in_process else Worker(target, options, 60.0) as runner:
            report.profile = runner.profile()
            given = claims()[case.claim].given
            assert given is not None
            dtype = report.profile["dtypes"][0] if given.own_dtype else case.dtype
            unit = Unit(target, options, case.claim, dtype, "replay", case.seed, case)
            record = _inapplicable(unit, claims()[case.claim], report.profile) or runner.run(unit)
            report.records = [record]
            if any(o.kind == "exception" for o in record.observations):  # found while this claim was being checked
                report.records += _observed(report, [claims()["robust.no-exception"]])
            if record.script and record.case:
                report.scripts[record.case.id] = record.script
            explain(report.records)
            depend(report.records, runner)
    except CannotRun as error:
        report.cannot_run = str(error)
    report.seconds = time.perf_counter() - start
    return report
