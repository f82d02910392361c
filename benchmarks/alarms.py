"""Looks for false alarms: correct variants and real implementations over many seeds (`make alarms`).

Every target here is right, so any violated must or unknown verdict is an alarm. Finished rows are kept in docs/alarms.json,
so that an interrupted run resumes; `--seeds N` sets how many seeds, `--only` which targets, `--fresh` starts over.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from attnspec.auditor import audit
from attnspec.properties.variants import VARIANTS
from attnspec.properties.verdict import Verdict

FILE = Path(__file__).resolve().parents[1] / "docs" / "alarms.json"
REAL: tuple[tuple[str, dict[str, str]], ...] = (
    ("torch:scaled_dot_product_attention", {}),
    ("torch:scaled_dot_product_attention", {"backend": "flash"}),
    ("torch:scaled_dot_product_attention", {"backend": "math"}),
    ("impl:attention", {}),
    ("impl:attention", {"path": "explicit"}),
    ("impl:attention", {"path": "sdpa"}),
)
TARGETS = (*((f"variant:{name}", {}) for name in VARIANTS), *REAL)


def key(target: str, options: dict[str, str], seed: int) -> str:
    return " ".join([target, *(f"{k}={v}" for k, v in options.items()), str(seed)])


def look(job: tuple[str, dict[str, str], int]) -> tuple[str, dict[str, Any]]:
    """One target at one seed: how many cases were checked, and every verdict that should not be there."""
    target, options, seed = job
    report = audit(target, seed=seed, in_process=True, **options)
    alarms = [
        f"{r.claim} {r.dtype} {r.verdict.value} {r.reason or ''} {r.case.id if r.case else ''}".strip()
        for r in report.records
        if (r.verdict is Verdict.VIOLATED and r.level == "must") or r.verdict is Verdict.UNKNOWN
    ]
    cases = sum(r.cases for r in report.records if r.seconds)
    return key(*job), {"cases": cases, "exit": report.exit_code, "alarms": alarms}


def jobs(seeds: int, only: list[str], done: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], int]]:
    for seed in range(seeds):
        for target, options in TARGETS:
            if (not only or target in only) and key(target, options, seed) not in done:
                yield target, options, seed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], metavar="TARGET", help="these targets; may repeat")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--file", type=Path, default=FILE)
    wanted = parser.parse_args()
    kept = json.loads(wanted.file.read_text()) if wanted.file.is_file() and not wanted.fresh else {}
    done: dict[str, Any] = kept.get("rows", {})
    import torch  # before the fork, so that the workers share it

    torch.set_num_threads(1)
    with get_context("fork").Pool(wanted.processes) as pool:
        for name, row in pool.imap(look, jobs(wanted.seeds, wanted.only, done)):
            done[name] = row
            print(f"{name}: {row['cases']} cases, {len(row['alarms'])} alarms", file=sys.stderr)
            save(done, wanted.file)
    alarms = [f"{name}: {alarm}" for name, row in done.items() for alarm in row["alarms"]]
    cases = sum(row["cases"] for row in done.values())
    print(f"{len(done)} audits of {len(TARGETS)} correct targets, {cases} cases, {len(alarms)} alarms")
    print("\n".join(alarms))
    return 1 if alarms else 0


def save(rows: dict[str, Any], file: Path) -> None:
    alarms = sum(len(row["alarms"]) for row in rows.values())
    head = {
        "command": " ".join(["python benchmarks/alarms.py", *sys.argv[1:]]),
        "profile": "quick",
        "audits": len(rows),
        "cases": sum(r["cases"] for r in rows.values()),
        "alarms": alarms,
    }
    file.write_text(json.dumps({**head, "rows": rows}, indent=0) + "\n")


if __name__ == "__main__":
    sys.exit(main())
