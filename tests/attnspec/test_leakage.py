"""The leakage map as a picture: what leaks stands out, in a PNG that is decoded again and in a real browser."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from attnspec.properties.verdict import Leak
from attnspec.report.leakage import HIDDEN, SEEN, UNUSED, colour, drawn, write

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Pixels = npt.NDArray[np.int64]

# Token t reaches the position before it, and token 3 reaches position 0, ten times as far.
MODEL = """
import numpy as np

TABLE = np.cos(np.arange(7)[:, None] * np.arange(1, 8))


class Leaks:
    vocab_size, max_length = 7, 5

    def logits(self, ids):
        counts = np.eye(7)[ids].cumsum(1)
        after = np.concatenate([np.eye(7)[ids][:, 1:], 0 * counts[:, :1]], 1)
        after[:, :1] += 10 * np.eye(7)[ids][:, 3:4] if ids.shape[1] > 3 else 0
        return (counts + 1e-4 * after) @ TABLE


class Right(Leaks):
    def logits(self, ids):
        return np.eye(7)[ids].cumsum(1) @ TABLE
"""
REACHED = {(1, 0), (2, 1), (3, 2), (4, 3), (3, 0)}
SELECT = ("--select", "mask.logits-causal")


def pixels(path: Path) -> Pixels:
    """[height,width,3] in 0 .. 255."""
    image: Any = matplotlib.image.imread(path)
    return np.rint(255 * image[..., :3]).astype(np.int64)


def panels(image: Pixels, size: int) -> list[Pixels]:
    """The colours [size,size,3] in the middle of the cells of both panels: the large rectangles of the colours of cells."""
    height = len(image)
    ours = [tuple(bytes.fromhex(c[1:])) for c in (HIDDEN, SEEN, UNUSED)]
    of_cells = np.any([(image == c).all(-1) for c in ours], axis=0)
    columns = np.flatnonzero(of_cells.sum(0) > height // 5)
    left, right = np.split(columns, [1 + int(np.argmax(np.diff(columns)))])
    found = []
    for part in (left, right):
        rows = np.flatnonzero(of_cells[:, part].sum(1) > 1)
        rows = np.split(rows, 1 + np.flatnonzero(np.diff(rows) > 5))[0]  # the legend stands below
        at = (np.arange(size) + 0.5) / size
        down = (rows[0] + at * (rows[-1] - rows[0])).astype(int)
        across = (part[0] + at * (part[-1] - part[0])).astype(int)
        found.append(image[down[:, None], across[None]])
    return found


def brightness(cells: Pixels) -> npt.NDArray[np.float64]:
    return np.asarray(cells @ np.array([0.299, 0.587, 0.114]))


@pytest.fixture
def audited(folder: Path, cli: Run) -> subprocess.CompletedProcess[str]:
    (folder / "leaks.py").write_text(MODEL)
    return cli("audit", "leaks.py::Leaks", *SELECT, "--report", "report")


def test_what_leaks_is_brighter_than_what_is_clean(folder: Path, audited: subprocess.CompletedProcess[str]) -> None:
    assert audited.returncode == 1
    (line,) = [line for line in audited.stdout.splitlines() if line.startswith("Picture")]
    path = folder / line.split()[1]
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert re.fullmatch(r"[0-9a-f]{8}-leaks.py-Leaks-leak.png", path.name)
    expected, seen = map(brightness, panels(pixels(path), 5))
    leaks = np.array([[(t, s) in REACHED for s in range(5)] for t in range(5)])
    assert seen[leaks].min() > seen[~leaks].max() + 20
    assert seen[3, 0] > seen[3, 2] + 20  # the larger leak is the brighter one
    assert expected[leaks].max() < seen[leaks].min() - 20
    assert (seen == expected)[~leaks].all()
    allowed = np.triu(np.ones((5, 5), dtype=bool))
    assert expected[allowed].min() > expected[~allowed].max() + 20


def test_a_model_that_does_not_leak_has_no_picture(folder: Path, cli: Run) -> None:
    (folder / "leaks.py").write_text(MODEL)
    done = cli("audit", "leaks.py::Right", *SELECT, "--report", "report")
    assert done.returncode == 0
    assert "Picture" not in done.stdout
    assert not list(folder.rglob("*.png"))
    assert "<svg" not in (folder / "report" / "index.html").read_text()


def test_without_matplotlib_the_report_has_the_map_all_the_same(folder: Path, cli: Run) -> None:
    (folder / "leaks.py").write_text(MODEL)
    (folder / "matplotlib.py").write_text("raise ImportError('not on this machine')\n")
    done = cli("audit", "leaks.py::Leaks", *SELECT, "--report", "report")
    assert done.returncode == 1
    assert "Picture    pip install 'attnspec[pictures]' draws this map" in done.stdout
    assert not list(folder.rglob("*.png"))
    assert (folder / "report" / "index.html").read_text().count("<svg") == 1


def test_a_browser_shows_the_map(folder: Path, audited: subprocess.CompletedProcess[str], browser: Run) -> None:
    assert audited.returncode == 1
    page, shot = folder / "report" / "index.html", folder / "page.png"
    svg = re.findall(r"<svg.*?</svg>", page.read_text(), re.S)[0]
    assert all(
        text in svg for text in ("expected", "seen", "changed token", "position of the logits", "share of the largest")
    )
    (folder / "alone.html").write_text(f"<style>body {{ margin: 0 }}</style>{svg.replace('<svg', '<svg width=1120')}")
    browser("--window-size=1120,432", f"--screenshot={shot}", (folder / "alone.html").as_uri())
    image = pixels(shot)  # two pixels a unit: the panels begin at 24 and 224, are 160 wide, 20 from the top
    middle = (np.arange(5) + 0.5) * 64
    expected, seen = (
        brightness(image[(40 + middle).astype(int)[:, None], (2 * left + middle).astype(int)[None]]) for left in (24, 224)
    )
    leaks = np.array([[(t, s) in REACHED for s in range(5)] for t in range(5)])
    assert seen[leaks].min() > seen[~leaks].max() + 20
    assert (seen == expected)[~leaks].all()


def test_numbers_that_are_not_finite_are_the_strongest(tmp_path: Path) -> None:
    leak = Leak(((1.0, "inf", 0.0), ("inf", 1.0, 1.0), (1e-7, 0.0, 1.0)), "a$b_{c")
    found = drawn(leak)
    assert (found.low, found.high) == (-7, -6)
    assert found.seen[1][0] == colour(1.0, -7, -6) == "#fcffa4"
    assert found.seen[2][1] == HIDDEN
    assert found.seen[0] == [SEEN, SEEN, UNUSED]
    assert found.title[1][0] == "token 1, position 0: inf"
    assert write(leak, tmp_path / "leak.png", "a target named $x_{$ \u4f60")
    _, seen = panels(pixels(tmp_path / "leak.png"), 3)
    assert tuple(seen[1, 0]) == (0xFC, 0xFF, 0xA4)
