"""The house rules that a machine can check: who imports whom, where tolerances live, what files are called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"reference": "attnspec.reference", "impl": "attnspec.impl", "properties": "attnspec.properties"}
SOURCES = sorted(
    p for folder in ("reference", "impl", "properties", "src/attnspec", "tests", "docs", "benchmarks")
    for p in (ROOT / folder).rglob("*.py")
    if not any(part.is_symlink() for part in (p, *p.parents))
)  # fmt: skip
# Each bound there is derived beside it; everywhere else a tolerance comes from properties/bounds.py.
DERIVE_BOUNDS = {
    "properties/bounds.py",
    "properties/bounds_backward.py",
    "tests/properties/test_bounds.py",
    "tests/properties/test_bounds_edges.py",
    "tests/impl/test_impl_attention.py",
}
MAY_IMPORT = {
    "reference": ("attnspec.reference",),
    "impl": ("attnspec.impl",),
    "properties": ("attnspec.properties", "attnspec.reference"),
}
HEAVY = {"torch", "jax", "transformers"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def test_sources_are_found() -> None:
    assert len(SOURCES) > 60
    assert {name(p).partition("/")[0] for p in SOURCES} >= {"reference", "impl", "properties", "src", "tests"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    """reference -> NumPy; impl -> torch; properties -> reference; never the other way."""
    allowed = MAY_IMPORT.get(name(path).partition("/")[0])
    if allowed is None:
        return
    for module in imported(ast.parse(path.read_text())):
        if module.partition(".")[0] == "attnspec":
            assert module.startswith(allowed), f"{name(path)} imports {module}; it may import {allowed}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_torch_is_imported_by_name_only_where_it_is_spoken(path: Path) -> None:
    """In the tool and the claims, heavy libraries are imported inside functions."""
    file = name(path)
    if not file.startswith(("src/", "properties/", "reference/")):
        return
    if file.startswith(("properties/mutants/", "properties/model_mutants/", "properties/variants_")):
        return
    body = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    top = {module.partition(".")[0] for node in body for module in imported(node)}
    assert not top & HEAVY, f"{file} imports {top & HEAVY} at its top"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_tolerances_are_derived_in_one_place(path: Path) -> None:
    if name(path) in DERIVE_BOUNDS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword):
            assert node.arg not in ("atol", "rtol", "tol"), f"{name(path)}:{node.value.lineno} has a tolerance of its own"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_comparisons_are_not_dropped(path: Path) -> None:
    """A bare call of a comparison that returns a bool can never fail."""
    silent = {"allclose", "isclose", "array_equal", "equal", "array_equiv"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert word not in silent, f"{name(path)}:{node.lineno} drops the result of {word}"


def test_no_file_is_called_by_a_word_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "core", "misc", "common"}
    assert not [name(p) for p in SOURCES if p.stem in empty]


def test_test_files_have_unique_names() -> None:
    stems = [p.stem for p in SOURCES if p.stem.startswith("test_")]
    assert len(stems) == len(set(stems))


def test_the_three_links_show_the_same_tree() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "attnspec" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder
