"""The HTML report: one file, complete, and what a real browser shows of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from attnspec.auditor import Report, audit
from attnspec.report.html import write

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [
        audit("mutant:mask.sees_next", select=["mask.causal", "scale.sqrt-dk"], in_process=True),
        audit("torch:scaled_dot_product_attention", select=["mask.causal"], in_process=True, backend="math"),
    ]


def test_the_page_is_one_file_with_everything(reports: list[Report], tmp_path: Path) -> None:
    path = write(reports, tmp_path)
    page = path.read_text()
    assert path == tmp_path / "index.html"
    assert "mutant:mask.sees_next" in page
    assert "torch:scaled_dot_product_attention -o backend=math" in page
    assert "mask.causal" in page
    assert "FAIL" in page
    assert "Fails too  for other seeds" in page
    assert not [word for word in ("http://", "src=", "<script") if word in page]  # nothing is fetched, nothing runs
    assert (tmp_path / "results.ndjson").read_text().count("attnspec-run/1") == 4


def test_text_of_a_target_is_escaped(reports: list[Report], tmp_path: Path) -> None:
    renamed = Report("<b>x</b>::f", {}, "quick", 1, profile=reports[0].profile, records=reports[0].records)
    assert "<b>x</b>" not in write([renamed], tmp_path).read_text()


def test_a_browser_shows_it(reports: list[Report], tmp_path: Path, browser: Run) -> None:
    page, picture = write(reports, tmp_path / "report"), tmp_path / "page.png"
    shown = browser("--dump-dom", page.as_uri())
    assert '<table id="summary">' in shown.stdout
    assert shown.stdout.count('class="FAIL"') >= 2
    browser("--window-size=1200,900", f"--screenshot={picture}", page.as_uri())
    assert picture.stat().st_size > 10_000
