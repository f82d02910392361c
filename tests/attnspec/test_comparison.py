"""`attnspec compare`: two implementations on the same cases, each with the bound and with each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import attnspec
from attnspec import comparison
from attnspec.comparison import Comparison, compare, groups, joint, keep_cases
from attnspec.errors import UsageError
from attnspec.properties.case import Call, Case, Mask, Sizes
from attnspec.properties.subject import Profile, Setting
from attnspec.report.comparison import shown

ROWS = {"all", "plain"}


def scores(q, k, v):
    return q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)


def mean(s, v):
    weights = np.exp(s - s.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def plain(q, k, v):
    return mean(scores(q, k, v), v)


def divided_late(q, k, v):
    """The same with the division at the end."""
    s = scores(q, k, v)
    weights = np.exp(s - s.max(-1, keepdims=True))
    return (weights @ v) / weights.sum(-1, keepdims=True)


def top_left(q, k, v, *, causal=False):
    s = scores(q, k, v)
    return mean(np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf) if causal else s, v)


def off_by_one(q, k, v, *, causal=False):
    s = scores(q, k, v)
    return mean(np.where(np.tri(*s.shape[-2:], k=1, dtype=bool), s, -np.inf) if causal else s, v)


def bottom_right(q, k, v, *, causal=False):
    s = scores(q, k, v)
    late = np.tri(*s.shape[-2:], k=s.shape[-1] - s.shape[-2], dtype=bool)
    if causal and s.shape[-1] < s.shape[-2]:
        raise ValueError("more queries than keys")
    return mean(np.where(late, s, -np.inf) if causal else s, v)


def large_scores_raise(q, k, v):
    s = scores(q, k, v)
    if np.abs(s).max() > 4:
        raise OverflowError("scores too large")
    return mean(s, v)


def compared(a: Callable, b: Callable, dtypes: str = "float32", **options) -> Comparison:
    return compare(a, b, dtypes=dtypes, **options)


def ratios(found: Comparison, group: str = "all") -> dict[str, float]:
    return next(r for r in found.rows if r.group == group and r.dtype == "float32").worst  # type: ignore[return-value]


def test_two_right_functions_agree() -> None:
    found = compared(plain, divided_late, "float64,float32")
    assert found.ok
    assert found.exit_code == 0
    assert found.failures == []
    assert {r.group for r in found.rows} >= ROWS
    assert found.dtypes == ("float64", "float32")
    worst = ratios(found)
    assert all(0 < worst[side] <= 1 for side in ("A", "B", "A against B"))
    row = next(r for r in found.rows if r.group == "all")
    assert 0 < (row.equal_bits or 0) < 1  # they round differently, now and then
    assert row.place is not None
    assert row.place.a != row.place.b


def test_a_function_agrees_with_itself_bit_by_bit() -> None:
    found = compared(plain, plain)
    assert {r.equal_bits for r in found.rows} == {1.0}
    assert {r.worst["A against B"] for r in found.rows} == {0.0}
    assert {r.place for r in found.rows} == {None}


def test_an_off_by_one_is_found_with_two_tokens_and_blamed(tmp_path: Path) -> None:
    found = compared(top_left, off_by_one, "float64,float32")
    assert found.exit_code == 1
    assert [f.side for f in found.failures] == ["A against B", "B"]
    for failure in found.failures:
        z = failure.seen.case.sizes
        assert (z.B, z.H, z.T, z.S, z.D, z.E) == (1, 1, z.T, 2, 1, 1)
        assert z.T <= 2
        assert failure.seen.ratio["A"] <= 1 < failure.seen.ratio["B"]
        assert failure.dtypes == ("float64", "float32")
    assert [f.side for f in shown(found)] == ["A against B"]  # the other is told in its block
    text = str(found)
    assert "FAIL  not on" in text
    assert "A is within its bound" in text
    assert "attnspec replay" in text
    keep_cases(found, tmp_path)
    (kept,) = (tmp_path / ".attnspec" / "cases").glob(f"{found.failures[0].seen.case.id}.target")
    assert kept.read_text().splitlines()[0] == found.b.name


def test_both_wrong_in_the_same_way_is_seen_by_the_bound() -> None:
    found = compared(off_by_one, off_by_one)
    assert found.exit_code == 1
    assert {f.side for f in found.failures} == {"A", "B"}
    assert {r.worst["A against B"] for r in found.rows} == {0.0}


def test_conventions_that_differ_are_held_against_each_own_reading() -> None:
    found = compared(top_left, bottom_right)
    assert found.exit_code == 0
    assert found.conventions == {"alignment": ("top-left", "bottom-right")}
    apart = sum(r.apart for r in found.rows if r.group == "all")
    assert apart > 0
    assert f"differ by convention: alignment top-left, bottom-right ({apart} cases" in str(found)
    causal = next(r for r in found.rows if r.group == "causal")
    assert 0 < causal.apart < causal.cases  # square ones are the same for both
    wrong = compared(off_by_one, bottom_right)
    assert [f.side for f in wrong.failures][-1] == "A"


def test_an_exception_that_depends_on_values_is_a_failure_of_that_side() -> None:
    found = compared(plain, large_scores_raise)
    assert found.exit_code == 1
    assert [f.side for f in found.failures] == ["B"]
    assert "OverflowError: scores too large" in str(found)


def test_python_takes_options_of_one_side() -> None:
    found = attnspec.compare(plain, divided_late, a_options={"dtypes": "float32"}, b_options={"dtypes": "float32,float64"})
    assert found.dtypes == ("float32",)
    assert found.a.options == {"dtypes": "float32"}


def test_what_one_lacks_is_not_compared() -> None:
    text = str(compared(plain, top_left))
    assert "not compared, since A does not offer it: causal" in text


def test_the_joint_profile_is_what_both_offer() -> None:
    a = Profile(
        {"dtypes": Setting(("float64", "float32"), "inferred"), "empty_row": Setting("zero", "inferred")},
        {"mask": None, "bias": None, "causal": "not offered"},
    )
    b = Profile(
        {"dtypes": Setting(("float32",), "inferred"), "empty_row": Setting("nan", "inferred")},
        {"mask": None, "bias": "refuses: ValueError", "causal": None},
    )
    both = joint(a, b)
    assert both["dtypes"] == ("float32",)
    assert [f for f in both.features if both.offers(f)] == ["mask"]
    assert both.get("empty_row") == "raises"  # so that no case has an empty row by the way


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("reference.forward", "float32", Sizes()), ["all", "plain"]),
        (Case("reference.forward", "float32", Sizes(H=4, G=2), Call(causal=True)), ["all", "causal", "grouped"]),
        (Case("reference.forward", "float32", Sizes(), mask=Mask("bias")), ["all", "bias"]),
        (Case("grad.reference", "float32", Sizes()), ["gradients"]),
    ],
)
def test_groups_of_a_case(case: Case, expected: list[str]) -> None:
    assert groups(case) == expected


def test_a_mutant_is_told_from_torch_by_a_two_token_case() -> None:
    pytest.importorskip("torch")
    found = compare("mutant:mask.sees_next", "torch:scaled_dot_product_attention", dtypes="float32", in_process=True)
    assert found.exit_code == 1
    first = found.failures[0].seen
    assert max(first.case.sizes.T, first.case.sizes.S) == 2
    assert first.ratio["B"] <= 1 < first.ratio["A"]
    assert {f.seen.case.claim for f in found.failures} == {"reference.forward", "grad.reference"}
    assert [r.group for r in found.rows if r.group == "gradients"]


def test_a_kernel_agrees_with_the_plain_path() -> None:
    pytest.importorskip("torch")
    target = "torch:scaled_dot_product_attention"
    found = compare(
        target, target, a_options={"backend": "flash"}, b_options={"backend": "math"}, dtypes="float32", in_process=True
    )
    assert found.exit_code == 0
    assert found.a.shown.endswith("-o backend=flash")


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_jax_agrees_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    every = comparison._cases  # JAX compiles for each new shape: a few are enough here
    monkeypatch.setattr(comparison, "_cases", lambda *args: islice(every(*args), 4))
    found = compare("jax:dot_product_attention", "torch:scaled_dot_product_attention", dtypes="float32")
    assert found.exit_code == 0, str(found)
    assert "layout bthd, bhtd" in str(found)


# The command

PORT = """
import numpy as np
from plain import plain, causal
def scaled_twice(q, k, v, *, causal=False):
    import plain as right
    return right.causal(q / 2, k, v, causal=causal)
