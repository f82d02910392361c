"""Many targets in one run, as real processes: what one does costs nothing of another, and what is found stays."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Models that hold, leak, die or wait, the last two in `robust.same-logits-twice`: it alone reads fourteen tokens.
MODELS = """
import os, signal, sys, time
import numpy as np

TABLE = np.cos(np.arange(7)[:, None] * np.arange(1, 8))


class Right:
    vocab_size = 7

    def logits(self, ids):
        if ids.shape[1] == 14: self.accident()
        return np.tanh(np.eye(7)[ids].cumsum(1)) @ TABLE

    def accident(self):
        pass


class Again(Right):
    pass


class Killed(Right):
    def accident(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(Right):
    def accident(self):
        time.sleep(600)


class Quits(Right):
    def accident(self):
        os._exit(3)


class Waits(Right):
    def accident(self):
        while not os.path.exists("go"): time.sleep(0.05)


class Looks(Waits):
    def logits(self, ids):
        return super().logits(ids) + 0.001 * TABLE[ids[:, -1:]]
"""
ON_LOADING = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "hangs": "time.sleep(600)",
    "quits": "os._exit(3)",
    "exits": "sys.exit(0)",
    "raises": "raise RuntimeError('no luck')",
}
SELECT = ("mask.logits-causal", "batch.other-rows", "robust.same-logits-twice")
FEW = [word for claim in SELECT for word in ("--select", claim)]
Lines = list[dict[str, Any]]


@pytest.fixture
def here(folder: Path) -> Path:
    (folder / "models.py").write_text(MODELS)
    for name, accident in ON_LOADING.items():
        (folder / f"{name}.py").write_text(f"import os, signal, sys, time\n\n{accident}\n\n\nclass Model:\n    pass\n")
    return folder


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`attnspec audit` as a terminal starts it, in a process group of its own, which ends with the block."""
    command = [sys.executable, "-m", "attnspec", "audit", *arguments, *FEW]
    # A background job of a shell ignores SIGINT, and so would its children: the audit starts with the usual handler.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heard,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def lines(path: Path) -> Lines:
    """The whole lines of a file that may still be written; each must be JSON."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def until(path: Path, process: subprocess.Popen[str], enough: Callable[[Lines], bool]) -> Lines:
    """What the file has once that is enough; the process must still be running."""
    end = time.monotonic() + 25
    while time.monotonic() < end:
        found = lines(path)
        if enough(found):
            assert process.poll() is None
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within 25 s; the file has {[line['format'] for line in lines(path)]}")


def records(found: Lines, target: str) -> list[tuple[str, str]]:
    """Claims and verdicts of a target, in the order of the file."""
    return [(r["claim"], r["verdict"]) for r in found if r["format"] == "attnspec-result/1" and r["target"] == target]


def summaries(found: Lines) -> list[int]:
    return [line["exit_code"] for line in found if "summary" in line]


HOLDS = [(claim, "HOLDS") for claim in SELECT]


def sound(found: Lines, target: str) -> bool:
    return records(found, target) == HOLDS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("killed", "killed.py::Model: loading and probing the target crashed: the worker died of signal 9 (SIGKILL)"),
        ("hangs", "hangs.py::Model: loading and probing the target hung: no answer within 4 s"),
        ("quits", "quits.py::Model: loading and probing the target crashed: the worker died with exit code 3"),
        ("exits", "exits.py"),
        ("raises", "no luck"),
        ("missing", "'missing.py' does not exist"),
    ],
)
def test_a_target_that_cannot_be_loaded_costs_itself(here: Path, cli: Run, name: str, said: str) -> None:
    targets = ("models.py::Right", f"{name}.py::Model", "models.py::Again")
    done = cli("audit", *targets, "-j", "2", "--json", "run.ndjson", "--timeout", "4", *FEW)
    assert done.returncode == 3
    assert said in done.stdout + done.stderr
    found = lines(here / "run.ndjson")
    assert sound(found, targets[0])
    assert sound(found, targets[2])
    assert not records(found, targets[1])
    assert [code for code in summaries(found) if code != 3] == [0, 0]


@pytest.mark.parametrize(
    ("name", "said"), [("Killed", "SIGKILL"), ("Hangs", "no answer within 4 s"), ("Quits", "died with exit code 3")]
)
def test_an_accident_in_a_claim_costs_its_verdict(here: Path, cli: Run, name: str, said: str) -> None:
    targets = ("models.py::Right", f"models.py::{name}", "models.py::Again")
    done = cli("audit", *targets, "-j", "2", "--json", "run.ndjson", "--timeout", "4", *FEW)
    assert done.returncode == 3
    found = lines(here / "run.ndjson")
    assert sound(found, targets[0])
    assert sound(found, targets[2])
    assert records(found, targets[1]) == [*HOLDS[:2], ("robust.same-logits-twice", "UNKNOWN")]
    (reason,) = (r["reason"] for r in found if r.get("verdict") == "UNKNOWN")
    assert said in reason
    assert summaries(found) == [0, 3, 0]


def test_a_violation_outweighs_an_accident_and_all_are_reported(here: Path, cli: Run) -> None:
    (here / "go").touch()
    done = cli("audit", "models.py::Looks", "killed.py::Model", "models.py::Right", "--json", "run.ndjson", *FEW)
    assert done.returncode == 1
    assert summaries(lines(here / "run.ndjson")) == [1, 3, 0]


def test_who_reads_along_sees_each_record(here: Path) -> None:
    file = here / "run.ndjson"
    with running(here, "models.py::Right", "models.py::Waits", "-j", "2", "--json", file.name) as process:
        found = until(file, process, lambda seen: len(records(seen, "models.py::Waits")) == 2)
        assert sound(found, "models.py::Right")
        assert summaries(found) == [0]
        assert records(found, "models.py::Waits") == HOLDS[:2]  # the last is being looked at
        (here / "go").touch()
        assert process.wait(60) == 0
    assert summaries(lines(file)) == [0, 0]
    assert records(lines(file), "models.py::Waits") == records(lines(file), "models.py::Right")


def test_a_violation_is_seen_before_its_explanation(here: Path) -> None:
    file = here / "run.ndjson"
    (here / "go").touch()
    with running(here, "models.py::Looks", "models.py::Hangs", "--json", file.name) as process:
        found = until(file, process, lambda seen: any(line.get("target") == "models.py::Hangs" for line in seen))
    early = [line for line in found if line["format"] == "attnspec-found/1"]
    late = [line for line in found if line["format"] == "attnspec-result/1" and line["verdict"] == "VIOLATED"]
    assert [line["claim"] for line in early] == ["mask.logits-causal"] == [line["claim"] for line in late]
    assert found.index(early[0]) < found.index(late[0])
    assert early[0]["case"] == late[0]["case"]
    assert not early[0]["causes"]
    assert late[0]["causes"]


def test_what_was_killed_goes_on(here: Path, cli: Run) -> None:
    """Not even the process that writes is asked: the file has what was found, and the rest is done later, once."""
    file, targets = here / "run.ndjson", ("models.py::Right", "models.py::Waits", "models.py::Again")
    with running(here, *targets, "--json", file.name) as process:
        until(file, process, lambda seen: len(records(seen, "models.py::Waits")) == 2)
        process.kill()
        process.wait(20)
        half = lines(file)
        (here / "go").touch()
        again = cli("audit", *targets, "--json", file.name, "--resume", *FEW)  # the lock ended with the process
    assert summaries(half) == [0]
    assert again.returncode == 0
    assert "models.py::Right: done before, exit 0" in again.stdout
    found = lines(file)
    assert found[: len(half) - 3] == half[:-3]  # less the header of the second and its two records
    assert summaries(found) == [0, 0, 0]
    assert [line["target"] for line in found if "subject" in line] == list(targets)
    assert all(sound(found, target) for target in targets)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_keeps_what_is_there(here: Path, cli: Run, jobs: str) -> None:
    """Ctrl-C on a terminal is sent to the whole process group."""
    file, targets = here / "run.ndjson", ("models.py::Right", "models.py::Waits", "models.py::Again")
    with running(here, *targets, "-j", jobs, "--json", file.name) as process:
        half = until(file, process, lambda seen: len(records(seen, "models.py::Waits")) == 2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        said = process.stdout.read() if process.stdout else ""
    assert "Traceback" not in said
    assert "interrupted: what is printed is valid" in said
    assert "models.py::Again" not in said
    found = lines(file)
    assert summaries(found) == [0]
    assert records(found, targets[1]) == records(half, targets[1])
    (here / "go").touch()
    again = cli("audit", *targets, "--json", file.name, "--resume", *FEW)
    assert again.returncode == 0
    assert all(sound(lines(file), target) for target in targets)
    assert summaries(lines(file)) == [0, 0, 0]


def test_an_interrupt_while_loading(here: Path) -> None:
    file = here / "run.ndjson"
    with running(here, "models.py::Right", "hangs.py::Model", "--json", file.name) as process:
        until(file, process, lambda seen: summaries(seen) == [0])
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        said = process.stdout.read() if process.stdout else ""
    assert "Traceback" not in said
    assert summaries(lines(file)) == [0]
    assert sound(lines(file), "models.py::Right")


def test_two_runs_do_not_write_one_file(here: Path, cli: Run) -> None:
    file = here / "run.ndjson"
    with running(here, "models.py::Waits", "--json", file.name) as process:
        half = until(file, process, lambda seen: len(records(seen, "models.py::Waits")) == 2)
        for more in ((), ("--resume",)):
            second = cli("audit", "models.py::Right", "--json", file.name, *more, *FEW)
            assert second.returncode == 2
            assert "run.ndjson: another run is writing it; wait for it, or give another file" in second.stderr
            assert second.stdout == ""
        assert lines(file)[: len(half)] == half
        (here / "go").touch()
        assert process.wait(60) == 0
    assert sound(lines(file), "models.py::Waits")
    third = cli("audit", "models.py::Right", "--json", file.name, *FEW)
    assert third.returncode == 0
    assert summaries(lines(file)) == [0]


def test_a_run_that_writes_nothing_leaves_no_file(here: Path, cli: Run) -> None:
    assert cli("audit", "models.py::Wrong", "--json", "run.ndjson").returncode == 2
    assert not (here / "run.ndjson").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("models.py/run.ndjson", "cannot be written"),
        pytest.param(
            "/dev/full",
            "No space left on device",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device on this system"),
        ),
    ],
)
def test_a_file_that_cannot_be_written(here: Path, cli: Run, path: str, said: str) -> None:
    done = cli("audit", "models.py::Right", "--json", path, *FEW)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_pipe_can_be_read_along(here: Path, cli: Run) -> None:
    done = cli("audit", "models.py::Right", "--json", "/dev/stdout", *FEW)
    assert done.returncode == 0
    assert done.stdout.count('"format":"attnspec-result/1"') == 3


def test_the_report_and_the_results_are_two_files(here: Path, cli: Run) -> None:
    done = cli("audit", "models.py::Right", "--json", "out/results.ndjson", "--report", "out", *FEW)
    assert done.returncode == 2
    assert "--report out writes a file of that name" in done.stderr
