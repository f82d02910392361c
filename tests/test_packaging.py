"""The wheel: complete, and nothing but `attnspec` in it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def folder_of(package: str) -> Path:
    mapping = SETTINGS["tool"]["setuptools"]["package-dir"]
    longest = max((m for m in mapping if package == m or package.startswith(m + ".")), key=len)
    return ROOT / mapping[longest] / package.removeprefix(longest).lstrip(".").replace(".", "/")


def test_every_package_of_the_tree_is_listed() -> None:
    """The list is explicit: a new folder would be missing from the wheel without a warning."""
    listed = {folder_of(p) for p in SETTINGS["tool"]["setuptools"]["packages"]}
    tops = [ROOT / "src" / "attnspec", ROOT / "reference", ROOT / "impl", ROOT / "properties"]
    there = {p.parent for top in tops for p in top.rglob("__init__.py") if not any(a.is_symlink() for a in p.parents)}
    assert listed == there


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    clean = folder / "tree"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for file in files.stdout.splitlines():
        source, target = ROOT / file, clean / file
        if source.exists() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    made = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(clean)]
    subprocess.run(made, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_nothing_but_attnspec_is_importable(wheel: zipfile.ZipFile) -> None:
    tops = {n.partition("/")[0] for n in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"attnspec"}


def test_the_wheel_is_complete(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in SETTINGS["tool"]["setuptools"]["packages"]:
        for source in folder_of(package).glob("*.py"):
            assert f"{package.replace('.', '/')}/{source.name}" in names
    for data in ("report/report.html.jinja", "report/leakage.html.jinja", "properties/mutants/kill_matrix.json", "py.typed"):
        assert f"attnspec/{data}" in names
