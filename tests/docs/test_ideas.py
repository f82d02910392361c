"""The pages of the ideas: their code runs, what is generated in them is current, and no idea or cell is missing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import attnspec.reference

ROOT = Path(__file__).resolve().parents[2]
IDEAS = ROOT / "docs" / "ideas"
PAGES = sorted(IDEAS.glob("[0-9]*.md"))


@pytest.fixture(scope="module")
def ideas() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate_for_ideas", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    module: ModuleType = generate.beside("ideas")
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_is_what_its_code_makes(ideas: ModuleType, path: Path) -> None:
    """Runs every block of the page, and compares all that is generated in it."""
    text = path.read_text(encoding="utf-8")
    assert text == ideas.filled(text, draw=False), "run `make docs`"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_no_code_of_a_page_is_typed_in(ideas: ModuleType, path: Path) -> None:
    rest = ideas.CODE.sub("", ideas.MARK.sub("", path.read_text(encoding="utf-8")))
    assert "```" not in rest, "a block of code stands between marks, or is indented and a formula"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_says_what_checks_it_and_who_agrees(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    idea = text[2:5]
    assert re.match(r"# I\d\d \w", text)
    assert path.name.startswith(f"{idea[1:]}-")
    assert {f"<!-- claims: {idea} -->", f"<!-- authorities: {idea} -->"} <= set(text.splitlines())
    assert "<!-- run -->" in text


def test_every_idea_has_a_page(ideas: ModuleType) -> None:
    assert list(ideas.pages()) == ideas.IDEAS


def test_the_table_is_current(ideas: ModuleType) -> None:
    assert (IDEAS / "README.md").read_text(encoding="utf-8") == ideas.table_page()


def test_an_empty_cell_without_a_reason_is_an_error(ideas: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    idea, name = next(iter(ideas.REASONS))
    monkeypatch.delitem(ideas.REASONS, (idea, name))
    with pytest.raises(AssertionError, match=f"{idea}, {name}: empty"):
        ideas.table_page()


def test_a_reason_for_a_full_cell_is_an_error(ideas: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ideas.REASONS, ("I18", "claims"), "none")
    with pytest.raises(AssertionError, match=r"I18, claims: .*softmax\.shift-invariant.*; REASONS says otherwise"):
        ideas.table_page()


def test_pictures_are_shown_and_those_that_are_shown_exist() -> None:
    shown = {name for path in PAGES for name in re.findall(r"\]\(pictures/([\w-]+\.svg)\)", path.read_text(encoding="utf-8"))}
    assert shown == {path.name for path in (IDEAS / "pictures").glob("*")}


def test_every_file_of_the_reference_is_on_a_page() -> None:
    """A reader who comes from the code finds its idea."""
    everything = "".join(path.read_text(encoding="utf-8") for path in [*PAGES, IDEAS / "README.md"])
    files = {p.stem for p in Path(attnspec.reference.__file__).parent.glob("*.py")} - {"__init__"}
    assert {f for f in files if not re.search(rf"(?:source: {f}\.|reference/{f}\.py)", everything)} == set()
