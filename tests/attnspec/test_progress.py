"""What a terminal shows while there is work, on a real one; and that nothing of it is where output is collected."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MODEL = """
import time
import numpy as np

TABLE = np.cos(np.arange(7)[:, None] * np.arange(1, 8))


class Slow:
    vocab_size = 7

    def logits(self, ids):
        if ids.shape == (13, 12): time.sleep(1.3)
        return np.tanh(np.eye(7)[ids].cumsum(1)) @ TABLE
"""
SELECT = ("--select", "mask.logits-causal", "--select", "batch")


def on_a_terminal(folder: Path, *arguments: str, columns: int = 100, term: str = "xterm") -> tuple[str, str]:
    """Standard output, collected, and what a terminal of that width got as standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "attnspec", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, text=True, env={**os.environ, "TERM": term}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # the other side is closed
            more = b""
        if not more:
            break
        seen += more
    os.close(ours)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return out, seen.decode()


@pytest.fixture
def here(folder: Path) -> Path:
    (folder / "slow.py").write_text(MODEL)
    return folder


def test_one_line_is_rewritten(here: Path) -> None:
    (here / "again.py").write_text(MODEL)
    out, seen = on_a_terminal(here, "audit", "slow.py::Slow", "again.py::Slow", *SELECT)
    assert "\n" not in seen
    shown = [text for text in seen.split("\r\x1b[K") if text]
    assert all(re.fullmatch(r"[12]/2 (slow|again)\.py::Slow: (claim \d of 3, )?\d+ s, [^,]+", text) for text in shown), shown
    first = [text for text in shown if text.startswith("1/2 slow.py::Slow: ")]
    claims = [int(found[1]) for text in first if (found := re.search(r"claim (\d) of 3", text))]
    assert set(claims) == {1, 2, 3}
    assert claims == sorted(claims)
    assert any("1 s, begins" in text for text in first), first  # time passes while a claim is at work
    assert any("batch.other-rows float64 HOLDS" in text for text in first)
    assert seen.endswith("\r\x1b[K")  # nothing of it is left
    assert "\x1b" not in out
    assert "claim 1 of" not in out


def test_a_function_has_claims_too(here: Path) -> None:
    _, seen = on_a_terminal(here, "audit", "plain.py::plain", "--select", "softmax", "--select", "scale.sqrt-dk")
    shown = [text for text in seen.split("\r\x1b[K") if text]
    counted = [(int(m[1]), int(m[2])) for text in shown if (m := re.search(r"claim (\d+) of (\d+)", text))]
    assert {n for _, n in counted} == {max(i for i, _ in counted)}
    assert not any(text.startswith("1/1") for text in shown)


def test_a_line_is_no_wider_than_the_terminal(here: Path) -> None:
    _, seen = on_a_terminal(here, "audit", "slow.py::Slow", *SELECT, columns=30)
    shown = [text for text in seen.split("\r\x1b[K") if text]
    assert max(map(len, shown)) == 29


def test_what_is_no_terminal_gets_nothing(here: Path, cli: Run) -> None:
    assert cli("audit", "slow.py::Slow", *SELECT).stderr == ""
    assert on_a_terminal(here, "audit", "slow.py::Slow", *SELECT, term="dumb")[1] == ""
