"""Subjects whose verdicts are known: correct variants and real implementations, and what an audit says of each.

The snapshot (docs/known-subjects.json) is committed, so that NOT APPLICABLE cannot grow unseen: a claim that silently stops
applying to a subject changes it. `make docs` writes it, the tests compare it at seeds drawn from the commit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspec.properties import model_variants
from attnspec.properties.oracle import long_memory
from attnspec.properties.subject import DTYPES
from attnspec.properties.variants import VARIANTS
from attnspec.properties.verdict import Verdict
from attnspec.small_models import NAMES

if TYPE_CHECKING:
    from attnspec.auditor import Report

Options = dict[str, Any]
SNAPSHOT = Path(__file__).resolve().parents[2] / "docs" / "known-subjects.json"

REAL: tuple[tuple[str, Options], ...] = (
    ("torch:scaled_dot_product_attention", {}),
    ("torch:scaled_dot_product_attention", {"backend": "flash"}),
    ("torch:scaled_dot_product_attention", {"backend": "math"}),
    ("impl:attention", {}),
    ("impl:attention", {"path": "explicit"}),
    ("impl:attention", {"path": "sdpa"}),
)
SLOW = {"row_by_row", "numpy_numbers", "numpy_key_by_key"}  # loops in Python: one dtype is enough
# Each shape is compiled, so that an audit takes minutes: for `make docs` and docs/audits/, not for each commit.
COMPILED: tuple[tuple[str, Options], ...] = (("jax:dot_product_attention", {}), ("variant:jax_direct", {}))
SUBJECTS: tuple[tuple[str, Options], ...] = (
    *((f"variant:{name}", {"dtypes": "float32"} if name in SLOW else {}) for name in VARIANTS if name != "jax_direct"),
    *REAL,
)
# Correct models, which no claim may find fault with: they are in no snapshot, as they have no known violation.
MODELS: tuple[tuple[str, Options], ...] = tuple(
    (target, {}) for target in (*(f"impl:{n}" for n in NAMES), *(f"lm-variant:{n}" for n in model_variants.VARIANTS))
)


def installed(target: str) -> bool:
    """Whether the library that the target belongs to is there; its own extra brings it."""
    prefix = target.partition(":")[0]
    return prefix in ("variant", "lm-variant", "impl", "torch") or find_spec(prefix) is not None


def key(target: str, options: Mapping[str, str]) -> str:
    """The subject as one writes it on the command line."""
    return " ".join([target, *(f"-o {k}={v}" for k, v in options.items())])


def _reason(reason: str) -> str:
    """Why a claim does not apply, without what differs from seed to seed: the case that happened to be refused last."""
    return "its cases are refused" if reason.startswith("refuses ") else reason.partition(";")[0][:80]


def verdicts(report: Report) -> dict[str, str]:
    """What is known of each claim in a line: `HOLDS [float64 float32]`, `NOT APPLICABLE: reason [...]`, joined by `;`."""
    lines: dict[str, str] = {}
    for claim, records in report.by_claim().items():
        by_verdict: dict[str, list[str]] = {}
        for record in sorted(records, key=lambda r: DTYPES.index(r.dtype)):
            word = record.verdict.value
            if record.verdict is Verdict.NOT_APPLICABLE and record.reason:
                word += f": {_reason(record.reason)}"
            elif record.verdict is Verdict.VIOLATED:
                word += f" ({record.level})"
            by_verdict.setdefault(word, []).append(record.dtype)
        lines[claim] = "; ".join(f"{word} [{' '.join(dtypes)}]" for word, dtypes in by_verdict.items())
    return lines


def snapshot() -> dict[str, dict[str, str]]:
    """The committed verdicts by subject and claim."""
    return dict(json.loads(SNAPSHOT.read_text(encoding="utf-8"))["verdicts"]) if SNAPSHOT.is_file() else {}


def changes(report: Report, known: Mapping[str, str]) -> list[str]:
    """Where the verdicts of a report differ from those that are known."""
    found = verdicts(report)
    return [
        f"{claim}: {found.get(claim, 'no verdict')} (known: {known.get(claim, 'none')})"
        for claim in {**known, **found}
        if found.get(claim) != known.get(claim)
    ]


def alarms(report: Report, known: Mapping[str, str]) -> list[str]:
    """Violated musts and unknown verdicts that are not known."""
    found = verdicts(report)
    return [
        f"{r.claim} {r.dtype} {r.verdict.value} {r.reason or ''} {r.case.id if r.case else ''}".strip()
        for r in report.records
        if (r.verdict is Verdict.VIOLATED and r.level == "must") or r.verdict is Verdict.UNKNOWN
        if found[r.claim] != known.get(r.claim)
    ]


def look(subject: tuple[str, Options]) -> tuple[str, dict[str, str]]:
    """The verdicts of one subject at the default seed."""
    from attnspec.auditor import audit

    target, options = subject
    with long_memory():
        report = audit(target, in_process=True, **options)
    return key(target, options), verdicts(report)


def compute(processes: int = 2) -> dict[str, dict[str, str]]:
    """The verdicts of every subject; minutes on two cores."""
    import torch  # before the fork, so that the workers share it

    torch.set_num_threads(1)
    rows: dict[str, dict[str, str]] = {}
    with get_context("fork").Pool(processes) as pool:
        for name, row in pool.imap(look, SUBJECTS):
            rows[name] = row
            print(f"{len(rows):4}/{len(SUBJECTS)} {name}", file=sys.stderr)  # noqa: T201 - progress
    return rows


def write(rows: Mapping[str, Mapping[str, str]]) -> None:
    """The snapshot as JSON, one line a claim."""
    SNAPSHOT.write_text(json.dumps({"profile": "quick", "verdicts": rows}, indent=1) + "\n", encoding="utf-8")
