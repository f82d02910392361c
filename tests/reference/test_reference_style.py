"""The house style of reference/: imports, sizes, docstrings."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import attnspec.reference

FILES = sorted(Path(attnspec.reference.__file__).parent.glob("*.py"))
TREES = {path.name: ast.parse(path.read_text()) for path in FILES}
FUNCTIONS = {f"{n}:{f.name}": f for n, tree in TREES.items() for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}
PUBLIC = sorted(name for name in FUNCTIONS if not name.split(":")[1].startswith("_"))
ALLOWED = re.compile(r"(numpy(\..+)?|typing|collections\.abc|__future__|attnspec\.reference(\..+)?)$")
SECTIONS = ("Shapes", "Units", "Empty", "Errors", "Source", "Differs")
MAX_FILE, MAX_FUNCTION = 120, 25  # lines, style.md rule 2


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def code_lines(function):
    lines = function.end_lineno - function.lineno + 1
    docstring = function.body[0]
    return lines if ast.get_docstring(function) is None else lines - (docstring.end_lineno - docstring.lineno + 1)


def test_the_package_has_one_name():
    # imported from the repository root it would be a second copy of every module
    with pytest.raises(ImportError, match=r"reference is not a package of its own"):
        runpy.run_path(attnspec.reference.__file__, run_name="reference")


def test_there_is_something_to_check():
    assert {"softmax.py", "mask.py", "attention.py", "multi_head.py"} <= set(TREES)
    assert len(PUBLIC) >= 20


@pytest.mark.parametrize("name", TREES)
def test_imports_only_numpy_and_siblings(name):
    assert [module for module in imported(TREES[name]) if not ALLOWED.match(module)] == []


@pytest.mark.parametrize("source", ["import torch", "from attnspec.impl import x", "from . import x", "import numpyro"])
def test_the_import_check_can_fail(source):
    assert [module for module in imported(ast.parse(source)) if not ALLOWED.match(module)] != []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_short(name):
    assert code_lines(FUNCTIONS[name]) <= MAX_FUNCTION


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_follow_the_template(name):
    text = ast.get_docstring(FUNCTIONS[name]) or ""
    first, blank, formula, *_ = text.splitlines()
    assert first.endswith("."), "the first line is a sentence"
    assert not blank
    assert formula.startswith("    "), "an indented formula follows"
    assert re.search(r"\(1\)$", text, re.MULTILINE), "the formula is numbered"
    heads = re.findall(r"^(\w+): +\S", text, re.MULTILINE)
    assert tuple(heads) == SECTIONS


@pytest.mark.parametrize("name", PUBLIC)
def test_functions_are_annotated(name):
    arguments = FUNCTIONS[name].args
    everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    assert [argument.arg for argument in everything if argument and argument.annotation is None] == []
    assert FUNCTIONS[name].returns is not None
