"""The report as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from attnspec import __version__
from attnspec.properties.claim import claims
from attnspec.properties.spec import SPEC
from attnspec.report import leakage
from attnspec.report.terminal import claim_line, failure, header, profile_lines, status, summary

if TYPE_CHECKING:
    from attnspec.auditor import Report

_CSS = {"????": "unknown", "N/A": "NA"}


def write(reports: list[Report], folder: Path) -> Path:
    """Writes index.html and results.ndjson into the folder and returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=PackageLoader("attnspec.report", "."), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html.jinja")
    path = folder / "index.html"
    shown = [_shown(r) for r in reports]
    path.write_text(page.render(version=__version__, spec=SPEC, reports=shown, leakage=leakage), encoding="utf-8")
    (folder / "results.ndjson").write_text("".join(r.to_json() for r in reports), encoding="utf-8")
    return path


def _shown(report: Report) -> dict[str, Any]:
    rows = []
    for claim, records in report.by_claim().items():
        word = status(records)
        line = claim_line(claim, records, verbose=True) or ""
        rows.append(
            {
                "id": claim,
                "word": word,
                "css": _CSS.get(word, word),
                "text": line.split(word, 1)[1].strip(),
                "statement": claims()[claim].statement,
            }
        )
    return {
        "name": report.target + "".join(f" -o {k}={v}" for k, v in report.options.items()),
        "exit_code": report.exit_code,
        "summary": summary(report) if report.profile else "cannot run",
        "header": header(report),
        "cannot_run": report.cannot_run,
        "claims": rows,
        "failures": [
            (block.strip(), next((leakage.drawn(r.leak) for r in records if r.leak), None))
            for records in report.by_claim().values()
            if (block := failure(records, report))
        ],
        "profile": "\n".join(profile_lines(report.profile)) if report.profile else None,
    }
