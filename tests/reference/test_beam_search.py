import itertools
import re

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.beam_search import beam_search, length_penalty
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.shapes import ShapeError
from attnspec.reference.teacher_forcing import log_probability
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.prefix_model import START, PrefixModel

END = 1
SEEDS = st.integers(0, 2**32 - 1)
PENALTIES = st.tuples(st.sampled_from([0.0, 1.0, 0.6, -0.5]), st.sampled_from([0.0, 5.0]))


def search(model, limit, beams, alpha=0.0, offset=0.0, B=1):
    starts = np.full(B, START)
    return beam_search(model.step, model.begin(B), starts, END, limit, beams, model.reorder, alpha, offset)


def sentences(V, limit):
    """Every sentence that ends, or is cut, after at most `limit` words, filled up with the end symbol."""
    every = itertools.product(range(V), repeat=limit)
    return sorted({(*row[: row.index(END)], *[END] * (limit - row.index(END))) if END in row else row for row in every})


def rescored(model, rows, alpha, offset, b=0):
    """Scores once more, by feeding each sentence word by word."""
    rows = np.array(rows)
    log_p = [log_probability(model.step, [(b,)], row[None], START, END)[0] for row in rows]
    lengths = [list(row).index(END) + 1 if END in row else len(row) for row in rows]
    return np.array(log_p) / [((offset + n) / (offset + 1)) ** alpha for n in lengths]


def test_known_answer():
    # greedy takes word 2 (0.5) and ends up at 0.5 · 0.4 = 0.2; a beam of two finds word 3 (0.4), then the end (0.9): 0.36
    p = np.array([[0.0, 0.1, 0.5, 0.4], [1.0, 0.0, 0.0, 0.0], [0.3, 0.4, 0.3, 0.0], [0.05, 0.9, 0.05, 0.0]])
    with np.errstate(divide="ignore"):
        logits = np.log(p)

    def step(token, state):
        return logits[token], state

    args = (step, None, 0, END, 2)
    assert greedy_search(*args).tolist() == [[2, END]]
    tokens, scores = beam_search(*args, 1, lambda state, _: state)
    assert tokens.tolist() == [[[2, END]]]
    assert_close(scores, np.log([[0.2]]))
    tokens, scores = beam_search(*args, 2, lambda state, _: state)
    assert tokens.tolist() == [[[3, END], [2, END]]]
    assert_close(scores, np.log([[0.36, 0.2]]))
    # impossible words are no hypotheses: only seven sentences have a probability, the eighth place is empty
    tokens, scores = beam_search(*args, 8, lambda state, _: state)
    assert_close(np.exp(scores), [[0.36, 0.2, 0.15, 0.15, 0.1, 0.02, 0.02, 0.0]])
    assert tokens[0, 7].tolist() == [END, END]


def test_impossible_words_are_not_followed():
    # the end is the only word: nothing is left to ask the model about
    asked = []

    def step(token, state):
        asked.append(len(token))
        return np.array([[-np.inf, 0.0, -np.inf]]).repeat(len(token), axis=0), state

    beam_search(step, None, 0, END, 5, 3, lambda state, _: state)
    assert asked == [1]


def test_of_equal_candidates_the_lower_id_wins():
    # so many that a sort which is not stable would mix them: the end twice as likely as each of the other 40
    logits = np.where(np.arange(41) % 2, np.log(2), 0.0)

    def step(token, state):
        return np.broadcast_to(logits, (len(token), 41)), state

    tokens, scores = beam_search(step, None, 0, END, 1, 41, lambda state, _: state)
    assert tokens[0, :, 0].tolist() == [*range(1, 41, 2), *range(0, 41, 2)]
    assert (np.diff(scores) <= 0).all()


def test_length_penalties():
    assert_close(length_penalty(4, 0.5), 2.0)  # transformers
    assert_close(length_penalty(7, 2.0, 5), 4.0)  # arXiv:1609.08144: (5 + 7)² / (5 + 1)²
    assert length_penalty(9, 0.0, 5) == 1


@given(SEEDS, st.integers(2, 5), st.integers(1, 5), st.sampled_from([0.0, -0.5]), st.integers(1, 3))
def test_a_beam_of_one_is_greedy(seed, V, limit, alpha, B):  # SQ7
    model = PrefixModel(V, seed, like_end=0.5)
    tokens, _ = search(model, limit, 1, alpha, B=B)
    want = greedy_search(model.step, model.begin(B), np.full(B, START), END, limit)
    filled = np.concatenate([want, np.full((B, limit - want.shape[1]), END)], axis=1)
    np.testing.assert_array_equal(tokens[:, 0], filled)


