import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.shapes import ShapeError
from tests.reference.drawn import given
from tests.reference.prefix_model import START, PrefixModel

END = 1


def table(rows):
    """step of a model that looks at the previous word only."""
    return lambda token, state: (np.array(rows)[token], state)


def test_known_answer():
    step = table([[0.0, 0.0, 1.0, 0.0], [9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    assert greedy_search(step, None, 0, END, 9).tolist() == [[2, 3, END]]
    assert greedy_search(step, None, 0, END, 2).tolist() == [[2, 3]]
    # a sentence that has ended waits for the others
    assert greedy_search(step, None, np.array([3, 0]), END, 9).tolist() == [[END, END, END], [2, 3, END]]


def test_of_equal_logits_the_lowest_id_wins():
    assert greedy_search(table([[0.0, 0.0, 5.0, 5.0]] * 4), None, 0, END, 1).tolist() == [[2]]


@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_a_lower_limit_gives_a_prefix(seed, B, n, m):  # SQ5
    model = PrefixModel(4, seed, like_end=1.0)
    short, long = (greedy_search(model.step, model.begin(B), np.full(B, START), END, k) for k in sorted((n, m)))
    np.testing.assert_array_equal(long[:, : short.shape[1]], short)
    assert short.shape[1] in (min(n, m), long.shape[1])


@given(st.integers(0, 99), st.integers(1, 3))
def test_each_word_is_the_likeliest_after_the_words_before(seed, B):
    model = PrefixModel(4, seed, like_end=1.0)
    tokens = greedy_search(model.step, model.begin(B), np.full(B, START), END, 5)
    assert model.steps == tokens.shape[1]
    for b, row in enumerate(tokens):
        ended = np.cumsum(row == END) - (row == END) > 0
        for t, v in enumerate(row):
            assert v == END if ended[t] else v == np.argmax(model.logits((b, START, *row[:t])))
    alone = [greedy_search(model.step, [(b,)], START, END, 5)[0] for b in range(B)]
    for row, one in zip(tokens, alone, strict=True):
        np.testing.assert_array_equal(row[: len(one)], one)


def test_no_sentences():
    assert greedy_search(table([[0.0, 0.0]]), None, np.zeros(0, int), END, 3).shape == (0, 1)


@pytest.mark.parametrize(
    ("step", "limit", "error", "message"),
    [
        (table([[0.0, 0.0]]), 0, ValueError, "limit=0: it is at least 1; pass limit >= 1"),
        (table([[0.0]]), 1, ValueError, "end_id=1 at (): ids lie in 0..V-1 with V=1"),
        (lambda _, state: (np.zeros(3), state), 1, ShapeError,
         "logits.shape=(3,): step gives [B,V], a row for each of the B=1 tokens; check step"),
        (lambda _, state: (np.zeros((2, 3)), state), 1, ShapeError, "logits.shape=(2, 3): step gives [B,V]"),
        (lambda _, state: (np.zeros((1, 3, 1)), state), 1, ShapeError, "logits.shape=(1, 3, 1): step gives [B,V]"),
    ],
)  # fmt: skip
def test_errors(step, limit, error, message):
    with pytest.raises(error) as caught:
        greedy_search(step, None, 0, END, limit)
    assert str(caught.value).startswith(message)


def test_the_start_is_an_id_or_one_for_each_sentence():
    def step(token, state):
        return np.zeros((len(token), 3)), state

    with pytest.raises(ShapeError, match=r"^start_id.shape=\(2, 1\): start_id has the 1 axes \[B\]"):
        greedy_search(step, None, np.zeros((2, 1), int), 0, 2)
    with pytest.raises(TypeError, match=r"^start_id.dtype=float64: ids are integers; pass integers"):
        greedy_search(step, None, 1.0, 0, 2)
