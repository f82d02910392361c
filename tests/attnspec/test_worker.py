"""Worker processes: two lanes find what one finds, and an accident in one of them costs one verdict."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

import attnspec
from attnspec.auditor import Unit
from attnspec.lanes import LEAST
from attnspec.properties.claim import claims, select
from attnspec.worker import Worker

FAMILIES = ("softmax", "scale", "mask.causal")
FEW = {"dtypes": "float64,float32"}

BAD = """
import os, signal, time
from plain import causal as right


def sometimes(accident):
    def attention(q, k, v, *, causal=False):
        if causal and q.shape[-2] > 20: accident()
        return right(q, k, v, causal=causal)
    return attention


killed = sometimes(lambda: os.kill(os.getpid(), signal.SIGKILL))
hangs = sometimes(lambda: time.sleep(600))


class Remembers:
    '''Wrong from the 200th call on: its verdicts depend on what its process has done before.'''

    calls = 0

    def __call__(self, q, k, v, *, causal=False):
        self.calls += 1
        return right(q, k, v, causal=causal) * (1 if self.calls < 200 else 2)


remembers = Remembers()
"""


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lanes_bad.py").write_text(BAD)
    monkeypatch.chdir(folder)


def found(report: Any) -> list[Any]:
    """The records without what no two runs share."""
    return [msgspec.structs.replace(r, seconds={}) for r in report.records]


def in_order(report: Any) -> bool:
    """Whether records are in the order of the registry, the dtypes of a claim side by side."""
    places = [list(claims()).index(r.claim) for r in report.records if claims()[r.claim].given is not None]
    return places == sorted(places)


@pytest.mark.parametrize("target", ["plain.py::off_by_one", "lanes_bad.py::remembers"])
def test_one_job_finds_what_two_find(target: str) -> None:
    """Equal records, also of a subject that remembers: which claims share a process does not depend on the jobs."""
    assert sum(c.given is not None for c in select(FAMILIES)) >= LEAST
    side_by_side, in_turn = (attnspec.audit(target, select=FAMILIES, jobs=jobs, **FEW) for jobs in (2, 1))
    assert found(side_by_side) == found(in_turn)
    assert side_by_side.exit_code == 1
    assert in_order(side_by_side)
    assert in_order(in_turn)


@pytest.mark.parametrize(("name", "reason"), [("killed", "of signal 9 (SIGKILL)"), ("hangs", "no answer within 6 s")])
def test_an_accident_in_one_lane_costs_one_verdict(name: str, reason: str) -> None:
    right = attnspec.audit("plain.py::causal", select=FAMILIES, dtypes="float32")
    report = attnspec.audit(f"lanes_bad.py::{name}", select=FAMILIES, timeout=6.0, dtypes="float32")
    unknown = [r for r in report.records if r.verdict == "UNKNOWN"]
    assert unknown
    assert {r.claim for r in unknown} == {"mask.causal"}  # the only one with more than 20 causal queries
    assert all(reason in str(r.reason) for r in unknown)
    others = [(r.claim, r.dtype, r.verdict) for r in report.records if r.claim != "mask.causal"]
    assert others == [(r.claim, r.dtype, r.verdict) for r in right.records if r.claim != "mask.causal"]
    assert report.exit_code == 3


def test_an_interrupt_keeps_the_verdicts_of_both_lanes() -> None:
    seen: list[tuple[str, str]] = []
    begun = {c.id for c in [c for c in select(FAMILIES) if c.of == "attention"][:2]}  # the claims that the lanes begin with

    def progress(unit: Any, _: Any) -> None:
        seen.append((unit.claim, unit.dtype))
        if len(seen) >= 6 and begun <= {claim for claim, _ in seen}:
            raise KeyboardInterrupt

    report = attnspec.audit("plain.py::causal", select=FAMILIES, jobs=2, progress=progress)
    assert report.interrupted
    assert report.exit_code == 130
    assert len(report.records) >= 6
    # How far the lanes get is a matter of time, and so is whether they come to what does not apply.
    assert {"HOLDS"} <= {r.verdict for r in report.records} <= {"HOLDS", "NOT APPLICABLE"}
    assert in_order(report)
    assert begun <= {r.claim for r in report.records}


def test_the_profile_is_probed_once() -> None:
    """The second worker takes it over: a function that counts its calls is called by claims alone there."""
    (Path.cwd() / "counted.py").write_text(
        "import os\nfrom plain import plain\n\n\n"
        "def attention(q, k, v):\n"
        "    with open(f'calls-{os.getpid()}', 'a') as file: file.write(f'{q.shape[-2]}\\n')\n"
        "    return plain(q, k, v)\n"
    )
    chosen = [c.id for c in select(FAMILIES) if not c.needs and c.given is not None]
    report = attnspec.audit("counted.py::attention", select=(*chosen, "mask"), jobs=2, dtypes="float32")
    assert report.exit_code == 0
    files = [file.read_text().split() for file in Path.cwd().glob("calls-*")]
    assert len(files) == 2
    first = [calls[:8] for calls in files]  # of the probes; a claim's own cases may begin with some of their lengths
    assert first[0] != first[1]


def test_the_next_worker_does_not_wait_for_what_is_being_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead worker's library is imported here while its pool replaces it: a fork in the midst of that never loads it."""
    monkeypatch.syspath_prepend(folder)
    (folder / "slow_to_load.py").write_text("import time\ntime.sleep(1.5)\n")
    (folder / "dies.py").write_text(
        "import os, signal, slow_to_load\nfrom plain import plain\n\n\n"
        "def attention(q, k, v):\n    if q.shape[-2] > 20: os.kill(os.getpid(), signal.SIGKILL)\n    return plain(q, k, v)\n"
    )
    with Worker("dies.py::attention", {"dtypes": "float32"}, 20.0) as worker:
        profile = worker.profile()
        worker._heavy = ["slow_to_load"]
        unit = Unit("dies.py::attention", {"dtypes": "float32"}, "reference.forward", "float32", "quick", 1)
        crashed, right = worker.run(unit), worker.run(replace(unit, claim="scale.sqrt-dk"))
    del sys.modules["slow_to_load"]
    assert profile["dtypes"] == ("float32",)
    assert "SIGKILL" in str(crashed.reason)
    assert right.verdict == "HOLDS", right.reason


@pytest.mark.parametrize("library", ["jax", "mlx.core", "onnxruntime"])
def test_a_process_with_threads_of_its_own_is_not_forked(folder: Path, library: str) -> None:
    """No main guard, and the library has been at work: neither a deadlock nor a second run of the script."""
    if find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"{library} is not installed")
    work = {"jax": "jax.numpy.ones(3).sum().block_until_ready()", "mlx.core": "mlx.core.eval(mlx.core.ones(3))"}
    (folder / "script.py").write_text(
        textwrap.dedent(f"""
            import {library}
            {work.get(library, "")}
            import attnspec
            print("begins")
            report = attnspec.audit("plain.py::plain", select=["scale.sqrt-dk"])
            print(report.exit_code, {{r.verdict.value for r in report.records}})
        """)
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["begins", "0 {'HOLDS'}"], done.stderr
    assert "fork" not in done.stderr
