"""Targets that misbehave when they run: each costs its own verdicts and no more."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import attnspec
from attnspec.properties.variants import load
from attnspec.properties.verdict import Verdict

BAD = """
import os, signal, sys, time
import numpy as np
from plain import plain, causal as right


def narrow(q, k, v): return plain(q, k, v)[..., :1]
def a_list(q, k, v): return [1, 2]
def nothing(q, k, v): return None
def wide(q, k, v): return plain(q, k, v).astype("float64")
def nan(q, k, v): return plain(q, k, v) * np.nan
def raises(q, k, v): raise RuntimeError("no luck")
def leaves(q, k, v): sys.exit(0)
def crashes(q, k, v): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(q, k, v): time.sleep(600)
def no_memory(q, k, v): raise MemoryError("all gone")


def raises_on_large(q, k, v):
    if np.abs(q).max() > 8: raise RuntimeError("too large")
    return plain(q, k, v)


def no_four(q, k, v):
    if q.shape[-2] == 4: raise ValueError("not four")
    return plain(q, k, v)


def sometimes(accident):
    def attention(q, k, v, *, causal=False):
        if causal and q.shape[-2] > 20: accident()
        return right(q, k, v, causal=causal)
    return attention


def lack(): raise MemoryError("all gone")
sometimes_crashes = sometimes(lambda: os.kill(os.getpid(), signal.SIGSEGV))
sometimes_killed = sometimes(lambda: os.kill(os.getpid(), signal.SIGKILL))
sometimes_hangs = sometimes(lambda: time.sleep(600))
sometimes_ends = sometimes(lambda: os._exit(4))
sometimes_leaves = sometimes(lambda: sys.exit(4))
sometimes_no_memory = sometimes(lack)


def no_rectangles(q, k, v, *, causal=False):
    if causal and q.shape[-2] != k.shape[-2]: raise NotImplementedError("causal needs T == S")
    return right(q, k, v, causal=causal)


def talks(q, k, v):
    print("HELLO FROM PYTHON")
    os.write(1, b"HELLO FROM C")
    return plain(q, k, v)


def slow(q, k, v):
    with open("calls", "a") as file: file.write(".")
    time.sleep(0.01)
    return plain(q, k, v)
"""


@pytest.fixture(autouse=True)
def bad(folder: Path) -> None:
    (folder / "bad.py").write_text(BAD)


def words(text: str) -> dict[str, str]:
    """OK, FAIL, WARN or ???? by claim."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  ") and "." in line[:34]]
    return {line[0]: line[1] for line in lines if line[1] in ("OK", "FAIL", "WARN", "NOTE", "????", "N/A")}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("narrow", "the output has shape [1, 1, 2, 1], expected [1, 1, 2, 2] in layout bhtd"),
        ("a_list", "the function returned int, not an array of numpy"),
        ("nothing", "the function returned NoneType, not an array of numpy"),
        ("raises", "RuntimeError: no luck"),
        ("leaves", "SystemExit: 0"),
        ("crashes", "loading and probing the target crashed: the worker died of signal 11 (SIGSEGV)"),
        ("no_memory", "MemoryError: all gone"),
    ],
)
def test_a_target_that_cannot_run_is_inconclusive(cli, name: str, said: str) -> None:
    done = cli("audit", f"bad.py::{name}")
    assert said in done.stdout
    assert done.stdout.splitlines()[-1] == "exit 3"
    assert done.returncode == 3


def test_a_target_that_hangs_at_once(cli) -> None:
    done = cli("audit", "bad.py::hangs", "--timeout", "1")
    assert "loading and probing the target hung: no answer within 1 s (--timeout)" in done.stdout
    assert done.returncode == 3


