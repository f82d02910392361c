"""Case files that cannot be replayed say why: exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnspec.properties.case import Call, Case, Plant, Sizes

CASE = Case("mask.causal", "float64", Sizes(T=2, S=2), Call(causal=True), plant=(Plant("v", "after", 0, "one"),)).signed()


@pytest.fixture
def kept(folder: Path) -> Path:
    """`.attnspec/cases` with one case."""
    cases = folder / ".attnspec" / "cases"
    cases.mkdir(parents=True)
    (cases / f"{CASE.id}.json").write_text(CASE.to_json())
    (cases / f"{CASE.id}.target").write_text("plain.py::off_by_one\n")
    return cases


def replayed(cli: Any, folder: Path, text: str, *, target: str = "plain.py::causal") -> Any:
    (folder / "case.json").write_text(text)
    return cli("replay", "case.json", "--target", target)


def test_a_sound_case_replays(cli, folder: Path) -> None:
    assert replayed(cli, folder, CASE.to_json()).returncode == 0
    assert replayed(cli, folder, CASE.to_json(), target="plain.py::off_by_one").returncode == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "format=None: this version reads 'attnspec-case/1'; this is not a case file"),
        ('{"format": "attnspec-run/1"}', "this is not a case file"),
    ],
)
def test_what_is_not_a_case(cli, folder: Path, text: str, said: str) -> None:
    done = replayed(cli, folder, text)
    assert said in done.stderr
    assert done.returncode == 2


def _sizes(**sizes: int) -> Callable[[dict[str, Any]], None]:
    return lambda case: case["sizes"].update(sizes) or case.update(sha256="")  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(extra=1), "unknown field `extra`"),
        (lambda c: c["sizes"].update(N=3), "unknown field `N`"),
        (lambda c: c.update(format="attnspec-case/2"), "format='attnspec-case/2': this version reads 'attnspec-case/1'; use"),
        (lambda c: c.update(builder=2), "builder=2: this version knows builder 1; use a newer attnspec"),
        (lambda c: c.update(sha256="0" * 64), "was the file edited?"),
        (lambda c: c.update(seed=5), "was the file edited?"),
        (lambda c: c.update(seed="five"), "Expected `int`, got `str` - at `$.seed`"),
        (lambda c: c.update(claim="mask.casual"), "claim 'mask.casual' matches nothing; did you mean 'mask.causal'?"),
        (lambda c: c.update(claim="mask"), "claim='mask'"),
        (lambda c: c.update(claim="robust.no-exception"), "claim='robust.no-exception'"),
        (_sizes(T=-1), "T=-1"),
        (_sizes(H=3, G=2), "G=2"),
    ],
)
def test_a_case_that_was_edited(cli, folder: Path, edit: Callable[[dict[str, Any]], None], said: str) -> None:
    plain = json.loads(CASE.to_json())
    edit(plain)
    done = replayed(cli, folder, json.dumps(plain))
    assert said in done.stderr
    assert done.stderr.startswith("attnspec: error: case.json: ")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (CASE.id[:3], "an id prefix has 4 characters or more"),
        ("ffff", f"neither a file nor an id in .attnspec/cases (there: {CASE.id})"),
        ("nowhere.json", "neither a file nor an id"),
    ],
)
def test_no_such_case(cli, kept: Path, name: str, said: str) -> None:
    done = cli("replay", name)
    assert said in done.stderr
    assert done.returncode == 2


def test_a_prefix_of_two_cases(cli, kept: Path) -> None:
    (kept / f"{CASE.id[:4]}0000.json").write_text(CASE.to_json())
    done = cli("replay", CASE.id[:4])
    assert "2 cases begin so" in done.stderr
    assert "give more characters" in done.stderr
    assert done.returncode == 2


def test_a_case_without_its_target(cli, kept: Path) -> None:
    (kept / f"{CASE.id}.target").unlink()
    done = cli("replay", CASE.id[:4])
    assert "no target is recorded beside it; give one with --target" in done.stderr
    assert done.returncode == 2


def test_a_case_on_a_target_that_does_not_exist(cli, kept: Path) -> None:
    assert cli("replay", CASE.id[:4], "--target", "nowhere.py::f").returncode == 2


def test_a_case_that_does_not_apply_says_nothing_of_the_target(cli, kept: Path) -> None:
    """`plain` has no causal flag: it is not at fault."""
    done = cli("replay", CASE.id[:4], "--target", "plain.py::plain")
    assert "1 not applicable" in done.stdout
    assert done.returncode == 5


def test_a_claim_that_this_version_does_not_know_names_the_spec(cli, folder: Path) -> None:
    plain = json.loads(CASE.to_json()) | {"claim": "mask.invented-later", "spec": "2031.01"}
    assert "the case is of spec 2031.01" in replayed(cli, folder, json.dumps(plain)).stderr
