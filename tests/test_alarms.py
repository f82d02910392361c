"""No false alarm, and no claim that stops applying unseen: known subjects get the verdicts that are committed.

The seeds are drawn from the commit, so that CI looks at new cases with every change; `make alarms` looks at many.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attnspec.auditor import audit
from attnspec.known_subjects import SLOW, SUBJECTS, Options, alarms, changes, key, snapshot
from attnspec.properties.oracle import long_memory

KNOWN = snapshot()


def test_the_snapshot_has_every_subject() -> None:
    assert list(KNOWN) == [key(target, options) for target, options in SUBJECTS]


subjects = pytest.mark.parametrize(("target", "options"), SUBJECTS, ids=[key(t, o) for t, o in SUBJECTS])


@pytest.fixture(scope="module", autouse=True)
def answers_are_shared() -> Iterator[None]:
    """Most subjects are asked the same."""
    with long_memory():
        yield


TURNS = 8  # a variant is audited in full with every eighth commit, and all of it by `make docs`
DRAWN = 2  # and what is drawn with every second


@subjects
def test_a_known_subject_gets_its_verdicts(target: str, options: Options, commit_seed: int) -> None:
    variants = [one for one, _ in SUBJECTS if one.startswith("variant:")]
    if target in variants and (variants.index(target) + commit_seed) % TURNS:
        pytest.skip("its turn comes with another commit")
    profile = "drawn" if target.removeprefix("variant:") in SLOW else "quick"
    report = audit(target, seed=commit_seed, profile=profile, in_process=True, **options)
    assert report.cannot_run is None
    assert changes(report, KNOWN[key(target, options)]) == []


@subjects
def test_no_alarm_at_a_second_seed(target: str, options: Options, commit_seed: int) -> None:
    """The fixed cases are the same at every seed, so what is drawn is looked at alone."""
    if ([one for one, _ in SUBJECTS].index(target) + commit_seed) % DRAWN:
        pytest.skip("its turn comes with another commit")
    report = audit(target, seed=commit_seed + 1, profile="drawn", in_process=True, **options)
    assert alarms(report, KNOWN[key(target, options)]) == []
