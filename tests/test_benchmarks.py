"""The benchmarks in their small form: every row is there, contenders compute the same, and libraries may be missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnspec.reference.transformer import transformer
from benchmarks import gpu, limits, measure, models, peers, speed_page
from benchmarks.contenders import Contender, Ours
from benchmarks.outputs import Truth, words_compared
from benchmarks.paper_model import END, SMALL, SMALL_WORK, START, text, weights
from tests.authorities.agreement import agrees

ROOT = Path(__file__).resolve().parents[1]
STATE = weights(SMALL)
IN_FLOAT32 = tuple(kind for kind in peers.ALL if kind.dtype == "float32")


def one(kind: type[Contender]) -> Contender:
    found = peers.built(SMALL, STATE, (kind,))
    if not found:
        pytest.skip(f"{peers.NEEDS[kind]} is not installed")
    found[0].evaluated()
    return found[0]


@pytest.fixture(scope="module")
def truth() -> Truth:
    torch.set_num_threads(1)
    return Truth(SMALL, STATE)


def logits_agree(contender: Contender) -> None:
    """To the derived bound of float32."""
    source, target = text(SMALL, 1, 5), text(SMALL, 1, 4, seed=2)
    target[:, 0] = START
    parameters = {name: entry.double().numpy() for name, entry in STATE.items()}
    options: Any = {"heads": SMALL.heads, "positions": "sinusoidal", "scale_embeddings": True}
    with torch.no_grad():
        got = contender.logits(source, target)
    agrees(got.numpy(), transformer, source.numpy(), target.numpy(), parameters, unit="float32", **options)


@pytest.mark.parametrize("kind", IN_FLOAT32, ids=lambda kind: kind.name)
def test_a_contender_computes_what_the_reference_computes(kind: type[Contender]) -> None:
    logits_agree(one(kind))


def test_the_comparison_notices_a_wrong_weight() -> None:
    wrong = Ours(SMALL, {**STATE, "decoder.1.cross.o.weight": STATE["decoder.1.cross.o.weight"] * 1.03})
    wrong.evaluated()
    with pytest.raises(AssertionError, match="error"):
        logits_agree(wrong)


def test_words_that_rounding_cannot_swap_are_reported(truth: Truth) -> None:
    ours = one(Ours)
    source = text(SMALL, 2, 9)
    words = ours.decode(source, 6)
    error = truth.error_of_logits(ours)
    assert words_compared(words.clone(), words, source, truth, error) == "same"
    wrong = words.clone()
    wrong[1, 3] += 1
    assert words_compared(wrong, words, source, truth, error) == "1 of 2 rows differ"
    assert words_compared(wrong, words, source, truth, error=1e3) == "tie"


def test_gradients_and_memories_are_compared_with_the_reference(truth: Truth) -> None:
    """In float64 almost nothing is left; a wrong weight leaves much."""
    ours = one(Ours)
    ours.net.double()
    roundoff = float(np.finfo(np.float64).eps)
    assert truth.error_of_gradient(ours) < 2**12 * roundoff
    ours.evaluated()
    for padded in (False, True):
        found = truth.error_of_memory(ours, padded)
        assert found is not None
        assert found < 2**12 * roundoff
    ours.net.encoder.get_submodule("1.feed_forward.up").weight.data *= 1.001
    assert truth.error_of_gradient(ours) > 2**-20
    assert (truth.error_of_memory(ours, padded=True) or 0) > 2**-20


def test_nobody_stops_early() -> None:
    """The logit of the end symbol is 0, and words are decoded that vary."""
    words = one(Ours).decode(text(SMALL, 4, 12), 32)
    assert words.shape == (4, 32)
    assert not (words == END).any()
    assert len(words.unique()) > 8


def test_rounds_are_paired_and_kept_when_interrupted() -> None:
    calls = []

    def job(name: str) -> None:
        calls.append(name)
        if len(calls) == 8:
            raise KeyboardInterrupt

    seconds, complete = measure.interleaved({name: (lambda n=name: job(n)) for name in "abc"}, 5)
    assert calls == [*"abc", *"abc", "a", "b"]
    assert not complete
    assert {name: len(taken) for name, taken in seconds.items()} == dict.fromkeys("abc", 1)
    assert measure.ratio({"a": [2.0, 3.0, 8.0], "b": [1.0, 2.0, 2.0]}, "a", "b") == measure.Spread(2.0, 1.5, 4.0)


def test_needs_are_counted_right() -> None:
    """Operations are those that torch counts, and the step reads the weights that a step uses."""
    from torch.utils.flop_counter import FlopCounterMode

    net, needs = one(Ours).net, limits.Needs(SMALL)
    source, target = text(SMALL, 3, 10), text(SMALL, 3, 7)
    with (
        FlopCounterMode(display=False) as counted,
        torch.no_grad(),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        net.logits(source, target)
    assert counted.get_total_flops() == needs.encoder([10] * 3) + needs.memories(30) + needs.decoder(3, 7, 10)
    read = [p.numel() for n, p in net.named_parameters() if n.startswith("decoder") and p.ndim == 2 and ".cross.kv" not in n]
    assert needs.step_weights() == sum(read) + STATE["source.embedding.weight"].numel()


def test_each_limit_is_that_of_its_own_sizes(truth: Truth) -> None:
    bound, needs = limits.Limits(1e9, {"float32": 1e9, "bfloat16": 2e9}), limits.Needs(SMALL)
    found = {one.name: one.least("float32") for one in models.measurements(SMALL, SMALL_WORK, bound, truth)}
    assert found["train_float32"] == needs.train(bound, *SMALL_WORK.train, "float32")
    assert found["encode_full"] == needs.encode(bound, [SMALL_WORK.encode[1]] * SMALL_WORK.encode[0])
    B, new = SMALL_WORK.new[0]
    assert found[f"decode_{B}"] == needs.decode(bound, B, SMALL_WORK.source, new)


def test_every_row_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main(["--small", "--threads", "1", "--rounds", "1", "--folder", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    installed = [kind for kind in peers.ALL if peers.version(kind) is not None]
    tables = {"decode_1": "decode", "decode_3": "decode", "train_float32": "train", "train_bfloat16": "train",
              "encode_full": "encode", "encode_padded": "encode"}  # fmt: skip
    want = set()
    for table, kind in tables.items():
        dtypes = {"train_float32": ("float32",), "train_bfloat16": ("bfloat16",)}.get(table, ("float32", "int8"))
        want |= {(table, c.name) for c in installed if kind in c.does and c.dtype in dtypes}
    assert {(row["measurement"], row["contender"]) for row in result["rows"]} == want
    assert result["complete"]
    for row in result["rows"]:
        assert row["seconds"] > 0
        assert row["times_ours"]["least"] <= row["times_ours"]["median"] <= row["times_ours"]["most"]
        if row["measurement"].startswith("decode") and row["dtype"] == "float32":
            assert row["words"] in ("same", "tie")
    assert all(row["cache_bytes"] == row["formula_bytes"] for row in result["growth"])
    assert [(row["rows"], row["context"]) for row in result["growth"]] == [(1, 8), (1, 16), (1, 32), (1, 8), (2, 8), (4, 8)]
    page = (tmp_path / "speed.md").read_text()
    assert page == speed_page.page(result)
    said = capsys.readouterr().out
    assert all(row["contender"] in page and row["contender"] in said for row in result["rows"])


def test_libraries_that_are_missing_are_named_and_left_out(tmp_path: Path) -> None:
    """The command itself, in an interpreter that has none of them."""
    code = """
