"""`attnspec.suite` under pytest, and `check` and `audit` in Python."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import attnspec
from attnspec.errors import UsageError
from attnspec.properties.claim import UnknownClaim

FEW = '["mask.causal", "mask.window", "scale.sqrt-dk", "convention.output-dtype"]'


@pytest.fixture
def bench(pytester: pytest.Pytester, folder: Path) -> pytest.Pytester:
    """pytester beside `plain.py`; the module under test is `test_mine.py`."""
    pytester.makepyfile(plain=(folder / "plain.py").read_text())
    return pytester


def run(bench: pytest.Pytester, suite: str, *arguments: str, select: str = FEW) -> pytest.RunResult:
    """Runs `TestMine = attnspec.suite(<suite>, select=...)` in a fresh process where warnings are errors."""
    if suite:
        bench.makepyfile(
            test_mine=f"import attnspec\nfrom plain import *\nTestMine = attnspec.suite({suite}, select={select})\n"
        )
    return bench.runpytest_subprocess("-W", "error", "-v", "-rA", *arguments, timeout=60)


def test_one_item_per_claim_and_dtype(bench: pytest.Pytester) -> None:
    result = run(bench, "causal", "--junitxml=r.xml")
    result.assert_outcomes(passed=6, skipped=3)
    result.stdout.fnmatch_lines(
        [
            "test_mine.py::TestMine::test?scale.sqrt-dk-float64? PASSED*",
            "test_mine.py::TestMine::test?scale.sqrt-dk-float32? PASSED*",
            "test_mine.py::TestMine::test?mask.causal-float64? PASSED*",
            "test_mine.py::TestMine::test?mask.window-float32? SKIPPED*",
            "test_mine.py::TestMine::test?convention.output-dtype-*? PASSED*",
        ]
    )
    result.stdout.fnmatch_lines(["*not offered: no such parameter*"])
    cases = {c.get("name") for c in ET.parse(bench.path / "r.xml").iter("testcase")}
    assert "test[mask.causal-float32]" in cases
    assert len(cases) == 9


def test_k_and_last_failed(bench: pytest.Pytester) -> None:
    run(bench, "off_by_one", "-k", "scale").assert_outcomes(passed=2, deselected=7)
    run(bench, "").assert_outcomes(passed=3, skipped=3, failed=3)
    run(bench, "", "--lf").assert_outcomes(failed=3)
    run(bench, "", "test_mine.py::TestMine::test[mask.causal-float32]").assert_outcomes(failed=1)


def test_two_workers(bench: pytest.Pytester) -> None:
    result = run(bench, "off_by_one", "-n", "2")
    result.assert_outcomes(passed=3, skipped=3, failed=3)


MODEL = """
import numpy as np


class Sums:
    vocab_size = 5

    def logits(self, ids):
        return self.extend(ids, self.start(len(ids)))[0]

    def start(self, batch):
        return np.zeros((batch, 1))

    def extend(self, ids, state):
        sums = state + np.sin(ids + 1.0).cumsum(1)
        return np.cos(sums[..., None] * np.arange(1, 6)), sums[:, -1:]

    def fork(self, state):
        return np.zeros_like(state)
