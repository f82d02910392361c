"""Shared by all tests: pytest's test bench, a seed, and one torch thread, so that parallel workers do not fight for cores."""

import os
import subprocess
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when something imports it; torch is not imported here


@pytest.fixture(scope="session")
def commit_seed() -> int:
    """From the commit id, so that CI looks at new cases with every change and a failure can be repeated; 0 without git."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return int(done.stdout.strip() or "0", 16) % 100_000
