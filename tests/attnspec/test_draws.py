"""The cases of an audit are a function of its seed, whatever modules are loaded."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest

import attnspec


def inputs_of_an_audit() -> list[str]:
    """What the subject was given, call by call."""
    seen: list[str] = []

    def plain(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        seen.append(hashlib.sha256(b"".join(x.tobytes() for x in (q, k, v))).hexdigest())
        scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True) @ v)

    attnspec.audit(plain, dtypes="float32", seed=7)
    return seen


def test_a_module_full_of_numbers_changes_no_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs_of_an_audit()
    (tmp_path / "block_sizes.py").write_text(
        f"SIZES = {list(range(103, 9_999, 97))}\nSCALES = {[n / 8 for n in range(99)]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("block_sizes")
    assert inputs_of_an_audit() == before
    assert len(set(before)) > 25  # it is not all the same case
