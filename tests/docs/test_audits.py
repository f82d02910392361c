"""The published audits are true: each case violates its claim, each script prints what its page says, no finding is missing.

Libraries are asked where the versions of the finding are installed. JAX and Keras take seconds to begin, so one finding of
each stands for all; `python docs/generate.py audits` runs every one.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attnspec import known_subjects
from attnspec.properties.case import Case
from attnspec.properties.claim import claims
from attnspec.properties.verdict import Verdict

AUDITS = Path(__file__).resolve().parents[2] / "docs" / "audits"
WIDE = ("torch-baddbmm-leaves-its-output",)  # what oneDNN takes bfloat16 for depends on the processor
SLOW = {
    "jax": "jax-log-sum-exp-of-an-empty-row",
    "keras": "keras-float16-mask",
    "transformers": "transformers-mamba-chunks",
}  # the one that is asked


def _pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_audit_pages", AUDITS.parent / "audit_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = _pages()
FINDINGS: list[dict[str, Any]] = PAGES.findings()
IDS = [f["name"] for f in FINDINGS]
WITH_CASE = [f for f in FINDINGS if f["case"]]


def _needed(finding: dict[str, Any]) -> None:
    if not PAGES.installed(finding):
        pytest.skip(f"not installed: {finding['versions']}")
    stands = SLOW.get(finding["library"], finding["name"])
    if stands != finding["name"]:
        pytest.skip(f"takes seconds; {stands} stands for it")
    if finding["name"] in WIDE:
        import torch

        if "AVX512" not in torch.backends.cpu.get_cpu_capability():
            pytest.skip("a processor on which oneDNN does not multiply in bfloat16")


@pytest.mark.parametrize("finding", FINDINGS, ids=IDS)
def test_each_finding_is_triaged_with_its_cause(finding: dict[str, Any]) -> None:
    assert finding["triage"] in PAGES.TRIAGE
    assert len(finding["cause"]) > 40
    assert finding["library"] in PAGES.LIBRARIES
    assert all(claim in claims() for claim in [*finding["claims"], *([finding["claim"]] if finding["claim"] else [])])
    assert (AUDITS / "checks" / f"{finding['name']}.py").is_file()


def test_no_file_is_left_over() -> None:
    assert {p.stem for p in (AUDITS / "cases").iterdir()} == {f["case"] for f in WITH_CASE}
    assert {p.stem for p in (AUDITS / "checks").glob("*.py")} == set(IDS)
    assert set(PAGES.printed()) == set(IDS)
    assert len(set(IDS)) == len(IDS)


@pytest.mark.parametrize("finding", WITH_CASE, ids=[f["name"] for f in WITH_CASE])
def test_the_case_is_signed(finding: dict[str, Any]) -> None:
    case = Case.from_json((AUDITS / "cases" / f"{finding['case']}.json").read_bytes())
    assert case.sha256
    assert case == case.signed()
    assert (case.id, case.claim) == (finding["case"], finding["claim"])


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # onnx takes the root of a negative scale
@pytest.mark.parametrize("finding", WITH_CASE, ids=[f["name"] for f in WITH_CASE])
def test_the_case_violates_its_claim(finding: dict[str, Any]) -> None:
    _needed(finding)
    apart = finding["library"] not in ("torch", "impl")  # those libraries keep out of the process of the tests
    report = PAGES.replayed(finding, in_process=not apart)
    assert [(r.claim, r.verdict) for r in report.records] == [(finding["claim"], Verdict.VIOLATED)]


@pytest.mark.parametrize("finding", FINDINGS, ids=IDS)
def test_the_script_prints_what_the_page_says(finding: dict[str, Any]) -> None:
    _needed(finding)
    assert PAGES.checked(finding) == PAGES.printed()[finding["name"]]["script"]


def test_pages_are_current() -> None:
    for path, text in PAGES.audit_pages().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_pages_need_none_of_the_libraries() -> None:
    code = "import sys, audit_pages as a; a.audit_pages(); print({'torch', 'jax', 'onnx', 'keras', 'mlx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=AUDITS.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_violation_of_a_known_subject_has_a_finding() -> None:
    known = known_subjects.snapshot()
    found = {(subject, claim) for f in FINDINGS for subject in PAGES.subjects_of(f) for claim in (f["claim"], *f["claims"])}
    violated = {
        (name, claim)
        for name in (known_subjects.key(target, options) for target, options in known_subjects.REAL)
        for claim, words in known[name].items()
        if "VIOLATED" in words
    }
    assert violated
    assert violated - found == set()


def test_a_finding_of_a_known_subject_is_in_the_snapshot() -> None:
    """What is published is still reported, unless a library has changed."""
    known = known_subjects.snapshot()
    for finding in FINDINGS:
        for subject in PAGES.subjects_of(finding):
            if subject in known and finding["claim"]:
                assert "VIOLATED" in known[subject][finding["claim"]], (subject, finding["claim"])
