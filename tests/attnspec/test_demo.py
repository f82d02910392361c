"""`attnspec demo` ends with a verdict for each target, and with 0 exactly when it found what it must find."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from attnspec import demo
from attnspec.cli import main


def run(*arguments: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(main, ["demo", "--select", "mask.causal", *arguments])
    return done.exit_code, done.output.splitlines()


def test_every_target_gets_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines = run("--report", "report")
    rows = [line.split() for line in lines[lines.index("verdicts") + 1 :]]
    assert code == 0
    assert [row[0] for row in rows[:5]] == [target for target, _ in demo.TARGETS]
    assert [row[-3:] for row in rows[:4]] == [["1", "claims", "hold"]] * 4
    assert "violates mask.causal" in " ".join(rows[4])
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_broken_example_that_passes_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "TARGETS", (("impl:attention", {}), ("impl:attention", {})))
    assert run()[0] == 1