def test_a_file_that_crashes_on_import(cli, folder: Path) -> None:
    (folder / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    done = cli("audit", "crash.py::f")
    assert "crashed: the worker died of signal 11 (SIGSEGV)" in done.stdout
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sometimes_crashes", "crashed: the worker died of signal 11 (SIGSEGV)"),
        ("sometimes_killed", "crashed: the worker died of signal 9 (SIGKILL)"),
        ("sometimes_ends", "crashed: the worker died with exit code 4"),
        ("sometimes_hangs", "hung: no answer within 2 s (--timeout); the worker was stopped"),
        ("sometimes_no_memory", "MemoryError in the subject"),
    ],
)
def test_an_accident_costs_one_verdict(cli, name: str, reason: str) -> None:
    """Of these only `mask.causal` calls it with more than 20 causal queries; what comes after runs in a new worker."""
    chosen = ("scale.sqrt-dk", "scale.unit-variance", "mask.causal", "mask.parallel-is-stepwise")
    done = cli("audit", f"bad.py::{name}", *(word for c in chosen for word in ("--select", c)), "--timeout", "2")
    assert words(done.stdout) == {
        "scale.sqrt-dk": "OK",
        "scale.unit-variance": "OK",
        "mask.causal": "????",
        "mask.parallel-is-stepwise": "OK",
    }
    assert reason in done.stdout
    assert done.returncode == 3


def test_leaving_at_some_sizes_is_a_refusal_that_is_not_uniform(cli) -> None:
    done = cli("audit", "bad.py::sometimes_leaves", "--select", "mask", "--select", "robust")
    assert words(done.stdout)["robust.uniform-refusal"] == "WARN"
    assert words(done.stdout)["mask.causal"] == "OK"
    assert "got       SystemExit: 4" in done.stdout
    assert done.returncode == 0


def test_a_causal_flag_that_refuses_rectangles_is_audited_on_squares(cli) -> None:
    done = cli("audit", "bad.py::no_rectangles")
    assert "error of attnspec" not in done.stdout
    assert set(words(done.stdout).values()) == {"OK"}
    assert done.returncode == 0


def test_a_refusal_at_one_size_costs_a_warning(cli) -> None:
    done = cli("audit", "bad.py::no_four", "--select", "reference", "--select", "robust")
    assert words(done.stdout)["robust.uniform-refusal"] == "WARN"
    assert "ValueError: not four" in done.stdout
    assert done.returncode == 0


def test_an_exception_that_depends_on_values(cli) -> None:
    done = cli("audit", "bad.py::raises_on_large", "--select", "reference", "--select", "robust")
    assert words(done.stdout)["robust.no-exception"] == "FAIL"
    assert "RuntimeError: too large" in done.stdout
    assert done.returncode == 1
    prefix = done.stdout.partition("attnspec replay ")[2][:4]
    replayed = cli("replay", prefix)
    assert words(replayed.stdout)["robust.no-exception"] == "FAIL"
    assert replayed.returncode == 1


def test_a_warning_is_not_an_exception() -> None:
    """Not even where warnings are errors, as in this test suite: NumPy warns of an exponential that overflows."""

    def warns(q, k, v):
        if np.abs(q).max(initial=0) > 2:
            warnings.warn("large", RuntimeWarning, stacklevel=1)
        return load("numpy_direct")(q, k, v)

    report = attnspec.audit(warns, select=("reference", "robust"), dtypes="float32")
    assert {r.verdict for r in report.records if r.claim in ("robust.no-exception", "reference.forward")} == {Verdict.HOLDS}


def test_nan_is_a_violation(cli) -> None:
    done = cli("audit", "bad.py::nan", "--select", "softmax.in-hull")
    assert words(done.stdout) == {"softmax.in-hull": "FAIL"}
    assert "got       nan" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(("level", "code"), [("must", 0), ("should", 1), ("may", 1)])
def test_a_wrong_dtype_is_a_warning(cli, level: str, code: int) -> None:
    done = cli("audit", "bad.py::wide", "--select", "scale", "--select", "convention", "--fail-on", level)
    assert words(done.stdout)["convention.output-dtype"] == "WARN"
    assert "got       the output is float64" in done.stdout
    assert done.returncode == code


