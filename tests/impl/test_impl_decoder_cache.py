"""Decoding with the cache of impl is the forward of the whole, for any program of extend, reorder, crop and fork."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.impl import decoder_cache, embedding
from attnspec.impl.decoder_cache import DecoderCache
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees
from tests.impl.cache_lists import Lists
from tests.impl.impl_models import always, built, masks, model_of, small, started, tensor
from tests.reference.drawn_models import Model, models

KINDS = ("both", "decoder")


def raises(message: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


def in_pieces(net: Any, model: Model, cuts: list[int], state: Any) -> np.ndarray:
    """The logits of the target read in pieces."""
    ids, real, found = tensor(model.target), masks(model).get("target_mask"), []
    for start, stop in pairwise([0, *sorted(cuts), ids.shape[1]]):
        new, state = net.extend(ids[:, start:stop], state, None if real is None else real[:, start:stop])
        found.append(new)
    return torch.cat(found, dim=1).numpy()


@always(models(KINDS), st.lists(st.integers(0, 4), max_size=4), st.integers(1, 4))
def test_any_schedule_gives_the_logits_of_the_reference(model, cuts, piece):
    # an empty piece, one word, a prompt and then words, all at once; padding anywhere; with a window in a ring
    net = built(model)
    got = in_pieces(net, model, [min(cut, model.target.shape[1]) for cut in cuts], started(net, model, piece=piece))
    agrees(got, transformer, model.source, model.target, model.parameters, **model.arguments)


def run(net: Any, model: Model, program: list[tuple[str, int]], rng: np.random.Generator) -> None:
    """Runs a program on a cache and on lists; whatever a step leaves behind goes on with other words."""
    state, left = started(net, model, capacity=16), []
    lists = Lists(model, state.slots)
    for step, n in program:
        B = len(lists.words)
        if step in ("extend", "padded"):
            ids = rng.integers(model.V, size=(B, n))
            real = rng.random((B, n)) < (0.6 if step == "padded" else 2)
            if max(len(words) + r.sum() for words, r in zip(lists.words, real, strict=True)) > 14:
                continue
            got, state = net.extend(torch.tensor(ids), state, None if step == "extend" else torch.tensor(real))
            lists.extend(ids, real)
            lists.check(got.numpy(), real)
            for old in [one for one in left if one.longest < one.capacity]:
                net.extend(torch.tensor(rng.integers(model.V, size=(len(old.seen), 1))), old)
            continue
        if step == "crop":
            lengths = rng.integers(n, n + 2, size=B)
            state = net.crop(state, torch.tensor(lengths))
            lists.crop(lengths)
            continue
        left.append(state)
        if step == "reorder":
            index = rng.integers(B, size=n)
            state = net.reorder(state, torch.tensor(index))
            lists.reorder(index)
        else:
            state = net.fork(state)


STEPS = st.tuples(st.sampled_from(["extend", "padded", "reorder", "crop", "fork"]), st.integers(1, 3))


@always(models(KINDS), st.lists(STEPS, min_size=2, max_size=6), st.integers(0, 2**32 - 1), max_examples=30)
def test_any_program_does_what_it_does_to_lists(model, program, seed):
    run(built(model), model, [("padded", 3), *program, ("extend", 1)], np.random.default_rng(seed))


PROGRAM = [
    ("extend", 2),
    ("fork", 1),
    ("padded", 3),
    ("extend", 2),
    ("reorder", 3),
    ("extend", 1),
    ("crop", 2),
    ("extend", 2),
]


def language_model(**options: Any) -> tuple[Any, Model]:
    net = small(max_length=16, **options)
    return net, model_of(net, target=np.zeros((2, 1), int))


def same_rows(self: DecoderCache, index: Any) -> DecoderCache:
    return REORDER(self, torch.arange(len(index)) % len(self.seen))


def one_off(token: Any, seen: Any, *others: Any) -> Any:
    return SIGHT(token, seen - 1, *others)


def alias(self: DecoderCache) -> DecoderCache:
    new = FORK(self)
    new.layers = self.layers
    return new


def one_length(self: DecoderCache, length: Any) -> DecoderCache:
    return CROP(self, int(length.max()))


def one_too_few(self: DecoderCache) -> DecoderCache:
    new = FORK(self)
    for memory in new.layers:
        memory[:, :, :, self.longest - 1] = 0
    return new


def stale(token: Any, *others: Any) -> Any:
    return SIGHT(token.clamp(min=0), *others)


REORDER, FORK, CROP, SIGHT = DecoderCache.reorder, DecoderCache.fork, DecoderCache.crop, decoder_cache.sight_of_slots
DEFECTS = [
    (decoder_cache, "sight_of_slots", one_off),
    (decoder_cache, "sight_of_slots", stale),
    (embedding, "sinusoidal", lambda places, M: SINUSOIDAL(0 * places, M)),
    (DecoderCache, "reorder", same_rows),
    (DecoderCache, "fork", alias),
    (DecoderCache, "fork", one_too_few),
    (DecoderCache, "crop", one_length),
]
SINUSOIDAL = embedding.sinusoidal


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "alibi"])
@pytest.mark.parametrize("window", [None, 2])
def test_a_fixed_program(positions, window):
    run(*language_model(positions=positions, window=window), PROGRAM, np.random.default_rng(0))


@pytest.mark.parametrize(("where", "name", "wrong"), DEFECTS)
def test_defects_are_noticed(monkeypatch, where, name, wrong):
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError, match="error"):
        run(*language_model(), PROGRAM, np.random.default_rng(0))


@pytest.mark.parametrize("T", [1, 3])
def test_overflow_leaves_the_state_as_it_was(T):
    net = small()
    ids = torch.arange(20).view(2, 10) % 11
    states = [net.start(2, capacity=10) for _ in range(2)]
    _, states[0] = net.extend(ids[:, :9], states[0])
    _, states[1] = net.extend(ids[:, :9], states[1])
    rule = "the tokens of a row must stay within the capacity; crop, or start with a larger one (at most max_length)"
    longer = torch.zeros(2, T + 1, dtype=torch.long)
    raises(f"length=9, longer={10 + T}, capacity=10: {rule}", net.extend, longer, states[0])
    with pytest.raises(IndexError):
        net.extend(torch.full((2, 1), 11), states[0])  # no such word
    got, want = (net.extend(ids[:, 9:], state)[0] for state in states)
    assert torch.equal(got, want)
    real = torch.tensor([[True, False]] * 2)  # padding takes no room
    assert net.extend(longer[:, :2], net.crop(states[0], 9), real)[0].isfinite().all()


def test_unwritten_memory_does_not_matter():
    """NaN in slots that only longer rows have written would spread from behind the mask."""
    net = small()
    ids, real = torch.arange(6).view(2, 3), torch.tensor([[True, True, True], [False, True, False]])
    state = net.start(2)
    net.extend(ids[:, :0], state)
    for layer in state.layers:
        layer.fill_(math.nan)
    got, _ = net.extend(ids, state, real)
    assert got.isfinite().all()


def test_a_window_reads_only_what_it_reaches():
    net = small(window=2)
    state = net.start(1)
    _, state = net.extend(torch.zeros(1, 8, dtype=torch.long), state)
    assert state.plan(1, 1, None).read == slice(7, 9)


def test_reorder_within_a_sentence_shares_the_memory_of_the_source():
    net, source = small(encoder_layers=1), torch.arange(6).view(2, 3)
    real = torch.tensor([[True, True, False], [True, True, True]])
    state = net.start(net.encode(source, real), real)
    state = net.reorder(state, torch.tensor([0, 0, 1, 1]))
    assert net.reorder(state, torch.tensor([1, 1, 3, 2])).memories[0].k is state.memories[0].k
    other = net.reorder(state, torch.tensor([2, 1, 3, 2]))
    assert torch.equal(other.memories[0].v[0], state.memories[0].v[2])


def test_the_keys_and_values_of_the_source_are_computed_once():
    net, source = small(encoder_layers=1), torch.arange(6).view(2, 3)
    with recorded_calls(net.decoder, "memories") as calls:
        state = net.start(net.encode(source))
        first, ids = state.memories[0], torch.tensor([[1], [2]])
        for step in (lambda one: net.crop(one, torch.tensor([0, 1])), net.fork, lambda one: net.reorder(one, ids[:, 0] - 1)):
            state = step(net.extend(ids, state)[1])
            assert state.memories[0].k is first.k
            assert state.memories[0].v is first.v
    assert len(calls) == 1


@contextmanager
def recorded_calls(owner: Any, name: str) -> Iterator[list[Any]]:
    """The arguments of all calls of a method, which goes on as before."""
    calls, method = [], getattr(owner, name)
    setattr(owner, name, lambda *args: calls.append(args) or method(*args))
    yield calls
    delattr(owner, name)


def test_crop_works_in_place():
    net = small()
    _, state = net.extend(torch.zeros(2, 6, dtype=torch.long), net.start(2))
    where = [memory.data_ptr() for memory in state.layers]
    for length, seen in (
        (8, [6, 6]),
        (torch.tensor([9, 4]), [6, 4]),
        (5, [5, 4]),
        (torch.tensor([3, 3]), [3, 3]),
        (0, [0, 0]),
    ):
        assert net.crop(state, length) is state
        assert state.seen.tolist() == seen
        assert (state.shortest, state.longest) == (min(seen), max(seen))
    assert [memory.data_ptr() for memory in state.layers] == where


def test_errors():
    net = small()
    state = net.start(2)
    rule = "a call has the rows of its state; start another state, or reorder this one"
    raises(f"rows=1, state=2: {rule}", net.extend, torch.zeros(1, 1, dtype=torch.long), state)
    rule = "an index counts the rows of the state from 0; pass some of these"
    raises(f"index=[0, 2], rows=2: {rule}", net.reorder, state, torch.tensor([0, 2]))
    rule = "an index holds whole numbers [B']; pass rows of the state"
    raises(f"index=[2], dtype=torch.bool: {rule}", net.reorder, state, torch.tensor([True, False]))
    raises("length=-1: a length counts tokens; use 0 or more", net.crop, state, -1)
    raises("length=-2: a length counts tokens; use 0 or more", net.crop, state, torch.tensor([3, -2]))
    rule = "lengths are whole numbers [B]; pass one for each row of the state, or one number for all"
    raises(f"length=[1], dtype=torch.int64, rows=2: {rule}", net.crop, state, torch.tensor([1]))
    raises(f"length=[2], dtype=torch.float32, rows=2: {rule}", net.crop, state, torch.tensor([1.0, 2.0]))
    raises("batch=0: a batch has rows; use 1 or more", net.start, 0)
    rule = "a state holds between 1 and max_length tokens a row; use such a capacity, or None for max_length"
    raises(f"capacity=13, max_length=12: {rule}", net.start, 1, 13)
    rule = "ids are whole numbers [B,T]; add an axis, or take the argmax"
    raises(f"ids=[2], dtype=torch.int64: {rule}", net.extend, torch.zeros(2, dtype=torch.long), state)
