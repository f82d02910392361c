"""Greedy and beam search find the same with a key/value cache as by reading everything anew at each step."""

import numpy as np
from hypothesis import strategies as st

from attnspec.reference.beam_search import beam_search
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import empty_cache, extend, reorder
from attnspec.reference.transformer import decode, encode, score_words
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import models

START, END, LIMIT = 1, 0, 4


def memory_of(model):
    mask = model.masks.get("source_mask")
    return (None if model.source is None else encode(model.source, model.parameters, mask, **model.options)), mask


def cached(model):
    """step and state: the state is a cache."""
    memory, mask = memory_of(model)
    B = model.target.shape[0]

    def step(token, cache):
        logits, cache = extend(token[:, None], cache, model.parameters, **model.options)
        return logits[:, -1], cache

    return step, empty_cache(B, memory, model.parameters, mask, **model.options), reorder


def anew(model):
    """step and state: the state is the words so far, and the row of the source that each belongs to."""
    memory, mask = memory_of(model)
    B = model.target.shape[0]

    def step(token, state):
        words, rows = np.concatenate([state[0], token[:, None]], axis=1), state[1]
        of_source = (None, None) if memory is None else (memory[rows], None if mask is None else mask[rows])
        read = decode(words, of_source[0], model.parameters, None, of_source[1], **model.options)
        return score_words(read, model.parameters)[:, -1], (words, rows)

    def chosen(state, index):
        return state[0][index], state[1][index]

    return step, (np.zeros((B, 0), dtype=np.int64), np.arange(B)), chosen


@given(models(kinds=("both", "decoder")))
def test_greedy_search(model):
    starts = np.full(model.target.shape[0], START)
    (step, state, _), (other, words, _) = cached(model), anew(model)
    got = greedy_search(step, state, starts, END, LIMIT)
    np.testing.assert_array_equal(got, greedy_search(other, words, starts, END, LIMIT))


@given(models(kinds=("both", "decoder")), st.integers(1, 3), st.sampled_from([0.0, 1.0]))
def test_beam_search(model, beams, alpha):
    starts = np.full(model.target.shape[0], START)
    (step, state, rows), (other, words, chosen) = cached(model), anew(model)
    tokens, scores = beam_search(step, state, starts, END, LIMIT, beams, rows, alpha)
    want, want_scores = beam_search(other, words, starts, END, LIMIT, beams, chosen, alpha)
    np.testing.assert_array_equal(tokens, want)
    assert_close(scores, want_scores, terms=4000)


def test_a_cache_that_is_not_reordered_is_noticed():
    def wrong(state, index):
        return reorder(state, np.arange(len(index)) % state["real"].shape[0])

    rng, differing = np.random.default_rng(0), 0
    for _ in range(5):
        parameters = {"target.embedding.weight": rng.normal(size=(5, 4)), "output.weight": rng.normal(size=(5, 4))}
        maps = {f"{name}.weight": rng.normal(size=(4, 4)) for name in ("q", "k", "v", "o")}
        layer = {"attention": maps, "attention_norm": {"weight": np.ones(4)}, "feed_forward_norm": {"weight": np.ones(4)}}
        layer["feed_forward"] = {"up.weight": rng.normal(size=(3, 4)), "down.weight": rng.normal(size=(4, 3))}
        parameters |= {f"decoder.0.{part}.{name}": w for part, named in layer.items() for name, w in named.items()}

        def step(token, cache, parameters=parameters):
            logits, cache = extend(token[:, None], cache, parameters, heads=2, norm="rms")
            return logits[:, -1], cache

        start = empty_cache(1, None, parameters, heads=2, norm="rms")
        right, _ = beam_search(step, start, START, END, LIMIT, 3, reorder)
        left, _ = beam_search(step, start, START, END, LIMIT, 3, wrong)
        differing += not np.array_equal(right, left)
    assert differing >= 1
