"""The table of `make old-transformers`, from records that stand in for an audit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import old_transformers as old

PAGE = old.PAGE.read_text(encoding="utf-8")


def test_a_cell_counts_what_holds_and_names_what_does_not() -> None:
    records = [
        {"target": "hf-tiny:x"},  # a header
        {"verdict": "HOLDS", "claim": "cache.fork"},
        {"verdict": "HOLDS", "claim": "cache.crop"},
        {"verdict": "NOT APPLICABLE", "claim": "cache.chunks"},
        {"verdict": "UNKNOWN", "claim": "mask.padded-left"},
        {"verdict": "VIOLATED", "claim": "cache.reorder"},
    ]
    assert old.cell(records) == "2 hold; 1 violated: `cache.reorder`; 1 unknown: `mask.padded-left`; 1 not applicable"
    with pytest.raises(ValueError, match="not audited"):
        old.cell(records[:1])


def test_the_table_goes_behind_its_mark() -> None:
    rows = {"4.1": {"gpt2": "1 hold", "llama": old.ABSENT}, "4.2": {"gpt2": "2 hold", "llama": "3 hold"}}
    text = old.table(rows)
    assert text.splitlines()[2:] == ["| gpt2 | 1 hold | 2 hold |", f"| llama | {old.ABSENT} | 3 hold |"]
    page = f"# Title\n\n{old.MARK}\n| old |\n\nWords after it.\n"
    assert old.filled(page, text) == f"# Title\n\n{old.MARK}\n{text}\n\nWords after it.\n"
    assert old.filled(old.filled(page, text), text) == old.filled(page, text)
    assert old.filled(page.replace("| old |\n", ""), text) == old.filled(page, text)
    with pytest.raises(ValueError, match="no line"):
        old.filled("# Title\n", text)


def test_scripts_of_the_page_are_run_in_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def here(version: str) -> Path:
        asked.append(version)
        return Path(sys.prefix)

    monkeypatch.setattr(old, "environment", here)
    page = "Before.\n\n<!-- run: 4.51.3 -->\n```python\nprint(6 * 7)\n```\n\nIt prints\n\n```text\n41\n```\n\nAfter.\n"
    assert old.rerun(page) == page.replace("41", "42")
    assert asked == ["4.51.3"]
    with pytest.raises(subprocess.CalledProcessError):
        old.rerun(page.replace("print(6 * 7)", "raise SystemExit(2)"))
    assert len(old.SCRIPT.findall(PAGE)) == PAGE.count("```python")


def test_the_page_has_every_version_and_family_and_says_what_is_behind_each_finding() -> None:
    shown, _, words = PAGE.partition(old.MARK + "\n")[2].partition("\n\n")
    lines = shown.splitlines()
    assert lines[0] == "| | " + " | ".join(old.VERSIONS) + " |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(old.FAMILIES)
    found = set(re.findall(r"`([a-z-]+\.[a-z-]+)`", shown))
    assert found
    assert {claim for claim in found if f"`{claim}`" not in words} == set()
