import math

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attnspec.reference.sampling import draw, top_k, top_p, with_temperature
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import softmax
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

LOGITS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(-40, 40).map(lambda n: n / 8))
P = np.array([0.1, 0.4, 0.3, 0.2])
OUT = -np.inf


def test_known_answers():
    logits = np.log(P)
    assert_close(softmax(with_temperature(logits, 0.5)), P**2 / np.sum(P**2))
    assert_close(softmax(top_k(logits, 2)), [0.0, 4 / 7, 3 / 7, 0.0])
    assert_close(softmax(top_p(logits, 0.65)), [0.0, 4 / 7, 3 / 7, 0.0])
    assert_close(softmax(top_p(logits, 0.75)), [0.0, 4 / 9, 3 / 9, 2 / 9])
    assert_close(softmax(top_p(logits, 0.01)), [0.0, 1.0, 0.0, 0.0])
    assert [int(draw(P, np.array(u))) for u in (0.0, 0.09, 0.11, 0.49, 0.51, 0.79, 0.81, 0.999)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_equal_words():
    equal = np.array([1.0, 2.0, 2.0, 0.0])
    assert top_k(equal, 1).tolist() == [OUT, 2.0, 2.0, OUT]
    assert top_p(equal, 0.1).tolist() == [OUT, 2.0, OUT, OUT]
    assert top_p(np.zeros(4), 0.5).tolist() == [0.0, 0.0, OUT, OUT]


def test_the_likeliest_word_survives_a_share_that_rounds_away():
    assert 1 - 2.0**-60 == 1  # the sum of all words is not greater
    assert top_p(np.log(P), 2.0**-60).tolist() == [OUT, np.log(0.4), OUT, OUT]


@given(LOGITS)
def test_what_rules_out_nothing(logits):
    np.testing.assert_array_equal(with_temperature(logits, 1.0), logits)
    np.testing.assert_array_equal(top_k(logits, logits.shape[-1]), logits)
    np.testing.assert_array_equal(top_p(logits, 1.0), logits)


def test_the_tail_survives_a_share_of_one():
    # added up from the head, the total is 1.0 long before the last word
    logits = np.array([0.0, -50.0, -100.0])
    np.testing.assert_array_equal(top_p(logits, 1.0), logits)


@given(LOGITS, st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(logits, p):
    weights, kept = softmax(logits), top_p(logits, p) > -np.inf
    for one, inside in zip(np.atleast_2d(weights), np.atleast_2d(kept), strict=True):
        n = inside.sum()
        ranked = np.argsort(-one, kind="stable")
        np.testing.assert_array_equal(np.sort(ranked[:n]), np.flatnonzero(inside))
        assert n >= 1
        slack = 2.0**-50  # rounding of the totals of at most six words
        assert math.fsum(one[ranked[:n]]) >= p - slack
        assert math.fsum(one[ranked[: n - 1]]) < p + slack


@given(LOGITS, st.integers(1, 7))
def test_top_k_keeps_the_likeliest(logits, k):
    kept = top_k(logits, k) > -np.inf
    assert (kept.sum(axis=-1) >= min(k, logits.shape[-1])).all()
    assert (np.where(kept, logits, np.inf).min(axis=-1) > np.where(kept, -np.inf, logits).max(axis=-1)).all()
    np.testing.assert_array_equal(top_k(logits, k)[kept], logits[kept])


@given(LOGITS)
def test_a_low_temperature_is_greedy(logits):
    likeliest = logits == logits.max(axis=-1, keepdims=True)
    others = np.where(likeliest, -np.inf, logits).max(axis=-1, keepdims=True, initial=-np.inf)
    far = np.minimum(logits.max(axis=-1, keepdims=True) - others, 1.0)
    probabilities = softmax(with_temperature(logits, float(max(far.min() / 750, 1e-300))))  # exp(-750) is 0
    np.testing.assert_array_equal(probabilities > 0, likeliest)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
def test_each_word_has_its_share_of_the_unit_interval(weights):
    n = sum(weights)
    u = (np.arange(n) + 0.5) / n
    words = draw(np.broadcast_to(np.array(weights) / n, (n, len(weights))), u)
    np.testing.assert_array_equal(np.bincount(words, minlength=len(weights)), weights)


def test_words_without_probability_are_never_drawn():
    for u in (0.0, 1 - 2.0**-53):
        assert draw(np.array([0.0, 0.1, 0.7, 0.2, 0.0]), np.array(u)) == (1 if u == 0 else 3)


def test_no_words():
    assert top_k(np.zeros((2, 0)), 1).shape == (2, 0)
    assert top_p(np.zeros((2, 0)), 0.5).shape == (2, 0)
    assert with_temperature(np.zeros((2, 0)), 0.5).shape == (2, 0)
    assert draw(np.zeros((0, 3)), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: with_temperature(P, 0.0), ValueError, "temperature=0.0: it is positive; take the argmax instead"),
        (lambda: with_temperature(P, np.nan), ValueError, "temperature=nan: it is positive"),
        (lambda: top_k(P, 0), ValueError, "k=0: at least 1 word stays; pass k >= 1"),
        (lambda: top_p(P, 0.0), ValueError, "p=0.0: the share of the nucleus lies in (0, 1]; pass 1 to rule out nothing"),
        (lambda: top_p(P, 1.1), ValueError, "p=1.1: the share of the nucleus lies in (0, 1]"),
        (lambda: draw(P, np.zeros(2)), ShapeError, "probabilities.shape=(4,), u.shape=(2,): u has one number for each row"),
        (lambda: draw(np.zeros((1, 0)), np.zeros(1)), ShapeError, "probabilities.shape=(1, 0), u.shape=(1,): u has one"),
        (lambda: draw(np.zeros(()), np.zeros(())), ShapeError, "probabilities.shape=(), u.shape=(): u has one"),
        (lambda: draw(P, np.array(1.0)), ValueError, "u=1.0: it lies in [0, 1); pass numbers as those of"),
        (lambda: draw(P, np.array(np.nan)), ValueError, "u=nan: it lies in [0, 1)"),
        (lambda: draw(np.zeros(2), np.array(0.5)), ValueError, "probabilities=[0. 0.]: each row has a positive sum of"),
        (lambda: draw(np.array([-1.0, 2.0]), np.array(0.5)), ValueError, "probabilities=[-1.  2.]: each row has a positive"),
        (lambda: draw(np.array([np.nan, 2.0]), np.array(0.5)), ValueError, "probabilities=[nan  2.]: each row has a"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_top_k_hides_no_nan_and_gives_no_view():
    logits = np.array([1.0, np.nan, 0.0])
    np.testing.assert_array_equal(top_k(logits, 2), [1.0, np.nan, -np.inf])
    assert not np.shares_memory(top_k(logits, 3), logits)
