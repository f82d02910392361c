"""Lanes: the units of an audit in two worker processes, so that a machine with two cores is not half idle.

Which lane a claim belongs to follows from the claims and their dtypes alone. A subject may remember what it was called
with, so that a verdict can depend on what its process did before; it must not depend on how fast the machine is or how many
cores it has. With one job the same lanes run one after the other.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attnspec.errors import UsageError

LANES = 2
LEAST = 12  # claims from which a second process, which has to load the target too, is worth its start


@dataclass(frozen=True)
class Task:
    """A unit of an audit with its place in the report; `claim` is what keeps the dtypes of one claim together."""

    place: int
    claim: str
    unit: Any


def lanes_for(claims: int) -> int:
    """How many lanes an audit of so many claims has."""
    return LANES if claims >= LEAST else 1


def jobs_for(jobs: int | None) -> int:
    """How many lanes run at a time. Errors: UsageError for less than one."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs={jobs}: 1 or more")
    return jobs or min(LANES, cores())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared(tasks: Sequence[Task], lanes: int) -> list[list[Task]]:
    """The tasks of each lane: claim after claim goes to the lane that has the fewest units so far."""
    shares: list[list[Task]] = [[] for _ in range(lanes)]
    lane_of: dict[str, int] = {}
    units: dict[str, int] = {}
    for task in tasks:
        units[task.claim] = units.get(task.claim, 0) + 1
    load = [0] * lanes
    for task in tasks:
        if task.claim not in lane_of:
            lane_of[task.claim] = load.index(min(load))
            load[lane_of[task.claim]] += units[task.claim]
        shares[lane_of[task.claim]].append(task)
    return shares


def work_through(
    shares: Sequence[Sequence[Task]], workers: Sequence[Callable[[Task], Any]], jobs: int, done: Callable[[Task, Any], None]
) -> None:
    """Hands each lane's tasks to its worker, `jobs` lanes at a time, and calls `done(task, result)` here for each.

    `done` is called in this thread, in the order in which results arrive; those of one lane arrive in its order. An
    interrupt or an error leaves at once: what is done is done, and the caller stops the workers.
    """
    if jobs == 1 or len(shares) == 1:
        for tasks, work in zip(shares, workers, strict=True):
            for task in tasks:
                done(task, work(task))
        return
    results: queue.SimpleQueue[tuple[Task | None, Any]] = queue.SimpleQueue()
    left = threading.Event()

    def drive(tasks: Sequence[Task], work: Callable[[Task], Any]) -> None:
        try:
            for task in tasks:
                result = work(task)
                if left.is_set():
                    return  # nobody waits for it: the worker was stopped
                results.put((task, result))
            results.put((None, None))
        except BaseException as error:
            results.put((None, error))

    for tasks, work in zip(shares, workers, strict=True):
        threading.Thread(target=drive, args=(tasks, work), daemon=True).start()
    running = len(shares)
    try:
        while running:
            arrived, result = results.get()
            if arrived is not None:
                done(arrived, result)
            elif result is not None:
                raise result
            else:
                running -= 1
    finally:
        left.set()
        while not results.empty():  # interrupted: what has arrived counts
            arrived, result = results.get()
            if arrived is not None:
                done(arrived, result)
