"""Lanes: which worker does which claim depends on the claims alone, and nothing is lost when a worker is."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from attnspec.errors import UsageError
from attnspec.lanes import LANES, Task, jobs_for, lanes_for, shared, work_through


def tasks(*units: int) -> list[Task]:
    """Claims a, b, c, ... with so many units each."""
    claims = [name for name, count in zip("abcdefgh", units, strict=False) for _ in range(count)]
    return [Task(place, claim, f"{claim}{place}") for place, claim in enumerate(claims)]


def test_a_claim_stays_on_one_lane_and_lanes_are_even() -> None:
    everything = tasks(4, 2, 2, 4, 1, 1)
    shares = shared(everything, LANES)
    assert sorted((t for share in shares for t in share), key=lambda t: t.place) == everything
    assert not {t.claim for t in shares[0]} & {t.claim for t in shares[1]}
    assert [len(share) for share in shares] == [8, 6]
    for share in shares:
        assert share == sorted(share, key=lambda t: t.place)


def test_few_claims_have_one_lane() -> None:
    assert lanes_for(1) == 1
    assert lanes_for(70) == LANES


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_are_counted(jobs: int) -> None:
    with pytest.raises(UsageError, match=f"jobs={jobs}: 1 or more"):
        jobs_for(jobs)


def run(units: tuple[int, ...], jobs: int, work: Any) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    main = threading.get_ident()

    def done(task: Task, result: Any) -> None:
        assert threading.get_ident() == main
        seen.append((task.unit, result))

    work_through(shared(tasks(*units), LANES), [work, work], jobs, done)
    return seen


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_is_done_once(jobs: int) -> None:
    seen = run((3, 1, 2, 2), jobs, lambda task: task.unit.upper())
    assert sorted(seen) == sorted((t.unit, t.unit.upper()) for t in tasks(3, 1, 2, 2))


def test_two_jobs_run_at_a_time() -> None:
    """Each lane waits for the other: with one job this would never end."""
    both = threading.Barrier(2, timeout=10)
    seen = run((1, 1), 2, lambda _: both.wait() >= 0)
    assert [result for _, result in seen] == [True, True]


def test_an_error_of_one_lane_is_raised_and_what_arrived_is_kept() -> None:
    def work(task: Task) -> str:
        if task.claim == "b":
            time.sleep(0.1)
            raise RuntimeError("of ours")
        return "done"

    seen: list[str] = []
    with pytest.raises(RuntimeError, match="of ours"):
        work_through(shared(tasks(1, 1), LANES), [work, work], 2, lambda task, _: seen.append(task.unit))
    assert seen == ["a0"]


def test_an_interrupt_keeps_what_has_arrived() -> None:
    """Ctrl-C reaches the main thread while it waits or notes a result."""
    seen: list[str] = []

    def done(task: Task, _: Any) -> None:
        seen.append(task.unit)
        if len(seen) == 2:
            time.sleep(0.2)  # meanwhile the other lane goes on
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_through(shared(tasks(3, 3), LANES), [lambda _: None, lambda _: None], 2, done)
    assert len(seen) == 6
