"""What an audit leaves in the folder where it ran: minimal cases, the scripts that show them, and the maps of leaks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from attnspec.properties.case import Case
from attnspec.report import leakage

if TYPE_CHECKING:
    from attnspec.auditor import Report

CASES = Path(".attnspec") / "cases"


def script_path(case: Case, target: str) -> Path:
    """Where the stand-alone script of a case on a target is kept: the case may fail on others too."""
    return CASES / f"{case.id}-{re.sub(r'[^A-Za-z0-9_.]+', '-', target)[-40:].strip('-.')}.py"


def picture_path(case: Case, target: str) -> Path:
    """Where the leakage map of a case on a target is kept."""
    script = script_path(case, target)
    return script.with_name(f"{script.stem}-leak.png")


def keep_cases(report: Report, folder: Path) -> None:
    """Writes each minimal case, its target, its script and its leakage map under `.attnspec/cases`, where `replay` looks."""
    for record in report.records:
        if record.case is None:
            continue
        cases = folder / CASES
        cases.mkdir(parents=True, exist_ok=True)
        (cases / f"{record.case.id}.json").write_text(record.case.to_json() + "\n")
        lines = [report.target, *(f"{k}={v}" for k, v in report.options.items())]
        (cases / f"{record.case.id}.target").write_text("\n".join(lines) + "\n")
        if record.case.id in report.scripts:
            (folder / script_path(record.case, report.target)).write_text(report.scripts[record.case.id])
        if record.leak is not None:
            path = picture_path(record.case, report.target)
            drawn = leakage.write(record.leak, folder / path, f"{record.claim} on {report.target}, case {record.case.id}")
            report.pictures[record.case.id] = path if drawn else None