def test_an_observed_claim_alone_is_not_green(cli) -> None:
    """Nothing was called in float32: that the dtype was right is not known."""
    done = cli("audit", "bad.py::wide", "--select", "convention.output-dtype")
    assert words(done.stdout) in ({}, {"convention.output-dtype": "WARN"})


@pytest.mark.parametrize("select", [["mask.window"], ["mask.empty-row", "grad"]])
def test_nothing_exercised_is_not_green(cli, select: list[str]) -> None:
    done = cli("audit", "plain.py::plain", *(word for s in select for word in ("--select", s)))
    assert "0 claims apply" in done.stdout
    assert done.returncode == 5


def test_what_a_target_prints_does_not_mix_with_the_report(cli, folder: Path) -> None:
    one = ("--select", "scale.sqrt-dk", "--json", "r.json")
    talking, silent = cli("audit", "bad.py::talks", *one), cli("audit", "plain.py::plain", *one)
    assert "HELLO" not in talking.stdout
    assert talking.stdout.splitlines()[1] == silent.stdout.splitlines()[1]
    for line in (folder / "r.json").read_text().splitlines():
        json.loads(line)


def test_one_target_of_several_cannot_be_loaded(cli, folder: Path) -> None:
    several = ("audit", "plain.py::plain", "nowhere.py::f", "plain.py::causal", "--select", "scale.sqrt-dk")
    done = cli(*several, "--json", "r.json")
    assert done.stdout.count("scale.sqrt-dk                  OK") == 2
    assert "target file 'nowhere.py' does not exist" in done.stderr
    assert done.returncode == 3
    formats = [json.loads(line)["format"] for line in (folder / "r.json").read_text().splitlines()]
    assert formats.count("attnspec-result/1") == 4
    assert cli(*several, "--keep-going-ok").returncode == 0


def test_a_violation_outranks_a_target_that_cannot_be_loaded(cli) -> None:
    assert cli("audit", "nowhere.py::f", "plain.py::off_by_one", "--select", "mask.causal").returncode == 1


def test_no_target_at_all_is_not_green(cli) -> None:
    assert cli("audit", "nowhere.py::f", "nowhere.py::g").returncode == 3
    assert cli("audit", "nowhere.py::f", "nowhere.py::g", "--keep-going-ok").returncode == 5


def interrupted(folder: Path, calls: int) -> tuple[int, str, str]:
    """Starts a slow audit and sends Ctrl-C to its process group, as a terminal does, once the target was called so often."""
    command = [sys.executable, "-m", "attnspec", "audit", "bad.py::slow", "--select", "softmax", "--json", "r.json"]
    pipe, counter = subprocess.PIPE, folder / "calls"
    # A background job of a shell ignores SIGINT, and so would its children: the audit starts with the usual handler.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    audit = subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True, preexec_fn=heard
    )  # fmt: skip
    while audit.poll() is None and not (counter.is_file() and counter.stat().st_size >= calls):
        time.sleep(0.01)
    os.killpg(audit.pid, signal.SIGINT)
    out, err = audit.communicate(timeout=30)
    return audit.returncode, out, err


def test_interrupted_after_some_verdicts(folder: Path) -> None:
    code, out, err = interrupted(folder, 700)
    assert "Traceback" not in err
    assert "interrupted: what is printed is valid" in out
    assert code == 130
    lines = [json.loads(line) for line in (folder / "r.json").read_text().splitlines()]
    assert lines[0]["format"] == "attnspec-run/1"
    assert {line["verdict"] for line in lines[1:]} - {"NOT APPLICABLE"} == {"HOLDS"}  # records, and no summary
    assert set(words(out).values()) == {"OK"}


def test_interrupted_while_the_target_is_probed(folder: Path) -> None:
    code, out, err = interrupted(folder, 1)
    assert "Traceback" not in err
    assert "0 hold" in out or out == ""
    assert code == 130
