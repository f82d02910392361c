"""Starting is cheap: what needs no torch does not import it, and pytest's start imports next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = "torch", "jax", "scipy", "sympy"


def loaded(code: str, folder: Path) -> set[str]:
    """Modules that a fresh interpreter has after running the code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n' + ' '.join(sys.modules))"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def command(*arguments: str) -> str:
    return f"""
from click.testing import CliRunner
from attnspec.cli import main
result = CliRunner().invoke(main, {list(arguments)})
assert result.exit_code == 0, result.output"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["audit", "--help"],
        ["claims"],
        ["explain", "mask.causal"],
        ["audit", "plain.py::plain", "--select", "scale.sqrt-dk"],
        ["audit", "plain.py::plain", "--select", "scale.sqrt-dk", "--in-process"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_torch_do_not_import_it(folder: Path, arguments: list[str]) -> None:
    assert not loaded(command(*arguments), folder) & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_help_imports_neither_numpy_nor_hypothesis(folder: Path, arguments: list[str]) -> None:
    assert not loaded(command(*arguments), folder) & {"numpy", "hypothesis", "pytest"}


def test_the_package_imports_nothing_of_itself(folder: Path) -> None:
    modules = loaded("import attnspec", folder)
    assert not modules & {*HEAVY, "numpy", "hypothesis", "pytest", "click"}
    assert {m for m in modules if m.startswith("attnspec")} == {"attnspec"}


def test_names_of_the_package_load_on_first_use(folder: Path) -> None:
    names = "import attnspec\nassert all(getattr(attnspec, name) for name in attnspec.__all__)"
    assert not loaded(f"{names}\nassert 'mask.causal' in attnspec.claims", folder) & set(HEAVY)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import attnspec

    with pytest.raises(AttributeError, match="module 'attnspec' has no attribute 'sweet'"):
        _ = attnspec.sweet  # type: ignore[attr-defined]


def test_the_entry_point_of_pytest_imports_nothing(folder: Path) -> None:
    modules = loaded("import attnspec._pytest_entry", folder)
    assert not modules & {*HEAVY, "numpy", "hypothesis", "click", "msgspec"}
    assert {m for m in modules if m.startswith("attnspec")} == {"attnspec", "attnspec._pytest_entry"}


def test_pytest_starts_without_torch(folder: Path) -> None:
    (folder / "test_nothing.py").write_text("def test(): ...\n")
    code = "import pytest\nassert pytest.main(['-q', '-p', 'no:cacheprovider', 'test_nothing.py']) == 0"
    modules = loaded(code, folder)
    assert not modules & set(HEAVY)
    assert "attnspec._pytest_entry" in modules
    assert "attnspec.pytest_plugin" not in modules


def test_a_suite_of_a_numpy_function_does_not_import_torch(folder: Path) -> None:
    (folder / "test_suite_of_plain.py").write_text(
        "import attnspec\nfrom plain import plain\nTestPlain = attnspec.suite(plain, select=['scale.sqrt-dk'])\n"
    )
    code = "import pytest\nassert pytest.main(['-q', '-p', 'no:cacheprovider', 'test_suite_of_plain.py']) == 0"
    assert not loaded(f"import sys\nsys.path.insert(0, '')\n{code}", folder) & set(HEAVY)
