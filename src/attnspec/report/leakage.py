"""The leakage map as a picture: which changed token may reach which position's logits, and which does.

The page of a report draws it itself (`leakage.html.jinja`), so that it looks the same everywhere; a PNG beside the case is
for issues and slides, and is drawn where matplotlib is installed. Both take places and colours from here.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

from attnspec.properties.verdict import Leak

HOW = "pip install 'attnspec[pictures]' draws this map as a PNG beside the case"
X, Y = "position of the logits", "changed token"
SCALE = "leak, share of the largest logit"
# From dark to bright: what leaks is brighter than whatever may be seen, and that than what is hidden.
HIDDEN, UNUSED, SEEN = "#10121f", "#24405a", "#34648a"
WORDS = {HIDDEN: "may not be seen", SEEN: "may be seen, and is", UNUSED: "may be seen, is not"}
FAINT, STRONG = (0xDD, 0x51, 0x3A), (0xFC, 0xFF, 0xA4)  # of the smallest and the largest leak


@dataclass(frozen=True)
class Map:
    """Colours [changed token][position] as they should be and as they are; what leaks is coloured by its decade.

    `low` and `high` are the ends of that scale, as powers of ten.
    """

    expected: list[list[str]]
    seen: list[list[str]]
    title: list[list[str]]
    low: int
    high: int

    @property
    def scale(self) -> list[tuple[int, str]]:
        """Each power of ten with its colour, the smallest first."""
        return [(power, colour(10.0**power, self.low, self.high)) for power in range(self.low, self.high + 1)]


def drawn(leak: Leak) -> Map:
    influence = [[float(x) for x in row] for row in leak.influence]
    size = range(len(influence))
    leaks = [influence[t][s] for t in size for s in range(t) if 0 < influence[t][s] < math.inf]
    low = math.floor(math.log10(min(leaks, default=1.0)))
    high = max(math.ceil(math.log10(max(leaks, default=1.0))), low + 1)

    def one(t: int, s: int) -> str:
        if s >= t:
            return SEEN if influence[t][s] else UNUSED
        return colour(influence[t][s], low, high) if influence[t][s] else HIDDEN

    return Map(
        expected=[[SEEN if s >= t else HIDDEN for s in size] for t in size],
        seen=[[one(t, s) for s in size] for t in size],
        title=[[f"token {t}, position {s}: {influence[t][s]:.2g}" for s in size] for t in size],
        low=low,
        high=high,
    )


def colour(leak: float, low: int, high: int) -> str:
    """Of a leak on a scale from 10**low to 10**high; what is not finite is beyond its end."""
    share = 1.0 if leak == math.inf else min(1.0, max(0.0, (math.log10(leak) - low) / (high - low)))
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(FAINT, STRONG, strict=True))


def write(leak: Leak, path: Path, title: str) -> bool:
    """Draws the map as a PNG; False where matplotlib is not installed, or not usable."""
    try:
        with warnings.catch_warnings(action="ignore"):
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_rgb
            from matplotlib.figure import Figure
            from matplotlib.patches import Patch
    except ImportError:
        return False
    found = drawn(leak)
    figure = Figure(figsize=(9.6, 5.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, name, cells in zip(axes, ("expected", "seen"), (found.expected, found.seen), strict=True):
        panel.imshow([[to_rgb(cell) for cell in row] for row in cells], interpolation="nearest")
        panel.set(title=name, xlabel=X, ylabel=Y)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.yaxis.get_major_locator().set_params(integer=True)
    lines = textwrap.wrap(title, 110) + ([f"first in {leak.module}"] if leak.module else [])
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)  # the name of a target is no formula
    colours = LinearSegmentedColormap.from_list("leak", [tuple(c / 255 for c in end) for end in (FAINT, STRONG)])
    figure.colorbar(ScalarMappable(LogNorm(10.0**found.low, 10.0**found.high), colours), ax=list(axes), label=SCALE)
    patches = [Patch(color=colour, label=text) for colour, text in WORDS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    with warnings.catch_warnings(action="ignore"):  # of letters of a name that the font lacks
        figure.savefig(path, format="png")
    return True
