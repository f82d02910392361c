import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.reversed_source import reverse_source
from attnspec.reference.shapes import ShapeError
from tests.reference.drawn import given

PAD = 0


def test_known_answer():
    # "students opened their books <pad>" and a sentence of two words
    ids = np.array([[5, 6, 7, 8, PAD], [3, 4, PAD, PAD, PAD]])
    assert reverse_source(ids, np.array([4, 2])).tolist() == [[8, 7, 6, 5, PAD], [4, 3, PAD, PAD, PAD]]
    assert reverse_source(ids).tolist() == ids[:, ::-1].tolist()


@given(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2**32 - 1), st.sampled_from([(), (2,), (0,), (2, 3)]))
def test_undoes_itself_and_leaves_padding_where_it_is(B, T, seed, rest):
    rng = np.random.default_rng(seed)
    source, lengths = rng.normal(size=(B, T, *rest)), rng.integers(0, T + 1, size=B)
    reversed_ = reverse_source(source, lengths)
    np.testing.assert_array_equal(reverse_source(reversed_, lengths), source)
    for row, out, n in zip(source, reversed_, lengths, strict=True):
        np.testing.assert_array_equal(out, np.concatenate([row[:n][::-1], row[n:]]))


@given(st.integers(1, 9))
def test_brings_the_first_words_together_at_the_same_average_distance(T):
    # word t of the target follows T source words; between it and word t of the source lie T steps, or 2 t + 1 when reversed
    position = np.arange(T)[None]
    plain = T + position - position
    shortened = T + position - np.argsort(reverse_source(position))
    assert (plain[0, 0], shortened[0, 0]) == (T, 1)
    assert shortened.tolist() == (2 * position + 1).tolist()
    assert shortened.sum() == plain.sum()


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.bool_])
def test_the_kind_of_numbers_stays(kind):
    assert reverse_source(np.zeros((1, 2), kind)).dtype == kind


@pytest.mark.parametrize(
    ("source", "lengths", "error", "message"),
    [
        (np.zeros(3), None, ShapeError, "source.shape=(3,): source has the axes [B,T,...]; add axes, as source[None]"),
        (np.zeros((2, 3)), np.array([1]), ShapeError, "B=2 in source and B=1 in lengths: B is one size"),
        (np.zeros((2, 3)), np.array([1, 4]), ValueError, "lengths=[1, 4]: each lies in 0..S with S=3"),
    ],
)
def test_errors(source, lengths, error, message):
    with pytest.raises(error) as caught:
        reverse_source(source, lengths)
    assert str(caught.value).startswith(message)


def test_lengths_are_integers():
    with pytest.raises(TypeError, match=r"^lengths.dtype=float64: lengths count keys; pass integers"):
        reverse_source(np.ones((1, 2)), np.array([1.0]))
    assert reverse_source(np.ones((0, 2)), []).shape == (0, 2)
