"""The HTML report: one file, complete, and what a real browser shows of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from attnspec.auditor import Report, audit
from attnspec.report.html import write

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(reports: list[Report], tmp_path: Path) -> None:
    page, picture = write(reports, tmp_path / "report"), tmp_path / "page.png"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    assert BROWSER is not None
    shown = subprocess.run(
        [BROWSER, *QUIET, profile, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert '<table id="summary">' in shown.stdout
    assert shown.stdout.count('class="FAIL"') >= 2
    command = [BROWSER, *QUIET, profile, "--window-size=1200,900", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True, env={**os.environ, "HOME": str(tmp_path)})
    assert picture.stat().st_size > 10_000
