"""The kill matrix: which claims each planted defect violates in a quick audit.

A claim that no mutant violates proves nothing; a mutant that no claim violates is a defect we would miss.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

from attnspec.auditor import DEFAULT_SEED, audit
from attnspec.properties.claim import claims
from attnspec.properties.mutants import ids

FILE = Path(__file__).resolve().parent / "properties" / "mutants" / "kill_matrix.json"


def killers(mutant: str, select: Iterable[str] = (), seed: int = DEFAULT_SEED) -> list[str]:
    """The claims that the mutant violates, in the order of the registry. Nothing is shrunk: only the verdicts count."""
    report = audit(f"mutant:{mutant}", select=tuple(select), profile="kill", seed=seed, in_process=True)
    violated = {record.claim for record in report.violations}
    return [claim for claim in claims() if claim in violated]


def _row(mutant: str) -> tuple[str, list[str]]:
    return mutant, killers(mutant)


def compute(processes: int = 2) -> dict[str, list[str]]:
    """The whole matrix; a few minutes on two cores."""
    import torch  # before the fork, so that the workers share it

    torch.set_num_threads(1)
    rows: dict[str, list[str]] = {}
    with get_context("fork").Pool(processes) as pool:
        for mutant, row in pool.imap(_row, ids()):
            rows[mutant] = row
            print(f"{len(rows):4}/{len(ids())} {mutant:36} {len(row):3} claims", file=sys.stderr)  # noqa: T201 - progress
    return rows


def write(rows: dict[str, list[str]], file: Path = FILE) -> None:
    """The matrix as JSON that `attnspec` ships, to name likely causes."""
    content = {"profile": "quick", "seed": DEFAULT_SEED, "killed_by": rows}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
