"""`attnspec demo`: what the tool says of real attention functions, and of one that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from attnspec.report.terminal import status

if TYPE_CHECKING:
    from attnspec.auditor import Report

BROKEN = "mutant:mask.sees_next"
TARGETS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("torch:scaled_dot_product_attention", {}),
    ("torch:scaled_dot_product_attention", {"backend": "flash"}),
    ("torch:scaled_dot_product_attention", {"backend": "math"}),
    ("impl:attention", {}),
    (BROKEN, {}),
)


def run(
    settings: dict[str, Any],
    audit_one: Callable[..., Report],
    write: Callable[[list[Report], dict[str, Any]], None],
) -> int:
    """0 exactly when the real ones hold and the broken one is caught by `mask.causal` with two tokens."""
    reports = []
    for number, (target, options) in enumerate(TARGETS, start=1):
        reports.append(audit_one(target, options, False, settings, place=f"{number}/{len(TARGETS)}"))
        click.echo("")
    rows = [_row(report) for report in reports]
    click.echo("\n".join(["verdicts", *rows]))
    if wrong := _unexpected(reports):
        click.echo(f"attnspec demo: not as expected: {wrong}", err=True)
    write(reports, settings)
    return 1 if wrong else 0


def _row(report: Report) -> str:
    backend = f" ({report.options['backend']})" if "backend" in report.options else ""
    violated = {r.claim for r in report.violations if r.level == "must"}
    roots = sorted({r.claim for r in report.violations if r.level == "must" and not r.implied_by})
    warned = sorted({r.claim for r in report.violations if r.level == "should" and not r.implied_by})
    held = sum(word == "OK" for word in map(status, report.by_claim().values()))
    says = (
        f"violates {', '.join(roots)}, and {len(violated) - len(roots)} that this implies" if roots else f"{held} claims hold"
    )
    return f"  {report.target + backend:<44} {says}" + (f"; warned of {', '.join(warned)}" if warned else "")


def _unexpected(reports: list[Report]) -> str | None:
    *real, broken = reports
    for report in real:
        if report.exit_code != 0:
            return f"{report.target} ended with exit code {report.exit_code}"
    found = [r.case for r in broken.violations if r.claim == "mask.causal" and r.case]
    if not found:
        return f"{broken.target} passed mask.causal"
    tokens = max(found[0].sizes.T, found[0].sizes.S)
    return None if tokens == 2 else f"the minimal case of {broken.target} has {tokens} tokens"
