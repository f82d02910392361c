"""No false alarm: correct implementations, however written, are found right.

The seeds are drawn from the commit, so that CI looks at new cases with every change; `make alarms` looks at many.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from attnspec.auditor import audit
from attnspec.properties.variants import VARIANTS
from attnspec.properties.verdict import Verdict

ROOT = Path(__file__).resolve().parents[1]
SLOW = {"row_by_row", "numpy_numbers", "numpy_key_by_key"}  # Python loops: one dtype is enough here
REAL = {
    "impl:attention": {},
    "impl:attention -o path=explicit": {"path": "explicit"},
    "impl:attention -o path=sdpa": {"path": "sdpa"},
    "torch:scaled_dot_product_attention": {},
    "torch:scaled_dot_product_attention -o backend=flash": {"backend": "flash"},
    "torch:scaled_dot_product_attention -o backend=math": {"backend": "math"},
}


def seed() -> int:
    """A seed from the commit id; 0 where there is none."""
    done = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout.strip() or "0", 16) % 100_000


def unexpected(target: str, **options: object) -> list[tuple[object, ...]]:
    report = audit(target, seed=seed(), in_process=True, **options)
    assert report.cannot_run is None
    assert report.exercised
    return [
        (r.claim, r.dtype, r.verdict, r.reason, r.evidence)
        for r in report.records
        if r.verdict is Verdict.UNKNOWN or (r.verdict is Verdict.VIOLATED and r.level == "must")
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_correct_variant_raises_no_alarm(name: str) -> None:
    options = {"dtypes": "float32"} if name in SLOW else {}
    assert unexpected(f"variant:{name}", **options) == []


@pytest.mark.parametrize("name", REAL)
def test_a_real_implementation_raises_no_alarm(name: str) -> None:
    assert unexpected(name.partition(" ")[0], **REAL[name]) == []
