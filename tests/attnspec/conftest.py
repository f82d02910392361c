"""The command line as a user runs it, and the attention functions that most of these tests audit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]

PLAIN = '''
import numpy as np


def plain(q, k, v):
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def triangle(q, k, v, diagonal):
    """Causal attention; diagonal 0 is right, 1 lets each query see one key too many."""
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    scores = np.where(np.tril(np.ones(scores.shape[-2:], bool), diagonal), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def causal(q, k, v, *, causal=False):
    return triangle(q, k, v, 0) if causal else plain(q, k, v)


def off_by_one(q, k, v, *, causal=False):
    return triangle(q, k, v, 1) if causal else plain(q, k, v)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with `plain.py`: attention in NumPy, right (`plain`, `causal`) and wrong (`off_by_one`)."""
    (tmp_path / "plain.py").write_text(PLAIN)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Run:
    """Runs `attnspec ...` in that folder; no command may end in a traceback or take longer than a minute."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "attnspec", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def browser(tmp_path: Path) -> Run:
    """Runs a real browser without a window; what it prints is the result."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    home = {**os.environ, "HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True, env=home)

    return run
