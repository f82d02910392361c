"""Scripts of failing cases: in the words of each library, with gradients, storage and generators."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attnspec.conventions import subject_of
from attnspec.function import FunctionSubject
from attnspec.properties.case import Call, Case, Sizes, Storage
from attnspec.properties.claim import claims
from attnspec.properties.subject import UNDER
from attnspec.properties.verdict import Evidence
from attnspec.report.script import script
from attnspec.target import Loaded, load

EVIDENCE = Evidence("output", at=(0, 0, 0, 0), got=1.0, expected=0.0)
SIZES = Sizes(B=2, T=2, S=3, D=2, E=2)

NUMPY = """
import numpy as np
def attention(q, k, v, *, dropout_p=0.0, rng=None):
    s = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    w = np.exp(s - s.max(-1, keepdims=True))
    w = w / w.sum(-1, keepdims=True)
    if dropout_p:
        w = np.where(rng.random(w.shape) < dropout_p, 0, w / (1 - dropout_p)).astype(q.dtype)
    return w @ v
"""
TORCH = """
import torch
def attention(q, k, v, *, causal=False):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
"""


@pytest.fixture
def subject(tmp_path: Path) -> Callable[..., tuple[Loaded, FunctionSubject]]:
    def make(source: str, name: str, **options: str) -> tuple[Loaded, FunctionSubject]:
        (tmp_path / f"{name}.py").write_text(source)
        loaded = load(f"{tmp_path / name}.py::attention", options)
        return loaded, subject_of(loaded)

    return make


def run(loaded: Loaded, subject: FunctionSubject, case: Case, folder: Path, claim: str = "reference.forward") -> str:
    """What the script of the case prints, which is of the last calls."""
    text = script(loaded, subject, claims()[claim], case, EVIDENCE)
    path = folder / "script.py"
    path.write_text(text)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("storage", ["plain", "strided", "offset", "transposed", "expanded", "poisoned"])
@pytest.mark.parametrize(("source", "library"), [(NUMPY, "in_numpy"), (TORCH, "in_torch")])
def test_every_storage_is_written_down(subject, tmp_path: Path, storage: Storage, source: str, library: str) -> None:
    if library == "in_torch":
        pytest.importorskip("torch")
    loaded, made = subject(source, f"{library}_{storage}", dtypes="float64")
    case = Case("reference.forward", "float64", SIZES, storage=storage)
    out = case.build().through(made)
    text = script(loaded, made, claims()["reference.forward"], case, EVIDENCE)
    assert ("stored(" in text) == (storage != "plain")
    assert f"{out.flat[0]:.3f}"[:5] in run(loaded, made, case, tmp_path)


def test_gradients_of_torch(subject, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    loaded, made = subject(TORCH, "torch_gradients", dtypes="float64")
    case = Case("grad.reference", "float64", SIZES, Call(causal=True))
    x = case.build()
    found = made.vjp(x.q, x.k, x.v, case.cotangent(), **x.options)
    assert f"{found.v.flat[0]:.4f}" in run(loaded, made, case, tmp_path, "grad.reference")


def test_a_generator_is_made_again_from_the_seed(subject, tmp_path: Path) -> None:
    loaded, made = subject(NUMPY, "with_dropout", dtypes="float64")
    assert made.profile.offers("dropout")
    case = Case("reference.forward", "float64", SIZES, Call(dropout=0.5), seed=7)
    out = case.build().through(made)
    text = script(loaded, made, claims()["reference.forward"], case, EVIDENCE)
    assert "np.random.default_rng(7)" in text
    printed = run(loaded, made, case, tmp_path)
    largest = np.abs(out).max()
    assert f"{largest:.3f}"[:5] in printed


REVEALS = """
import torch
def attention(q, k, v):
    print(torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_num_threads())
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)
"""


@pytest.mark.parametrize(
    ("around", "said"),
    [
        ("another default dtype", "torch.float64 True False"),
        ("a default dtype of 16 bits", "torch.bfloat16 True False"),
        ("gradients switched off", "torch.float32 False False"),
        ("inference mode", "torch.float32 False False"),
        ("autocast to bfloat16", "torch.float32 True True"),
        ("two threads", "torch.float32 True False 2"),
    ],
)
def test_surroundings_are_written_down(subject, tmp_path: Path, around: str, said: str) -> None:
    pytest.importorskip("torch")
    loaded, made = subject(REVEALS, f"reveals_{len(around)}", dtypes="float32")
    case = Case("robust.surroundings", "float32", SIZES)
    case.build().result(made, UNDER + around)
    assert run(loaded, made, case, tmp_path, case.claim).startswith(said)
