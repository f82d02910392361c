"""Interleaved timing: all contenders of a measurement take turns, so that a busy moment hits all alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
Job = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The median of what the rounds gave, and how far they are apart."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: list[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


def interleaved(
    jobs: Mapping[str, Job], rounds: int, *, clock: str = "wall", say: str = "", rest: Callable[[], object] = lambda: None
) -> tuple[dict[str, list[float]], bool]:
    """Seconds of each job in each round, A B C A B C .., after one round that does not count; and whether all rounds ran.

    Ctrl-C ends it: rounds that are complete stay. `rest` is called between jobs, untimed.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    try:
        for number in range(rounds + 1):
            one = {}
            for name, job in jobs.items():
                progress(f"{say}: round {number} of {rounds}, {name}")
                start = now()
                job()
                one[name] = now() - start
                rest()
            if number:
                for name, taken in one.items():
                    seconds[name].append(taken)
    except KeyboardInterrupt:
        progress("")
        return seconds, False
    progress("")
    return seconds, True


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> Spread:
    """How many times as long `name` takes as `base`: of each round by itself, so that what both feel cancels."""
    return Spread.of([a / b for a, b in zip(seconds[name], seconds[base], strict=True)])


def progress(line: str) -> None:
    """Shows what is going on, on one line of a terminal; elsewhere nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