def test_a_beam_of_one_with_a_length_penalty_looks_beyond_the_first_end():
    # after the end (p = 0.6) the search goes on with the other word (0.4), and then only that word is likely
    def step(token, state):
        return np.log([[0.4, 0.6]] if state == 0 else [[0.999, 0.001]]), state + 1

    greedy, none = greedy_search(step, 0, 0, END, 3), beam_search(step, 0, 0, END, 3, 1, lambda state, _: state)[0]
    assert greedy.tolist() == [[END]]
    assert none.tolist() == [[[END, END, END]]]
    assert beam_search(step, 0, 0, END, 3, 1, lambda state, _: state, alpha=1.0)[0].tolist() == [[[0, 0, 0]]]


@given(SEEDS, st.integers(2, 3), st.integers(1, 3), PENALTIES)
def test_an_exhaustive_beam_is_brute_force(seed, V, limit, penalty):  # SQ7
    model = PrefixModel(V, seed, like_end=0.5)
    rows = sentences(V, limit)
    tokens, scores = search(model, limit, V**limit, *penalty)
    want = rescored(model, rows, *penalty)
    best = np.argsort(-want)
    np.testing.assert_array_equal(tokens[0, : len(rows)], np.array(rows)[best])
    assert_close(scores[0, : len(rows)], want[best], terms=20 * limit)
    assert (scores[0, len(rows) :] == -np.inf).all()
    assert (tokens[0, len(rows) :] == END).all()


@given(SEEDS, st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), PENALTIES)
def test_scores_are_rescored_sorted_and_distinct(seed, V, limit, beams, penalty):  # SQ7
    model = PrefixModel(V, seed, like_end=0.5)
    tokens, scores = search(model, limit, beams, *penalty, B=2)
    for b in range(2):
        real = scores[b] > -np.inf
        assert_close(scores[b, real], rescored(model, tokens[b, real], *penalty, b), terms=20 * limit)
        assert (np.diff(scores[b, real]) <= 0).all()
        assert (
            len({tuple(row) for row in tokens[b, real]}) == np.sum(real) == min(beams, len(sentences(V, limit)), np.sum(real))
        )


@given(SEEDS, st.integers(2, 3), st.integers(1, 3))
def test_no_beam_beats_brute_force(seed, V, limit):
    model = PrefixModel(V, seed, like_end=0.5)
    most = search(model, limit, V**limit)[1][0, 0]
    for beams in range(1, V**limit):
        assert search(model, limit, beams)[1][0, 0] <= most


@given(SEEDS, st.integers(1, 4))
def test_sentences_of_a_batch_do_not_meet(seed, beams):
    model = PrefixModel(4, seed, like_end=0.5)
    tokens, scores = search(model, 4, beams, 1.0, B=3)
    for b in range(3):
        alone = beam_search(model.step, [(b,)], START, END, 4, beams, model.reorder, 1.0)
        np.testing.assert_array_equal(tokens[b], alone[0][0])
        np.testing.assert_array_equal(scores[b], alone[1][0])


def test_a_vocabulary_of_the_end_alone():
    tokens, scores = beam_search(lambda *_: (np.zeros((1, 1)), None), None, 0, 0, 3, 2, lambda state, _: state)
    assert tokens.tolist() == [[[0, 0, 0], [0, 0, 0]]]
    assert scores.tolist() == [[0.0, -np.inf]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "limit=0: it is at least 1; pass limit >= 1"),
        ({"beams": 0}, "beams=0: it is at least 1; pass beams >= 1"),
        ({"offset": -1.0}, "offset=-1.0: it is at least 0; pass 0 or 5"),
        ({"end_id": 4}, "end_id=4 at (): ids lie in 0..V-1 with V=3"),
    ],
)
def test_errors(change, message):
    model = PrefixModel(3)
    options = {"start_id": 0, "end_id": END, "limit": 2, "beams": 2, "reorder": model.reorder}
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        beam_search(model.step, model.begin(), **{**options, **change})


def test_starts():
    def step(token, state):
        return np.zeros((len(token), 3)), state

    def reorder(state, index):
        return state

    with pytest.raises(ShapeError, match=r"^start_id.shape=\(2, 1\): start_id has the 1 axes \[B\]"):
        beam_search(step, None, np.zeros((2, 1), int), 0, 2, 2, reorder)
    tokens, scores = beam_search(step, None, np.zeros(0, int), 0, 4, 2, reorder)
    assert (tokens.shape, tokens.dtype, scores.shape) == ((0, 2, 4), np.int64, (0, 2))
    with pytest.raises(ValueError, match=r"^length=0: it is at least 1; pass length >= 1"):
        length_penalty(0, 1.0)
