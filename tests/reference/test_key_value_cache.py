"""Decoding with a cache is the forward of the whole, for any schedule; caches are values that can be kept and reordered."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference import key_value_cache
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import empty_cache, extend, reorder
from attnspec.reference.shapes import ShapeError
from attnspec.reference.transformer import encode, transformer
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import models

KINDS = ("both", "decoder")


def started(model):
    mask = model.masks.get("source_mask")
    memory = None if model.source is None else encode(model.source, model.parameters, mask, **model.options)
    return empty_cache(model.target.shape[0], memory, model.parameters, mask, **model.options)


def decoded(model, cuts):
    """The logits of the target read in pieces, and the last cache."""
    cache, mask, logits = started(model), model.masks.get("target_mask"), []
    edges = [0, *sorted(cuts), model.target.shape[1]]
    for start, stop in pairwise(edges):
        real = None if mask is None else mask[:, start:stop]
        new, cache = extend(model.target[:, start:stop], cache, model.parameters, real, **model.options)
        logits.append(new)
    return np.concatenate(logits, axis=1), cache


def whole(model):
    return transformer(model.source, model.target, model.parameters, **model.arguments)


@given(models(kinds=KINDS), st.lists(st.integers(0, 4), max_size=4))
def test_any_schedule_gives_the_logits_of_the_whole(model, cuts):
    # an empty piece, one word, a prompt and then words, all at once
    got, _ = decoded(model, [min(cut, model.target.shape[1]) for cut in cuts])
    assert_close(got, whole(model), terms=1000)


@given(models(kinds=KINDS))
def test_one_word_at_a_time_gives_the_logits_of_the_whole(model):
    got, _ = decoded(model, range(1, model.target.shape[1]))
    assert_close(got, whole(model), terms=1000)


def test_the_comparison_can_fail(monkeypatch):
    # positions that start from zero at every step, which is the usual mistake
    parameters = {"target.embedding.weight": np.eye(4), "output.weight": np.eye(4)}
    cache = empty_cache(1, None, parameters, heads=1)
    _, cache = extend(np.array([[0]]), cache, parameters, heads=1)
    want = transformer(None, np.array([[0, 1]]), parameters, heads=1)[:, 1:]
    assert_close(extend(np.array([[1]]), cache, parameters, heads=1)[0], want, terms=10)
    monkeypatch.setattr(key_value_cache, "token_positions", lambda real: np.zeros(real.shape, int))
    with pytest.raises(AssertionError, match="error"):
        assert_close(extend(np.array([[1]]), cache, parameters, heads=1)[0], want, terms=10)


@given(models(kinds=KINDS))
def test_cached_keys_and_values_are_those_of_another_schedule(model):
    (_, once), (_, stepped) = decoded(model, []), decoded(model, range(1, model.target.shape[1]))
    np.testing.assert_array_equal(once["real"], stepped["real"])
    for one, other in zip(once["past"], stepped["past"], strict=True):
        for array, want in zip(one, other, strict=True):
            assert array.shape[2] == model.target.shape[1]
            assert_close(array, want, terms=1000)


@given(models(kinds=KINDS))
def test_older_entries_stay_and_the_memory_does_not_grow(model):
    before = started(model)
    _, cache = extend(model.target, before, model.parameters, **model.options)
    kept = [(k.copy(), v.copy()) for k, v in cache["past"]]
    _, longer = extend(model.target[:, :1], cache, model.parameters, **model.options)
    _, again = extend(model.target[:, :1], cache, model.parameters, **model.options)  # the cache is a value
    T = model.target.shape[1]
    for old, now, new, twice in zip(kept, cache["past"], longer["past"], again["past"], strict=True):
        for i in range(2):
            np.testing.assert_array_equal(now[i], old[i])
            np.testing.assert_array_equal(new[i][:, :, :T], old[i])
            np.testing.assert_array_equal(twice[i], new[i])
    for one, other in zip(before["memory"], longer["memory"], strict=True):
        assert one[0] is other[0]
        assert one[1] is other[1]


@given(models(kinds=KINDS), st.lists(st.integers(0, 1), min_size=0, max_size=3))
def test_reordered_rows_go_on_as_those_rows(model, rows):
    index = np.array([min(row, model.target.shape[0] - 1) for row in rows], dtype=int)
    _, cache = decoded(model, [])
    last = model.target[:, -1:]
    want, _ = extend(last, cache, model.parameters, **model.options)
    got, _ = extend(last[index], reorder(cache, index), model.parameters, **model.options)
    assert_close(got, want[index], terms=1000)


@given(models(kinds=KINDS), max_examples=20)
def test_greedy_search_with_the_cache_is_greedy_search_without(model):
    def cached(token, cache):
        logits, cache = extend(token[:, None], cache, model.parameters, **model.options)
        return logits[:, -1], cache

    def recomputed(token, ids):
        ids = np.concatenate([ids, token[:, None]], axis=1)
        mask = {name: one for name, one in model.masks.items() if name == "source_mask"}
        return transformer(model.source, ids, model.parameters, **mask, **model.options)[:, -1], ids

    B = model.target.shape[0]
    got = greedy_search(cached, started(model), np.zeros(B, int), 1, 5)
    np.testing.assert_array_equal(got, greedy_search(recomputed, np.zeros((B, 0), int), np.zeros(B, int), 1, 5))


def test_errors():
    parameters = {"target.embedding.weight": np.ones((3, 2))}
    cache = empty_cache(2, None, parameters, heads=1)
    with pytest.raises(ShapeError, match="B=1 in tokens and B=2 in the cache: B is one size"):
        extend(np.array([[0]]), cache, parameters, heads=1)
    with pytest.raises(ShapeError, match=r"tokens.shape=\(2,\): tokens has the 2 axes \[B,T\]"):
        extend(np.array([0, 1]), cache, parameters, heads=1)
    with pytest.raises(ValueError, match=r"mask.shape=\(2, 2\): it has one entry for each token; pass the shape \(2, 1\)"):
        extend(np.array([[0], [1]]), cache, parameters, np.ones((2, 2), bool), heads=1)
    with pytest.raises(ValueError, match=r"memory_mask.shape=\(1, 2\): it has one entry for each token"):
        empty_cache(1, np.ones((1, 3, 2)), parameters, np.ones((1, 2), bool), heads=1)
    for row in (2, -1):
        with pytest.raises(ValueError, match=rf"index={row} at \(0,\): rows lie in 0..B-1 with B=2; pass rows of the cache"):
            reorder(cache, np.array([row]))
    with pytest.raises(TypeError, match=r"index.dtype=bool: rows are integers; pass integers"):
        reorder(cache, np.array([True, False]))
