"""The registry of planted defects: of one package, and of all of them; listing imports no torch, an id is there once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attnspec.properties import model_mutants, mutants, planted
from attnspec.properties.mutant import Mutants, UnknownMutantError

MUTANT = '@mutant("{}.same", imitates="a bug", source="https://example.org")\ndef {}():\n    """Wrong."""\n\n\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two families; the second names a mutant of the first a second time."""
    folder = tmp_path / "some_mutants"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(MUTANT.format("one", "first"))
    (folder / "two.py").write_text(MUTANT.format("two", "second") + MUTANT.format("one", "third"))
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_package_is_read_family_by_family(package: str) -> None:
    found = Mutants(package, ["one"])
    assert found.ids() == ["one.same"]
    assert found.describe("one.same").where == "some_mutants/one.py::first"


def test_an_id_is_there_once(package: str) -> None:
    with pytest.raises(ValueError, match=r"'one.same' is there twice: .*one.py::first and .*two.py::third; rename one"):
        Mutants(package, ["one", "two"]).ids()


def test_all_are_those_of_both_packages() -> None:
    assert planted.ids() == [*mutants.ids(), *model_mutants.ids()]
    assert len(set(planted.ids())) == len(planted.ids())
    for home, prefix in ((mutants, "mutant"), (model_mutants, "lm-mutant")):
        first = home.ids()[0]
        assert planted.describe(first) == home.describe(first)
        assert planted.target(first) == f"{prefix}:{first}"
    with pytest.raises(UnknownMutantError, match=r"the nearest is 'cache\.crop_keeps_one_more'"):
        planted.target("cache.crop_keeps_one")


def test_listing_imports_no_torch() -> None:
    code = "import sys, attnspec.properties.planted as p; print(len(p.ids()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(planted.ids())} False\n"