def dies(q, k, v):
    import os
    if q.shape[2] == 7: os._exit(3)
    return plain(q, k, v)
"""


def test_the_command_prints_writes_and_exits(cli, folder: Path) -> None:
    (folder / "port.py").write_text(PORT)
    done = cli("compare", "plain.py::causal", "port.py::scaled_twice", "-o", "dtypes=float64", "--json", "c.json")
    assert done.returncode == 1, done.stdout + done.stderr
    header, *lines, summary = (json.loads(line) for line in (folder / "c.json").read_text().splitlines())
    assert {line["format"] for line in (header, *lines, summary)} == {"attnspec-compare/1"}
    assert (header["A"]["target"], header["B"]["target"]) == ("plain.py::causal", "port.py::scaled_twice")
    assert header["A"]["subject"]["settings"]["layout"]["value"] == "bhtd"
    assert header["dtypes"] == ["float64"]
    assert {line["group"] for line in lines if "group" in line} >= {"all", "plain", "causal"}
    failures = [line for line in lines if "failure" in line]
    assert [line["failure"] for line in failures] == ["A against B", "B"]
    assert summary["exit_code"] == 1
    prefix = failures[0]["case"]["id"][:4]
    assert f"attnspec replay {prefix} --target port.py::scaled_twice" in done.stdout
    assert cli("replay", prefix).returncode == 1  # the guilty target is kept beside the case
    assert cli("replay", prefix, "--target", "plain.py::causal").returncode == 0


def test_a_crash_costs_a_case(cli, folder: Path) -> None:
    (folder / "port.py").write_text(PORT)
    done = cli("compare", "plain.py::plain", "port.py::dies", "-o", "dtypes=float64", "-v")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "crashed: the worker died with exit code 3" in done.stdout
    assert "A is within its bound" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", "plain.py::plain"), "Missing argument 'B'"),
        (("compare", "plain.py::plain", "plain.py::nothing"), "has no 'nothing'"),
        (("compare", "plain.py::plain", "plain.py::plain", "-a", "layout=bhdt"), "layout=bhdt: one of"),
        (("compare", "plain.py::plain", "plain.py::plain", "-a", "layout"), "-a layout: an option is key=value"),
        (("compare", "plain.py::plain", "plain.py::plain", "-o", "layout=bhtd", "-b", "layout=bthd"), "-b layout: -o gives"),
        (
            ("compare", "plain.py::plain", "plain.py::plain", "-b", "layout=bhtd", "-b", "layout=btd"),
            "-b layout: given twice",
        ),
        (("audit", "plain.py::plain", "-j", "0"), "0 is not in the range"),
    ],
)
def test_bad_input_is_refused(cli, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_what_cannot_run_is_inconclusive(cli, folder: Path) -> None:
    (folder / "none.py").write_text("def f(q, k, v): return None\n")
    done = cli("compare", "plain.py::plain", "none.py::f")
    assert done.returncode == 3
    assert "cannot run" in done.stdout


def test_no_dtype_in_common_is_nothing_exercised() -> None:
    found = compare(plain, plain, a_options={"dtypes": "float32"}, b_options={"dtypes": "float64"})
    assert found.exit_code == 5


def test_a_target_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        compare("plain", "plain")
