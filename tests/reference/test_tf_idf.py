import math

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attnspec.reference.shapes import ShapeError
from attnspec.reference.tf_idf import inverse_document_frequency, tf_idf
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

COUNTS = hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 5))
TABLE = np.array([[3, 0, 1], [2, 0, 0], [3, 0, 0], [4, 0, 0], [3, 2, 0], [3, 0, 2]])


def test_known_answers():
    # scikit-learn's user guide, text feature extraction, section "Tf-idf term weighting"
    idf = inverse_document_frequency(TABLE, smooth=False)
    assert_close(idf, [1.0, 1 + math.log(6), 1 + math.log(3)])
    np.testing.assert_array_equal(np.round(tf_idf(TABLE, idf)[0], 3), [0.819, 0.0, 0.573])
    smooth = inverse_document_frequency(TABLE)
    assert_close(smooth, [1.0, 1 + math.log(7 / 2), 1 + math.log(7 / 3)])
    np.testing.assert_array_equal(np.round(tf_idf(TABLE, smooth)[[0, 4]], 4), [[0.8515, 0.0, 0.5243], [0.5542, 0.8324, 0.0]])


def test_variants():
    counts, idf = np.array([[1, 3, 0]]), np.array([2.0, 1.0, 5.0])
    assert tf_idf(counts, idf, norm=None).tolist() == [[2.0, 3.0, 0.0]]
    assert_close(tf_idf(counts, idf, norm="l1"), [[0.4, 0.6, 0.0]])
    assert_close(tf_idf(counts, idf, norm="l2"), [[2 / math.sqrt(13), 3 / math.sqrt(13), 0.0]])
    assert_close(tf_idf(counts, idf, sublinear=True, norm=None), [[2.0, 1 + math.log(3), 0.0]])


@given(COUNTS, st.integers(2, 5), st.sampled_from(["l1", "l2"]))
def test_repeating_a_document_keeps_its_row(counts, times, norm):  # TX4
    idf = inverse_document_frequency(counts)
    assert_close(tf_idf(times * counts, idf, norm=norm), tf_idf(counts, idf, norm=norm), terms=counts.shape[1])


@given(COUNTS)
def test_rows_have_length_one_or_zero(counts):
    real = (counts > 0).any(axis=1)
    for norm, power in (("l1", 1), ("l2", 2)):
        rows = tf_idf(counts, inverse_document_frequency(counts), norm=norm)
        assert_close((rows**power).sum(axis=1), real.astype(float), terms=counts.shape[1])


@given(COUNTS)
def test_rarer_words_weigh_more(counts):
    idf, df = inverse_document_frequency(counts), (counts > 0).sum(axis=0)
    assert (np.diff(idf[np.argsort(-df, kind="stable")]) >= 0).all()
    assert (idf[df == len(counts)] == 1).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: inverse_document_frequency(np.zeros(3, int)), ShapeError, "counts.shape=(3,): counts has the 2 axes [B,V]"),
        (lambda: inverse_document_frequency(np.zeros((0, 3), int)), ValueError,
         "counts.shape=(0, 3): a corpus has a document; pass at least one row"),
        (lambda: inverse_document_frequency(np.array([[1, -2]])), ValueError, "counts=-2: a count is at least 0"),
        (lambda: inverse_document_frequency(np.array([[1, 0]]), smooth=False), ValueError,
         "df[1]=0: without smoothing each word is in a document; pass smooth=True"),
        (lambda: tf_idf(np.zeros(3, int), np.ones(3)), ShapeError, "counts.shape=(3,): counts has the 2 axes [B,V]"),
        (lambda: tf_idf(np.zeros((1, 3), int), np.ones(2)), ShapeError,
         "idf.shape=(2,): it has one weight for each of the V=3 words"),
        (lambda: tf_idf(np.zeros((1, 3), int), np.ones(3), norm="max"), ValueError, "norm='max': it is one of 'l1', 'l2'"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("count", "text"), [(-1, "-1"), (np.nan, "nan")])
def test_counts_are_counts(count, text):
    counts = np.array([[1, count]])
    for call in (inverse_document_frequency, lambda c: tf_idf(c, np.ones(2))):
        with pytest.raises(ValueError, match=rf"^counts={text}(.0)?: a count is at least 0; pass the rows of bag_of_words"):
            call(counts)
