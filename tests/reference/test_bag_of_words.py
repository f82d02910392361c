import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.bag_of_words import bag_of_words
from attnspec.reference.one_hot import one_hot
from attnspec.reference.vocabulary import vocabulary, word_ids
from tests.reference.drawn import given

DOCUMENT = st.lists(st.sampled_from("abcde"))
KNOWN = ("a", "b", "c")


def test_known_answers():
    corpus = [["the", "cat", "saw", "the", "dog"], ["dog"], []]
    words = vocabulary(corpus)
    assert words == ("cat", "dog", "saw", "the")
    assert bag_of_words(corpus, words).tolist() == [[1, 1, 1, 2], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert bag_of_words(corpus, words, presence=True).tolist() == [[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_unknown_words_are_dropped_or_counted_as_declared():
    assert bag_of_words([["a", "x", "y"]], ("a", "?")).tolist() == [[1, 0]]
    assert bag_of_words([["a", "x", "y"]], ("a", "?"), unknown="?").tolist() == [[1, 2]]
    assert bag_of_words([["a", "x", "y"]], ("a", "?"), presence=True, unknown="?").tolist() == [[1, 1]]


@given(DOCUMENT, DOCUMENT, st.randoms())
def test_counts_add_up_and_forget_the_order(one, other, random):  # TX2
    apart = bag_of_words([one, other], KNOWN)
    np.testing.assert_array_equal(bag_of_words([one + other], KNOWN)[0], apart[0] + apart[1])
    shuffled = random.sample(one, len(one))
    np.testing.assert_array_equal(bag_of_words([shuffled], KNOWN)[0], apart[0])
    assert apart[0].sum() == sum(word in KNOWN for word in one)
    assert bag_of_words([one], KNOWN, unknown="a").sum() == len(one)


@given(DOCUMENT)
def test_counts_are_sums_of_one_hots_and_presence_their_maximum(document):
    rows = one_hot(word_ids([word for word in document if word in KNOWN], KNOWN), 3)
    np.testing.assert_array_equal(bag_of_words([document], KNOWN)[0], rows.sum(axis=0))
    np.testing.assert_array_equal(bag_of_words([document], KNOWN, presence=True)[0], rows.max(axis=0, initial=0))


def test_an_empty_corpus_has_no_rows():
    assert bag_of_words([], KNOWN).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([["a"]], KNOWN, False, "?"), ValueError, "unknown='?': it is one of the V=3 words; add it to the vocabulary"),
        ((["a b"], KNOWN), TypeError, "document='a b': it is a sequence of words; pass its split()"),
        (([["a"]], ("a", "a")), ValueError, "vocabulary has 'a' twice"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error) as caught:
        bag_of_words(*arguments)
    assert str(caught.value).startswith(message)