import importlib.metadata, runpy, sys
there = importlib.metadata.version
def version(name):
    if name in ("transformers", "x-transformers", "ctranslate2"):
        raise importlib.metadata.PackageNotFoundError(name)
    return there(name)
importlib.metadata.version = version
sys.modules.update(dict.fromkeys(("transformers", "x_transformers", "ctranslate2")))
runpy.run_module("benchmarks.models", run_name="__main__", alter_sys=True)
"""
    options = ["--small", "--threads", "1", "--rounds", "1", "--folder", str(tmp_path)]
    ran = subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "ctranslate2: not installed" in ran.stdout
    result = json.loads((tmp_path / "speed.json").read_text())
    assert result["missing"] == ["ctranslate2", "transformers", "x-transformers"]
    assert {row["contender"].partition(",")[0] for row in result["rows"]} == {"attnspec", "nn.Transformer"}


def test_the_form_for_a_gpu_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of fixed shapes, traced, decodes the same words."""
    monkeypatch.setattr(peers, "version", lambda kind: None if kind in peers.NEEDS else "")
    file = tmp_path / "gpu.json"
    only = ("decode_3",)
    assert gpu.main(["--device", "cpu", "--small", "--rounds", "1", "--file", str(file), "--only", *only]) == 0
    rows = json.loads(file.read_text())["rows"]
    ways = {f"attnspec, {how}, {dtype}" for how in ("eager", "compiled") for dtype in ("float32", "bfloat16")}
    assert {row["contender"] for row in rows if row["measurement"] == "decode_3"} == ways | {"nn.Transformer"}
    decoded = {row["words"] for row in rows if row["measurement"] == "decode_3" and "bfloat16" not in row["contender"]}
    assert decoded <= {"same", "tie"}
    assert {row["measurement"] for row in rows} == set(only)


def test_an_interrupted_run_keeps_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "version", lambda kind: None if kind in peers.NEEDS else "")

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Truth, "error_of_gradient", interrupted)
    assert models.main(["--small", "--threads", "1", "--rounds", "1", "--folder", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    assert not result["complete"]
    assert {row["measurement"] for row in result["rows"]} == {"decode_1", "decode_3"}
    assert "ended early" in (tmp_path / "speed.md").read_text()


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "no GPU" in capsys.readouterr().out


def test_the_page_is_that_of_the_figures() -> None:
    kept = ROOT / "docs" / "speed.json"
    assert (ROOT / "docs" / "speed.md").read_text() == speed_page.page(json.loads(kept.read_text()))
