"""A violated case is kept, is small, and says the same again: by `replay`, and as a script without this package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attnspec.properties.case import Case

PLACE = re.compile(r"at \[\d.*$|got .*$|expected .*$", re.MULTILINE)
TORCH = """
import math, torch
def off_by_one(q, k, v, causal=False):
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    keep = torch.ones(scores.shape[-2:], dtype=torch.bool)
    return torch.softmax(scores.masked_fill(~(keep.tril(1) if causal else keep), -math.inf), -1) @ v
"""


@pytest.fixture(params=["plain.py::off_by_one", "in_torch.py::off_by_one"])
def audited(request: pytest.FixtureRequest, cli, folder: Path) -> str:
    """The output of an audit that violates mask.causal."""
    (folder / "in_torch.py").write_text(TORCH)
    done = cli("audit", request.param, "--select", "mask.causal", "--json", "r.json")
    assert done.returncode == 1
    return done.stdout


def kept(folder: Path) -> dict[str, Case]:
    cases = [Case.from_json(p.read_bytes()) for p in (folder / ".attnspec" / "cases").glob("*.json")]
    return {case.dtype: case for case in cases}


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "r.json").read_text().splitlines()[1:-1]]


def failed(folder: Path) -> list[dict]:
    return [record for record in records(folder) if record["verdict"] == "VIOLATED"]


def test_an_off_by_one_is_shown_with_two_tokens(audited: str, folder: Path) -> None:
    assert "shrunk to 2 tokens" in audited
    for case in kept(folder).values():
        z = case.sizes
        assert (z.T, z.S) == (2, 2)
        assert (z.B, z.H, z.G, z.D, z.E) == (1, 1, 1, 1, 1)
        assert case.values["q"].kind == "zeros"
        assert all(p.value == "one" for p in case.plant)


def test_the_record_holds_the_case_that_is_kept(audited: str, folder: Path) -> None:
    cases = kept(folder)
    assert {r["dtype"] for r in failed(folder)} == set(cases) >= {"float32", "float64"}
    for record in failed(folder):
        assert record["case"]["id"] == cases[record["dtype"]].id
        assert record["case"]["claim"] == record["claim"] == "mask.causal"


def test_replay_by_prefix_says_the_same(audited: str, cli, folder: Path) -> None:
    prefix = audited.partition("attnspec replay ")[2][:4]
    replayed = cli("replay", prefix)
    assert replayed.returncode == 1
    block = audited.partition("Verdict ")[2].partition("Reproduce")[0]
    again = replayed.stdout.partition("Verdict ")[2].partition("Reproduce")[0]
    assert PLACE.findall(block) == PLACE.findall(again) != []
    assert f"replay {prefix}" in replayed.stdout


def test_replay_by_file_and_on_another_target(audited: str, cli, folder: Path) -> None:
    case = kept(folder)["float64"]
    file = f".attnspec/cases/{case.id}.json"
    assert cli("replay", file).returncode == 1
    assert cli("replay", file, "--in-process").returncode == 1
    assert cli("replay", file, "--target", "plain.py::causal").returncode == 0


def test_a_mended_target_no_longer_fails(audited: str, cli, folder: Path) -> None:
    for name in ("plain.py", "in_torch.py"):
        source = (folder / name).read_text()
        mended = source.replace("triangle(q, k, v, 1)", "triangle(q, k, v, 0)").replace("tril(1)", "tril()")
        (folder / name).write_text(mended)
    replayed = cli("replay", kept(folder)["float64"].id)
    assert "mask.causal                    OK    1 cases" in replayed.stdout
    assert replayed.returncode == 0


def test_the_script_stands_alone_and_shows_the_evidence(audited: str, folder: Path) -> None:
    for record in failed(folder):
        (path,) = (folder / ".attnspec" / "cases").glob(f"{record['case']['id']}*.py")
        script = path.read_text()
        assert "attnspec" not in "".join(line for line in script.splitlines() if "import" in line)
        done = subprocess.run([sys.executable, path], cwd="/", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        before, after = (float(row) for row in re.findall(r"\[\[\[\[\s*([-+.\de]+)\]", done.stdout))
        got, expected = record["evidence"]["got"], record["evidence"]["expected"]
        assert f"{before:.4f}" == f"{expected:.4f}"
        assert f"{after:.4f}" == f"{got:.4f}"
        assert before != after


def test_the_same_seed_finds_the_same_cases(audited: str, cli, folder: Path) -> None:
    first = {case.id for case in kept(folder).values()}
    target = audited.partition("target ")[2].split()[0]
    assert cli("audit", target, "--select", "mask.causal").returncode == 1
    assert {case.id for case in kept(folder).values()} == first


def test_options_are_kept_beside_the_case(cli, folder: Path) -> None:
    done = cli("audit", "plain.py::off_by_one", "-o", "grouped=false", "-o", "dtypes=float32", "--select", "mask.causal")
    assert done.returncode == 1
    (case,) = kept(folder).values()
    assert case.dtype == "float32"
    beside = folder / ".attnspec" / "cases" / f"{case.id}.target"
    assert set(beside.read_text().splitlines()) == {"plain.py::off_by_one", "grouped=false", "dtypes=float32"}
    replayed = cli("replay", case.id)
    assert "-o grouped=false" in replayed.stdout
    assert replayed.returncode == 1