"""


def test_one_item_per_claim_on_a_model(bench: pytest.Pytester) -> None:
    bench.makepyfile(model=MODEL)
    bench.makepyfile(test_mine='import attnspec\nfrom model import Sums\nTestMine = attnspec.suite(Sums, select=["cache"])\n')
    result = run(bench, "")
    result.stdout.fnmatch_lines(
        [
            "test_mine.py::TestMine::test?cache.chunks? PASSED*",
            "test_mine.py::TestMine::test?cache.crop? SKIPPED*",
            "test_mine.py::TestMine::test?cache.fork? FAILED*",
            "*1 row: append 1, fork 1*",
        ]
    )


def test_a_failure_reads_as_on_the_command_line(bench: pytest.Pytester) -> None:
    result = run(bench, "off_by_one", "-k", "mask.causal-float64")
    result.stdout.fnmatch_lines(
        [
            "*mask.causal  (plain.py::off_by_one, float64)*",
            "Claim      Changing keys and values after position t*",
            "*B=1 H=1 G=1 T=2 S=2 D=1 E=1  float64  causal=True*",
            "Reproduce  attnspec replay *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")
    assert list((bench.path / ".attnspec" / "cases").glob("*.json"))


def test_expected_failures_are_strict(bench: pytest.Pytester) -> None:
    known = 'expected={"mask.causal": "known, #412"}'
    result = run(bench, f"off_by_one, {known}")
    result.assert_outcomes(passed=3, skipped=3, xfailed=3)
    result.stdout.fnmatch_lines(["*known, #412*"])
    assert result.ret == 0
    fixed = run(bench, f"causal, {known}")
    fixed.assert_outcomes(passed=3, skipped=3, failed=3)
    fixed.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_a_family_may_be_expected_to_fail(bench: pytest.Pytester) -> None:
    result = run(bench, 'off_by_one, expected={"mask": "all of it"}', select='["mask.causal", "mask.parallel-is-stepwise"]')
    result.assert_outcomes(xfailed=5, skipped=1)
    assert result.ret == 0


WIDE = "lambda q, k, v: plain(q, k, v).astype('float64')"


def test_should_is_expected_to_fail_unless_asked(bench: pytest.Pytester) -> None:
    only = '["convention.output-dtype"]'
    result = run(bench, WIDE, select=only)
    result.assert_outcomes(xfailed=1)
    result.stdout.fnmatch_lines(["*should: *"])
    assert result.ret == 0
    run(bench, f"{WIDE}, fail_on='should'", select=only).assert_outcomes(failed=1)


def test_dtypes(bench: pytest.Pytester) -> None:
    result = run(bench, "causal, dtypes=['float32']", "-k", "scale or causal")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*float64*")


def test_options_of_the_command_line(bench: pytest.Pytester) -> None:
    result = run(bench, "causal", "--attnspec-seed", "7", "--attnspec-profile", "ci", "--attnspec-select", "scale")
    result.assert_outcomes(passed=2, skipped=7)
    result.stdout.fnmatch_lines(["attnspec: profile ci, seed 7", "*not selected by --attnspec-select*"])


def test_an_unknown_selection_is_an_error(bench: pytest.Pytester) -> None:
    result = run(bench, "causal", "--attnspec-select", "mask.casual")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*did you mean 'mask.causal'?*"])


def test_a_function_that_cannot_run_fails_every_item_in_words(bench: pytest.Pytester) -> None:
    result = run(bench, "lambda q, k, v: None", "-k", "scale")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["UNKNOWN scale.sqrt-dk: *cannot run plain float32 self-attention*"])
    result.stdout.no_fnmatch_line("*worker.py:*")


def test_the_marker_selects_the_items(bench: pytest.Pytester) -> None:
    bench.makepyfile(test_other="def test_other(): ...")
    run(bench, "causal", "-m", "attnspec", "--strict-markers", "test_mine.py", "test_other.py").assert_outcomes(
        passed=6, skipped=3, deselected=1
    )


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layuot": "bhtd"}, UsageError, "did you mean 'layout'"),
        ({"layout": "hbtd"}, UsageError, "layout=hbtd: one of"),
        ({"select": ["mask.casual"]}, UnknownClaim, "did you mean 'mask.causal'"),
        ({"expected": {"mask.casual": "known"}}, UnknownClaim, "did you mean 'mask.causal'"),
        ({"select": ["mask"], "ignore": ["mask"]}, UsageError, "no claim is left"),
    ],
)
def test_a_suite_of_nothing_or_of_unknown_things(options, error, said) -> None:
    with pytest.raises(error, match=said):
        attnspec.suite(right, **options)


def right(q, k, v):
    import numpy as np

    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def unscaled(q, k, v):
    return right(q * q.dtype.type(q.shape[-1] ** 0.5), k, v)


def nothing(q, k, v): ...


def test_check_passes_and_returns_the_report() -> None:
    report = attnspec.check(right, "scale.sqrt-dk")
    assert [r.claim for r in report.records] == ["scale.sqrt-dk", "scale.sqrt-dk"]
    assert report.ok


def test_check_raises_with_the_text_of_the_failure() -> None:
    with pytest.raises(attnspec.ClaimViolation, match="Claim      Without a scale argument") as caught:
        attnspec.check(unscaled, "scale.sqrt-dk")
    assert isinstance(caught.value, AssertionError)
    assert caught.value.record.claim == "scale.sqrt-dk"
    assert "Reproduce" in str(caught.value)


def test_check_of_what_does_not_apply_is_not_a_pass() -> None:
    with pytest.raises(RuntimeError, match=r"mask.window was not decided on .*: not offered: no such parameter"):
        attnspec.check(right, "mask.window")


def test_check_of_an_unknown_claim() -> None:
    with pytest.raises(UnknownClaim, match=r"did you mean 'scale\.sqrt-dk'"):
        attnspec.check(right, "scale.sqrt-d")


def test_the_report_of_an_audit() -> None:
    report = attnspec.audit(unscaled, select=["scale", "mask.window"], seed=5, dtypes=["float64"])
    assert (report.exit_code, report.ok, report.seed, report.cannot_run) == (1, False, 5, None)
    assert {r.claim for r in report.violations} >= {"scale.sqrt-dk"}
    assert {r.claim for r in report.not_applicable} >= {"mask.window"}
    assert {r.dtype for r in report.exercised} == {"float64"}
    assert all(record in report.exercised for record in report.violations)
    assert list(report.by_claim()) == [i for i in attnspec.claims if i.startswith("scale.") or i == "mask.window"]
    assert report.profile["arrays"] == "numpy"
    assert "scale.sqrt-dk" in str(report)


def test_an_audit_of_what_cannot_run() -> None:
    report = attnspec.audit(nothing)
    assert report.exit_code == 3
    assert "cannot run plain float32 self-attention" in str(report.cannot_run)
