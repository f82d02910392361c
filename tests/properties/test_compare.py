"""Each comparison, seen to pass and seen to fail: also for NaN, infinities, signs of zero and shapes."""

from __future__ import annotations

import numpy as np
import pytest

from attnspec.properties.compare import between, ledger, none_of, nonzero, same_bits, statistic, within
from attnspec.properties.verdict import Violation

NAN, INF = float("nan"), float("inf")


def row(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (row(1, 2), row(1, 2)),
        (row(0.0), row(-0.0)),
        (row(NAN, 1), row(NAN, 1)),
        (row(INF, -INF), row(INF, -INF)),
        (row(), row()),
    ],
)
def test_same_bits_holds(got: np.ndarray, want: np.ndarray) -> None:
    with ledger() as book:
        same_bits(got, want, "output", live=True)
    assert (book.exposed, book.ratio, book.decided_by) == (True, None, "exact")


@pytest.mark.parametrize(
    ("got", "want", "at"),
    [
        (row(1, 2), row(1, 2 + 2**-51), (1,)),
        (row(0.0), row(5e-324), (0,)),
        (row(1, NAN), row(1, 1), (1,)),
        (row(1, 1), row(NAN, 1), (0,)),
        (row(INF), row(-INF), (0,)),
        (row(1, 5, 3), row(1, 2, 3.5), (1,)),  # where they differ most
    ],
)
def test_same_bits_fails(got: np.ndarray, want: np.ndarray, at: tuple[int, ...]) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(Violation, match="exact relation: equal bits") as caught:
        same_bits(got, want, "output", live=True)
    assert caught.value.evidence.at == at
    assert caught.value.decided_by == "exact"


def test_same_bits_of_what_could_not_differ_has_no_power() -> None:
    with ledger() as book:
        same_bits(row(1), row(1), "output", live=False)
    assert not book.exposed


def test_same_bits_of_a_noisy_subject_is_decided_by_the_noise() -> None:
    with ledger() as book:
        same_bits(row(1.5), row(1), "output", live=True, noise=row(1))
    assert (book.decided_by, book.ratio) == ("bound", 0.5)
    with pytest.raises(Violation, match="not deterministic"):
        same_bits(row(3), row(1), "output", live=True, noise=row(1))


def test_shapes_must_agree() -> None:
    got, want = np.zeros((2, 3)), np.zeros((3, 2))
    with pytest.raises(Violation, match="shape of output"):
        same_bits(got, want, "output", live=True)
    with pytest.raises(Violation, match="shape of output"):
        within(got, want, np.ones(1), "output", why="")


def test_a_shape_that_broadcasts_is_still_wrong() -> None:
    with pytest.raises(Violation, match=r"shape of output: got \(1, 3\), expected \(2, 3\)"):
        within(np.zeros((1, 3)), np.zeros((2, 3)), np.ones(1), "output", why="")


@pytest.mark.parametrize(
    ("got", "want", "allowed", "ratio"),
    [
        (row(1.5, 2), row(1, 2), row(1, 1), 0.5),
        (row(2), row(1), row(1), 1.0),  # the bound itself is allowed
        (row(1), row(1), row(0), 0.0),
        (row(NAN, INF), row(NAN, INF), row(0, 0), 0.0),
        (row(-0.0), row(0.0), row(0), 0.0),
    ],
)
def test_within_holds(got: np.ndarray, want: np.ndarray, allowed: np.ndarray, ratio: float) -> None:
    with ledger() as book:
        within(got, want, allowed, "output", why="")
    assert (book.decided_by, book.ratio) == ("bound", ratio)


@pytest.mark.parametrize(
    ("got", "want", "allowed", "at"),
    [
        (row(1, 3.5), row(1, 2), row(1, 1), (1,)),
        (row(1 + 2**-52), row(1), row(0), (0,)),
        (row(NAN), row(1), row(INF), (0,)),
        (row(1), row(NAN), row(INF), (0,)),
        (row(INF), row(1), row(1e300), (0,)),
        (row(-INF), row(INF), row(1), (0,)),
        (row(1.5, 12), row(1, 10), row(0.1, 1), (0,)),  # worst in units of what is allowed, not in size
        (row(2), row(1), row(NAN), (0,)),  # a bound that is not a number allows nothing
    ],
)
def test_within_fails(got: np.ndarray, want: np.ndarray, allowed: np.ndarray, at: tuple[int, ...]) -> None:
    with pytest.raises(Violation) as caught:
        within(got, want, allowed, "output", why="a derivation")
    assert caught.value.evidence.at == at
    assert caught.value.evidence.why == "a derivation"
    assert caught.value.decided_by == "bound"
    assert not caught.value.ratio <= 1.0


def test_within_has_power_only_where_zeros_would_be_rejected() -> None:
    with ledger() as book:
        within(row(0.25), row(0.5), row(1), "output", why="")
    assert not book.exposed
    with ledger() as book:
        within(row(0.25, 2), row(0.5, 2), row(1, 1), "output", why="")
    assert book.exposed


def test_evidence_is_what_json_can_hold() -> None:
    with pytest.raises(Violation) as caught:
        within(row(NAN), row(-INF), row(0.5), "output", why="")
    e = caught.value.evidence
    assert (e.got, e.expected, e.allowed) == ("nan", "-inf", 0.5)
    assert str(caught.value) == "output at [0]: got nan, expected -inf, allowed 0.5 ()"


def test_between() -> None:
    low, high, slack = row(0, 0, 0), row(1, 1, 1), row(0, 0, 0.5)
    between(row(0, 1, 1.5), low, high, slack, "output", why="")
    for wrong in (row(-1, 0, 0), row(0, 1.001, 0), row(0, 0, 1.75), row(0, NAN, 0), row(INF, 0, 0)):
        with pytest.raises(Violation):
            between(wrong, low, high, slack, "output", why="")


def test_between_says_the_nearer_end() -> None:
    with pytest.raises(Violation) as caught:
        between(row(7), row(0), row(1), row(0), "output", why="")
    assert caught.value.evidence.expected == 1.0


def test_statistic() -> None:
    with ledger() as book:
        statistic(1.0, 0.9, 1.1, "variance", why="")
    assert (book.exposed, book.decided_by) == (True, "statistic")
    for wrong in (0.5, 1.5, NAN, INF):
        with pytest.raises(Violation) as caught:
            statistic(wrong, 0.9, 1.1, "variance", why="")
        assert caught.value.decided_by == "statistic"


def test_none_of() -> None:
    none_of((), "inputs that the call altered")
    with pytest.raises(Violation, match=r"inputs that the call altered.*q, k"):
        none_of(("q", "k"), "inputs that the call altered")


def test_nonzero() -> None:
    nonzero(row(0, 1), np.array([False, True]), "gradient")
    for dead in (row(1, 0), row(1, NAN), row(1, INF)):
        with pytest.raises(Violation, match="liveness") as caught:
            nonzero(dead, np.array([False, True]), "gradient")
        assert caught.value.evidence.at == (1,)
    with ledger() as book:
        nonzero(row(0), np.array([False]), "gradient")
    assert not book.exposed


def test_a_ledger_keeps_the_worst_ratio_and_ends_with_its_block() -> None:
    with ledger() as outer:
        within(row(1.5), row(1), row(1), "output", why="")
        with ledger() as inner:
            within(row(1.75), row(1), row(1), "output", why="")
        within(row(1.25), row(1), row(1), "output", why="")
    same_bits(row(1), row(1), "output", live=True)  # noted nowhere
    assert (outer.ratio, inner.ratio) == (0.5, 0.75)
