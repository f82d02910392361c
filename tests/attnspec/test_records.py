"""Result records: one NDJSON line a unit, verdicts that merge, exit codes with a priority."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnspec.auditor import Report
from attnspec.cli import _worse
from attnspec.properties.case import Case, Sizes
from attnspec.properties.verdict import Evidence, Record, Verdict, exit_code, failing_levels, number
from attnspec.report.terminal import small

V, U, H, N = Verdict.VIOLATED, Verdict.UNKNOWN, Verdict.HOLDS, Verdict.NOT_APPLICABLE
FIELDS = """
    format spec target options claim level dtype device profile seed verdict reason decided_by cases tried exposed outside
    ratio ratio_limit equivalent_precision fits case evidence implied_by causes depends leak exception seconds versions
"""  # docs/verdicts.md, in its order


def record(verdict: Verdict, **fields: Any) -> Record:
    plain = {"spec": "2026.12", "target": "t", "options": {}, "claim": "mask.causal", "level": "must", "dtype": "float32"}
    return Record(**(plain | {"profile": "quick", "seed": 1, "verdict": verdict} | fields))


def test_a_line_has_all_fields_in_their_order() -> None:
    plain = json.loads(record(H).line())
    assert list(plain) == FIELDS.split()
    assert plain["format"] == "attnspec-result/1"
    assert plain["verdict"] == "HOLDS"


def test_a_line_holds_case_and_evidence() -> None:
    case = Case("mask.causal", "float32", Sizes()).signed()
    evidence = Evidence("output", at=(0, 0, 0, 0), got=number(float("nan")), expected=number(float("-inf")), allowed=0.5)
    line = record(V, case=case, evidence=evidence, ratio=number(float("inf")), causes=[("mask.off_by_one", 6, 6)]).line()
    assert b"\n" not in line
    plain = json.loads(line)
    assert plain["case"]["id"] == case.id
    assert plain["evidence"]["at"] == [0, 0, 0, 0]
    assert (plain["evidence"]["got"], plain["evidence"]["expected"], plain["ratio"]) == ("nan", "-inf", "inf")
    assert plain["causes"] == [["mask.off_by_one", 6, 6]]


@pytest.mark.parametrize(
    ("x", "written"), [(1.5, 1.5), (0.0, 0.0), (float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")]
)
def test_numbers_that_json_lacks_are_strings(x: float, written: float | str) -> None:
    assert number(x) == written
    assert json.loads(json.dumps(number(x))) == written


def test_a_run_is_a_header_its_records_and_a_summary(cli, folder: Path) -> None:
    cli("audit", "plain.py::off_by_one", "--select", "mask", "--select", "scale", "--seed", "7", "--json", "r.json")
    header, *lines, summary = (json.loads(line) for line in (folder / "r.json").read_text().splitlines())
    assert header["format"] == summary["format"] == "attnspec-run/1"
    assert (header["target"], header["seed"], header["profile"]) == ("plain.py::off_by_one", 7, "quick")
    assert header["subject"]["settings"]["layout"] == {"value": "bhtd", "origin": "inferred"}
    assert all(list(line) == FIELDS.split() for line in lines)
    assert {line["seed"] for line in lines} == {7}
    assert {line["device"] for line in lines} == {"cpu"}
    verdicts = [line["verdict"] for line in lines]
    assert summary["summary"] == {v.value: verdicts.count(v.value) for v in Verdict}
    assert summary["exit_code"] == 1
    assert {(line["claim"], line["dtype"]) for line in lines} == {(line["claim"], line["dtype"]) for line in lines}
    held = next(line for line in lines if line["claim"] == "scale.sqrt-dk")
    assert held["exposed"] > 0 < held["ratio"] < held["ratio_limit"]
    assert set(held["seconds"]) >= {"subject", "engine"}
    assert set(held["versions"]) == {"attnspec", "numpy"}
    violated = next(line for line in lines if line["claim"] == "mask.causal")
    assert violated["decided_by"] == "exact"
    assert set(violated["evidence"]) >= {"what", "at", "got", "expected"}
    absent = next(line for line in lines if line["claim"] == "mask.window")
    assert absent["reason"].startswith("not offered")


def test_a_target_that_cannot_run_has_a_summary_with_the_reason(cli, folder: Path) -> None:
    (folder / "none.py").write_text("def f(q, k, v): return None\n")
    cli("audit", "none.py::f", "--json", "r.json")
    header, summary = (json.loads(line) for line in (folder / "r.json").read_text().splitlines())
    assert header["subject"] is None
    assert summary["exit_code"] == 3
    assert "cannot run" in summary["reason"]


def test_an_interrupted_run_has_no_summary() -> None:
    report = Report("t", {}, "quick", 1, records=[record(H)], interrupted=True)
    assert len(report.to_json().splitlines()) == 2
    assert len(Report("t", {}, "quick", 1, records=[record(H)]).to_json().splitlines()) == 3


def test_verdicts_merge_worst_first() -> None:
    order = [V, U, H, N]
    for several in permutations(order, 2):
        assert Verdict.merge(several) is min(several, key=order.index)
    assert Verdict.merge(order) is V
    assert Verdict.merge([]) is N


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([], 5),
        ([record(N)], 5),
        ([record(H), record(N)], 0),
        ([record(H), record(U, reason="crashed")], 3),
        ([record(N), record(U, reason="hung")], 3),
        ([record(H), record(U, reason="vacuous: no case")], 0),
        ([record(U, reason="vacuous: no case")], 5),
        ([record(V), record(U, reason="crashed"), record(H)], 1),
        ([record(V, level="should"), record(H)], 0),
        ([record(V, level="may")], 0),
        ([record(V, level="should"), record(U, reason="crashed")], 3),
    ],
)
def test_exit_code_of_one_target(records: list[Record], code: int) -> None:
    assert exit_code(records) == code
    assert exit_code(records, interrupted=True) == 130


@pytest.mark.parametrize(
    ("level", "fail_on", "code"),
    [("should", "must", 0), ("should", "should", 1), ("may", "should", 0), ("may", "may", 1), ("must", "may", 1)],
)
def test_fail_on(level: str, fail_on: Any, code: int) -> None:
    assert exit_code([record(V, level=level)], fail_on=fail_on) == code


def test_failing_levels() -> None:
    assert failing_levels("must") == ("must",)
    assert failing_levels("may") == ("must", "should", "may")


def test_exit_codes_of_several_targets() -> None:
    priority = [2, 130, 1, 3, 5, 0]
    for several in permutations(priority, 2):
        assert _worse(*several) == min(several, key=priority.index)


def test_arrays_of_any_rank_are_printed() -> None:
    """A mask of rank 1 once ended a whole audit with an error of ours."""
    assert small(np.array([True, False])) == "[1, 0]"
    assert small(np.array(0.5)) == "0.5"
    assert small(np.ones((1, 1, 2, 2))) == "[[1, 1], [1, 1]]"
