"""No false alarm, and no claim that stops applying unseen: known subjects get the verdicts that are committed.

The seeds are drawn from the commit, so that CI looks at new cases with every change; `make alarms` looks at many.
"""

from __future__ import annotations

import pytest

from attnspec.auditor import audit
from attnspec.known_subjects import SUBJECTS, Options, changes, installed, key, snapshot

KNOWN = snapshot()


def test_the_snapshot_has_every_subject() -> None:
    assert list(KNOWN) == [key(target, options) for target, options in SUBJECTS]


@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize(("target", "options"), SUBJECTS, ids=[key(t, o) for t, o in SUBJECTS])
def test_a_known_subject_gets_its_verdicts(target: str, options: Options, nth: int, commit_seed: int) -> None:
    if not installed(target):
        pytest.skip(f"{target.partition(':')[0]} is not installed")
    report = audit(target, seed=commit_seed + nth, in_process=True, **options)
    assert report.cannot_run is None
    assert changes(report, KNOWN[key(target, options)]) == []
