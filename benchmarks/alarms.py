"""Looks for false alarms: correct variants and real implementations over many seeds (`make alarms`).

Every subject here is right, or its findings are known (docs/audits/), so a violated must or an unknown verdict that the
snapshot docs/known-subjects.json does not have is an alarm. Finished rows are kept in docs/alarms.json, so that an
interrupted run resumes; `--profile`, `--seeds N` say how long to look, `--only` at which subjects, `--minutes` when to
stop, `--fresh` starts over. The fixed cases of an audit are the same at every seed: seed 0 looks at them too, the other
seeds at what is drawn. A process looks at all subjects with one seed, since most are asked the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from attnspec.auditor import audit
from attnspec.known_subjects import MODELS, SUBJECTS, Options, alarms, installed, key, snapshot
from attnspec.properties.oracle import long_memory

FILE = Path(__file__).resolve().parents[1] / "docs" / "alarms.json"
DRAWN = {"quick": "drawn", "ci": "drawn-ci"}
Job = tuple[str, Options, str, int]


def row_name(job: Job) -> str:
    target, options, profile, seed = job
    return f"{key(target, options)} {profile} {seed}"


def look(job: Job) -> tuple[str, dict[str, Any]]:
    """One subject at one seed: how many cases were checked, and every verdict that should not be there."""
    target, options, profile, seed = job
    with long_memory():
        report = audit(target, profile=DRAWN[profile] if seed else profile, seed=seed, in_process=True, **options)
    checked = [r for r in report.records if r.seconds]
    dtypes = sorted({r.dtype for r in checked})
    return row_name(job), {
        "cases": sum(r.cases for r in checked),
        "dtypes": dtypes,
        "exit": report.exit_code,
        "alarms": alarms(report, snapshot().get(key(target, options), {})),
    }


def jobs(profile: str, seeds: int, only: list[str], done: dict[str, Any]) -> Iterator[Job]:
    for seed in range(seeds):
        for target, options in (*SUBJECTS, *MODELS):
            job = (target, options, profile, seed)
            if installed(target) and (not only or target in only) and row_name(job) not in done:
                yield job


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=("quick", "ci"), default="quick")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], metavar="TARGET", help="these subjects; may repeat")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no audit after so many minutes")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--file", type=Path, default=FILE)
    wanted = parser.parse_args()
    kept = json.loads(wanted.file.read_text()) if wanted.file.is_file() and not wanted.fresh else {}
    done: dict[str, Any] = kept.get("rows", {})
    commands = kept.get("commands", {}) | {wanted.profile: " ".join(["python benchmarks/alarms.py", *sys.argv[1:]])}
    import torch  # before the fork, so that the workers share it

    torch.set_num_threads(1)
    end = time.monotonic() + 60 * wanted.minutes
    together = len(wanted.only) or len(SUBJECTS) + len(MODELS)
    with get_context("fork").Pool(wanted.processes, maxtasksperchild=1) as pool:
        for name, row in pool.imap_unordered(look, jobs(wanted.profile, wanted.seeds, wanted.only, done), together):
            done[name] = row
            print(f"{name}: {row['cases']} cases, {len(row['alarms'])} alarms", *row["alarms"], sep="\n  ", file=sys.stderr)
            save(done, commands, wanted.file)
            if time.monotonic() > end:
                break
    found = [f"{name}: {alarm}" for name, row in done.items() for alarm in row["alarms"]]
    cases = sum(row["cases"] for row in done.values())
    subjects = {name.rpartition(" ")[0].rpartition(" ")[0] for name in done}
    print(f"{len(done)} audits of {len(subjects)} subjects, {cases} cases, {len(found)} alarms")
    print("\n".join(found))
    return 1 if found else 0


def save(rows: dict[str, Any], commands: dict[str, str], file: Path) -> None:
    """The rows in a fixed order, after the commands that made them and their totals by profile."""
    rows = dict(sorted(rows.items()))
    totals = {
        profile: {
            "audits": len(chosen),
            "cases": sum(r["cases"] for r in chosen),
            "alarms": sum(len(r["alarms"]) for r in chosen),
        }
        for profile in ("quick", "ci")
        if (chosen := [r for name, r in rows.items() if name.split()[-2] == profile])
    }
    head = {"commands": commands, "totals": totals}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    file.write_text(f'{json.dumps(head)[:-1]}, "rows": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    sys.exit(main())
