"""Independent authorities: programs that none of us wrote, which the reference must agree with to the derived bound.

An authority is a function that draws an example, computes it with the foreign program, and calls `agrees`. It runs under
Hypothesis in test_authorities.py and, for the table of ideas, in docs/generate.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnspec.properties.carried import UNITS, Carried, carrying

Draw = Callable[[Any], Any]  # draw(strategy) gives a value, as in Hypothesis' st.data()

# A bound above these shares of the largest result could hide a wrong formula: what a test with it says is void.
POWER = {"float64": 1e-8, "float32": 1e-2, "bfloat16": 0.5}
# Above these the interval bound is blunt enough for a sharper one to be worth its time.
BLUNT = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 0.0}


@dataclass(frozen=True)
class Authority:
    """A foreign program, the idea it speaks on, and the functions of reference/ that it is asked about."""

    idea: str
    name: str
    of: tuple[Callable[..., Any], ...]
    run: Callable[[Draw], None]
    examples: int

    @property
    def what(self) -> str:
        """What is compared: the first line of the docstring."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class Measured:
    """One comparison: the largest error in units of its bound, and both at that place."""

    ratio: float
    error: float
    allowed: float


AUTHORITIES: list[Authority] = []
_measured: list[Measured] = []


def authority(
    idea: str, name: str, *, of: tuple[Callable[..., Any], ...], examples: int = 25
) -> Callable[[Callable[[Draw], None]], Callable[[Draw], None]]:
    """Registers a function that draws an example, asks the authority `name` and calls `agrees`."""

    def register(run: Callable[[Draw], None]) -> Callable[[Draw], None]:
        assert run.__doc__, f"{run.__name__} says in its docstring what is compared"
        AUTHORITIES.append(Authority(idea, name, of, run, examples))
        return run

    return register


@contextmanager
def measuring() -> Iterator[list[Measured]]:
    """Collects what `agrees` measures."""
    _measured.clear()
    yield _measured


def agrees(got: Any, function: Callable[..., Any], *args: Any, unit: str = "float64", **kwargs: Any) -> None:
    """Raises unless the authority's result is the reference's, element by element, within

        |got - want| <= error(unit) + error(float64)                                    (1)

    where want = function(*args, **kwargs) and error(u) is what rounding with roundoff u may do to any computation of the
    same formula (`properties/carried.py`): the rigorous interval where that says something, else the first-order bound at
    the elements that differ most; in bfloat16 the rigorous enclosure of all elements. `unit` is what the authority computed
    in. `got` is built like the result: an array, or a tuple, list or dict of such; integers must be equal.
    """
    compare(got, carried(function, *args, unit=unit, **kwargs), unit, function.__name__)


def carried(function: Callable[..., Any], *args: Any, unit: str = "float64", **kwargs: Any) -> Any:
    """What the reference says, with its errors."""
    with carrying(unit) as numbers:
        here = getattr(sys.modules[function.__module__], function.__name__, None)
        wraps = getattr(here, "__wrapped__", None) is function  # as `carrying` does where a function works in another format
        return (here if wraps else function)(*numbers(args), **numbers(kwargs))


def bounds(want: Carried, unit: str, places: int = 6) -> np.ndarray[Any, Any]:
    """How far off some elements may be: all of them in bfloat16, else so many, evenly spaced."""
    if unit == "bfloat16":
        return want.enclosure()
    flat = np.unique(np.linspace(0, want.size - 1, places).astype(int))
    return np.array([want.first_order(tuple(map(int, np.unravel_index(i, want.shape)))) for i in flat])


def compare(got: Any, want: Any, unit: str, where: str) -> None:
    """Raises unless `got` is what `carried` gave for `want`, as in `agrees`."""
    if isinstance(want, dict):
        assert set(got) == set(want), f"{where}: got {sorted(got)}, want {sorted(want)}"
        for key in want:
            compare(got[key], want[key], unit, f"{where}[{key!r}]")
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want), f"{where}: got {len(got)} results, want {len(want)}"
        for i, one in enumerate(want):
            compare(got[i], one, unit, f"{where}[{i}]")
    elif want is None:
        assert got is None, f"{where}: got {got}, want None"
    else:
        _compare_arrays(np.asarray(got), want, unit, where)


def _compare_arrays(got: np.ndarray[Any, Any], want: Any, unit: str, where: str) -> None:
    assert got.shape == np.shape(getattr(want, "value", want)), f"{where}: shape {got.shape}, want {want.shape}"
    if not isinstance(want, Carried):
        np.testing.assert_array_equal(got, want, err_msg=f"{where} carries no error: it must be equal")
        _measured.append(Measured(0.0, 0.0, 0.0))
        return
    special = ~np.isfinite(want.value)
    np.testing.assert_array_equal(got[special], want.value[special], err_msg=f"{where}: infinities")
    value, error, got = want.value[~special], want.error[~special], got[~special].astype(np.float64)
    if not value.size:
        return
    off = np.abs(got - value)
    assert np.isfinite(off).all(), f"{where}: got {got}, want {value}"
    # The reference's own roundoff is that of float64; the last factor is for the rounding of the bound itself.
    both = (1 + UNITS["float64"] / want.unit) * (1 + 2**-10)
    size = max(1.0, float(np.max(np.abs(value))))
    limit = POWER[unit] * size
    places = np.arange(value.size)
    if unit == "bfloat16":
        error = want.enclosure()[~special]
    elif np.max(error) * both > BLUNT[unit] * size:  # the sharper bound, where it is most likely to be exceeded
        places = np.unique([*np.argsort(-off, kind="stable")[:4], 0, value.size - 1])
        index = np.argwhere(~special)
        error = np.array([want.first_order(tuple(index[i])) for i in places])
    allowed, off = error * both, off[places]
    assert np.max(allowed) <= limit, f"{where}: the bound {np.max(allowed):.1e} is too wide to say anything (> {limit:.1e})"
    ratio = np.where(off == 0, 0.0, off / np.maximum(allowed, np.finfo(np.float64).tiny))
    worst = int(np.argmax(ratio))
    _measured.append(Measured(float(ratio[worst]), float(off[worst]), float(allowed[worst])))
    at = places[worst]
    assert ratio[worst] <= 1, (
        f"{where}: error {off[worst]:.3e} > bound {allowed[worst]:.3e} at flat index {at} of {got.size}: "
        f"got {got[at]!r}, want {value[at]!r}"
    )
