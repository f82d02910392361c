import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.vocabulary import check_ids, vocabulary, word_ids
from tests.reference.drawn import given

CORPORA = st.lists(st.lists(st.text(max_size=2)), min_size=1).filter(any)


def test_known_answers():
    corpus = [["on", "the", "mat"], [], ["The", "mat"]]
    assert vocabulary(corpus) == ("The", "mat", "on", "the")
    assert word_ids(["mat", "the", "mat"], vocabulary(corpus)).tolist() == [1, 3, 1]
    assert word_ids(["dog", "on"], vocabulary(corpus), unknown_id=0).tolist() == [0, 2]
    assert word_ids([], ("a",)).tolist() == []


@given(CORPORA)
def test_ids_name_the_words(corpus):
    words = vocabulary(corpus)
    for document in corpus:
        ids = check_ids("ids", word_ids(document, words), len(words))
        assert [words[v] for v in ids] == document


def test_no_ids_are_accepted_of_any_type():
    assert check_ids("ids", np.zeros((2, 0)), 0).shape == (2, 0)
    assert check_ids("ids", np.zeros((2, 0)), 0).dtype == np.int64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: vocabulary([]), ValueError, "corpus of 0 documents without a word: a vocabulary has a word; pass some text"),
        (lambda: vocabulary([[], []]), ValueError, "corpus of 2 documents without a word"),
        (lambda: vocabulary([["a"], "b c"]), TypeError, "corpus[1]='b c': a document is a sequence of words"),
        (lambda: word_ids("a b", ("a",)), TypeError, "words='a b': they are a sequence of words; pass words.split()"),
        (lambda: word_ids(["a", "c"], ("a", "b")), ValueError, "words[1]='c': it is not among the V=2 words; pass"),
        (lambda: word_ids(["a"], ("a", "b", "a")), ValueError, "vocabulary has 'a' twice: a word has one id; remove one"),
        (lambda: word_ids(["b"], ("b", "a", "a")), ValueError, "vocabulary has 'a' twice: a word has one id; remove one"),
        (lambda: check_ids("ids", np.array([[0, 1], [2, 0]]), 2), ValueError,
         "ids=2 at (1, 0): ids lie in 0..V-1 with V=2; map unknown words"),
        (lambda: check_ids("padding_id", np.array(-1), 2), ValueError, "padding_id=-1 at (): ids lie in 0..V-1 with V=2"),
        (lambda: check_ids("ids", np.array([0.0]), 2), TypeError, "ids.dtype=float64: ids are integers; pass integers"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
