"""A covering array: few rows of option values in which every pair of values that fit together occurs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = dict[str, Any]
Fits = Callable[[Mapping[str, Any]], bool]  # of some options, whether a model can have them together


def pairs(options: Mapping[str, Sequence[Any]], fits: Fits) -> list[Row]:
    """All pairs of values of two options that fit."""
    both = [dict(zip(names, values, strict=True)) for names in combinations(options, 2)
            for values in product(*(options[name] for name in names))]  # fmt: skip
    return [pair for pair in both if fits(pair)]


def covering_array(options: Mapping[str, Sequence[Any]], fits: Fits) -> list[Row]:
    """Rows that hold every pair, found greedily: no choice is by chance, and none is taken back.

    Each row starts with the first pair that is missing, and gives each further option the value that most of the missing
    pairs want; of equal values the first. Source: Cohen, Dalal, Fredman and Patton, "The AETG system", IEEE TSE 23 (1997)
    437-444.
    """
    missing, rows = pairs(options, fits), []
    while missing:
        row = dict(missing[0])
        for name in (name for name in options if name not in row):
            grown = [row | {name: value} for value in options[name] if fits(row | {name: value})]
            row = max(grown, key=lambda one: sum(name in pair and pair.items() <= one.items() for pair in missing))
        missing = [pair for pair in missing if not pair.items() <= row.items()]
        rows.append({name: row[name] for name in options})
    return rows
