"""Generated pages are current: `make docs` would change nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_claims_page(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "claims.md").read_text() == generate.claims_page()


def test_kill_matrix_page(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "kill-matrix.md").read_text() == generate.matrix_page()


def test_known_subjects_page(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "known-subjects.md").read_text() == generate.subjects_page()


def test_readme_shows_what_the_tool_prints(generate: ModuleType) -> None:
    assert (ROOT / "README.md").read_text() == generate.readme_page()


def test_the_suite_of_the_readme_runs(generate: ModuleType, tmp_path: Path) -> None:
    generate.kernel(tmp_path)
    text = (ROOT / "README.md").read_text()
    (tmp_path / "test_kernel.py").write_text(text.partition("```python\n# test_kernel.py\n")[2].partition("```")[0])
    command = [sys.executable, "-m", "pytest", "-q", "-k", "mask.causal", "-p", "no:cacheprovider", "test_kernel.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "FAILED test_kernel.py::TestAttention::test[mask.causal-float32]" in done.stdout
