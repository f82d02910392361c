"""With a window the memory of a cache is a ring, and any program of calls on it does what it does to lists of tokens."""

from __future__ import annotations

import math
import re
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from attnspec.impl import decoder_cache
from attnspec.impl.decoder_cache import DecoderCache
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees
from tests.impl.cache_lists import Lists
from tests.impl.impl_models import model_of, small, started
from tests.reference.drawn_models import Model

CAPACITY = 16


class Programs(RuleBasedStateMachine):
    """States and the lists that they stand for; a state goes on after it was forked or reordered."""

    states = Bundle("states")

    @initialize(
        target=states, window=st.sampled_from([None, 1, 2, 3, 5]), piece=st.integers(1, 3), B=st.integers(1, 3),
        positions=st.sampled_from(["sinusoidal", "learned", "rotary", "alibi"]), encoder=st.integers(0, 1),
        T=st.integers(0, 11), padded=st.booleans(),
    )  # fmt: skip
    def start(self, window: int | None, piece: int, B: int, positions: str, encoder: int, T: int, padded: bool) -> Any:
        self.rng = np.random.default_rng(0)
        options = {"window": window, "positions": positions, "encoder_layers": encoder, "decoder_layers": 1}
        self.net = small(max_length=CAPACITY, order="pre", **options)
        source = self.rng.integers(11, size=(B, 3)) if encoder else None
        masks = {"source_mask": np.arange(3) >= np.arange(B)[:, None]} if encoder else {}
        model = model_of(self.net, source=source, target=np.zeros((B, 0), int), masks=masks)
        slots = CAPACITY if window is None else min(CAPACITY, window - 1 + piece)
        one = [started(self.net, model, piece=piece), Lists(model, slots)]
        self.extend(one, T, padded)
        return one

    @rule(one=states, T=st.integers(1, 6), padded=st.booleans())
    def extend(self, one: Any, T: int, padded: bool) -> None:
        state, lists = one
        ids = self.rng.integers(11, size=(len(lists.words), T))
        real = self.rng.random(ids.shape) < (0.6 if padded else 2)
        if max(len(words) + n for words, n in zip(lists.words, real.sum(axis=1), strict=True)) > CAPACITY:
            return
        got, one[0] = self.net.extend(torch.tensor(ids), state, torch.tensor(real) if padded else None)
        lists.extend(ids, real)
        lists.check(got.numpy(), real)

    @rule(one=states, back=st.integers(0, 5), alike=st.booleans())
    def crop(self, one: Any, back: int, alike: bool) -> None:
        words = one[1].words
        taken = np.full(len(words), back) if alike else self.rng.integers(back + 1, size=len(words))
        lengths = np.maximum(0, max(map(len, words)) - taken)
        self.crop_to(one, lengths, int(lengths[0]) if alike else torch.tensor(lengths))
        self.extend(one, 1, padded=False)

    def crop_to(self, one: Any, lengths: np.ndarray, argument: Any) -> None:
        state, lists = one
        if lists.can_crop(lengths):
            one[0] = self.net.crop(state, argument)
            lists.crop(lengths)
        else:
            with pytest.raises(ValueError, match="has left the ring"):
                self.net.crop(state, argument)

    @rule(target=states, one=states, n=st.integers(1, 3))
    def reorder(self, one: Any, n: int) -> Any:
        index, lists = self.rng.integers(len(one[1].words), size=n), one[1].fork()
        lists.reorder(index)
        return self.went_on([self.net.reorder(one[0], torch.tensor(index)), lists])

    @rule(target=states, one=states)
    def fork(self, one: Any) -> Any:
        return self.went_on([self.net.fork(one[0]), one[1].fork()])

    def went_on(self, new: Any) -> Any:
        self.extend(new, 1, padded=False)
        return new


def test_any_program_does_what_it_does_to_lists_of_tokens():
    settings = hypothesis.settings(max_examples=30, stateful_step_count=8, deadline=None, derandomize=True)
    run_state_machine_as_test(Programs, settings=settings)


@pytest.mark.parametrize("seed", range(50))
def test_crop_knows_what_the_ring_holds(seed):
    """A cache without layers against lists: many more programs of this kind than models have time for."""
    rng = np.random.default_rng(seed)
    B, window, piece = rng.integers(1, [3, 6, 5])
    state = DecoderCache(B, 0, 40, torch.device("cpu"), int(window), piece=int(piece))
    lists, refused = Lists(Model(None, np.zeros((B, 0)), {}, {}, {"window": window}, 1), state.slots), 0
    for _ in range(40):
        real = rng.random((B, rng.integers(1, piece + 1))) < 0.7
        if max(len(words) + piece for words in lists.words) <= 40:
            state.finish(state.plan(*real.shape, torch.tensor(real)))
            lists.extend(np.zeros(real.shape, int), real)
        lengths = rng.integers([max(0, len(words) - 6) for words in lists.words], 41)
        if lists.can_crop(lengths):
            state.crop(torch.tensor(lengths))
            lists.crop(lengths)
        else:
            refused += 1
            with pytest.raises(ValueError, match="has left the ring"):
                state.crop(torch.tensor(lengths))
        assert state.seen.tolist() == [len(words) for words in lists.words]
    assert refused > 0 or window == 1


def fixed_program(positions: str) -> None:
    """Once round the ring, in pieces and in single steps, aligned and ragged, with each call once."""
    run = Programs()
    one = run.start(window=3, piece=2, B=2, positions=positions, encoder=0, T=4, padded=False)
    for T in (1, 1):
        run.extend(one, T, False)
    run.crop_to(one, np.array([6, 0]), torch.tensor([6, 0]))
    for T in (1, 5, 1, 1):
        run.extend(one, T, False)
    other = run.reorder(one, 3)
    run.crop(one, 1, True)
    for T in (1, 1):
        run.extend(one, T, False)
    run.crop(one, 2, False)
    for T in (1, 3):
        run.extend(one, T, True)
    run.crop(one, 5, True)
    third = run.fork(one)
    for each in (other, one, third):
        run.extend(each, 1, False)


def smaller(self: DecoderCache, *args: Any) -> None:
    INIT(self, *args)
    self.slots -= self.slots < self.capacity


def places_of_slots(call: Any) -> Any:
    return (call.seen - 1).clamp(min=0) % 4


def unchecked(self: DecoderCache, *_: Any) -> None:
    return


def stale(token: Any, *others: Any) -> Any:
    return SIGHT(token.clamp(min=0), *others)


def younger(self: DecoderCache, longest: int, padded: bool) -> Any:
    found, shown = READ(self, longest, padded)
    return slice(found.start + (shown > 1), found.stop), shown - (shown > 1)


INIT, SIGHT = DecoderCache.__init__, decoder_cache.sight_of_slots
READ, BY_AGE = DecoderCache._read, decoder_cache.sight_by_age
DEFECTS = {
    "a ring too small by one": (DecoderCache, "__init__", smaller),
    "positions counted from slots": (decoder_cache.Call, "places", property(places_of_slots)),
    "stale slots are seen": (decoder_cache, "sight_of_slots", stale),
    "one key too few is read": (DecoderCache, "_read", younger),
    "the ring is off by one": (decoder_cache, "sight_by_age", lambda *args: BY_AGE(*args).roll(1, dims=-1)),
    "crop goes as far as it likes": (DecoderCache, "_check_held", unchecked),
}


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "alibi"])
def test_a_fixed_program(positions):
    fixed_program(positions)


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_are_noticed(monkeypatch, name):
    where, attribute, wrong = DEFECTS[name]
    monkeypatch.setattr(where, attribute, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        fixed_program("sinusoidal")


def words(B: int, T: int) -> torch.Tensor:
    return (torch.arange(B * T) * 7 % 11).view(B, T)


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
@pytest.mark.parametrize("piece", [1, 3])
def test_long_sequences_step_by_step_and_at_once(positions, piece):
    net, ids = small(window=4, positions=positions, max_length=40), words(2, 40)
    model, state, found = model_of(net), net.start(2, piece=piece), []
    for t in range(40):
        found.append(net.extend(ids[:, t : t + 1], state)[0])
    for got in (torch.cat(found, dim=1), net.extend(ids, net.start(2, piece=piece))[0]):
        agrees(got.numpy(), transformer, None, ids.numpy(), model.parameters, **model.arguments)


@pytest.mark.parametrize(("window", "slots"), [(None, 40), (5, 7), (38, 40), (60, 40)])
def test_memory_is_that_of_the_formula(window, slots):
    net = small(window=window, max_length=40, kv_heads=2)
    state = net.start(3, piece=3)
    assert state.nbytes == 0
    _, state = net.extend(words(3, 9), state)
    where = [memory.data_ptr() for memory in state.layers]
    for _ in range(20):
        _, state = net.extend(words(3, 1), state)
    L, B, G, D, size = 2, 3, 2, net.config.channels, 8
    assert state.nbytes == 2 * L * B * G * slots * D * size
    assert [memory.data_ptr() for memory in state.layers] == where


def test_a_step_needs_no_mask_or_a_slice_of_one_that_is_there():
    net = small(window=4, max_length=40)
    for piece, T in ((1, 12), (3, 3), (3, 12)):
        _, state = net.extend(words(2, T), net.start(2, piece=piece))
        sights = [state.sight(state.plan(2, 1, None), net.config, torch.zeros(1).double()) for _ in range(2)]
        if piece == 1 or state.slots > T:
            assert sights[0] == (None, None, False)
        else:
            memory = [one.bias.untyped_storage().data_ptr() for one in sights]
            assert memory == [state.by_age.untyped_storage().data_ptr()] * 2
            assert (sights[0].bias == 0).sum() == 4


def test_a_prompt_without_padding_needs_no_mask():
    net = small(window=4, max_length=40)
    for T, causal in ((4, True), (5, False)):
        sight = net.start(2).sight(net.start(2).plan(2, T, None), net.config, torch.zeros(1).double())
        assert sight.causal == causal
        assert (sight.mask is None) == causal


def poisoned(net: Any, steps: int) -> torch.Tensor:
    """The logits of the real tokens of rows of unlike lengths, in memory that held NaN."""
    state = net.start(2, piece=2)
    _, state = net.extend(words(2, 0), state)
    for memory in state.layers:
        memory.fill_(math.nan)
    found = []
    for _ in range(steps):
        real = torch.tensor([[True, True], [False, True]])
        found.append(net.extend(words(2, 2), state, real)[0][real])
    found.append(net.extend(words(2, 1), state)[0].flatten(0, 1))
    return torch.cat(found)


def without_zeros(self: DecoderCache, *args: Any) -> Any:
    return PLAN(self, *args)._replace(unwritten=slice(0))


PLAN = DecoderCache.plan


@pytest.mark.parametrize("window", [None, 3, 6])
def test_memory_that_nobody_has_written_does_not_matter(monkeypatch, window):
    net = small(window=window, max_length=40)
    for steps in (1, 2, 5):
        assert poisoned(net, steps).isfinite().all()
    monkeypatch.setattr(DecoderCache, "plan", without_zeros)
    assert poisoned(net, 5).isnan().any()


def test_a_crop_that_comes_too_late_leaves_the_state_as_it_was():
    net = small(window=3, max_length=40)
    _, state = net.extend(words(2, 10), net.start(2, piece=2))
    twin = net.fork(state)
    rule = "a window before this length has left the ring; crop to `least` or to 0, or start with a larger piece"
    for length, shown in ((7, [7, 7]), (torch.tensor([10, 3]), [10, 3])):
        message = f"length={shown}, least=[8, 8], piece=2: {rule}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            net.crop(state, length)
    assert torch.equal(net.extend(words(2, 1), state)[0], net.extend(words(2, 1), twin)[0])
    state = net.crop(state, torch.tensor([0, 10]))
    assert state.seen.tolist() == [0, 10]


def test_a_wrong_word_in_a_later_piece_leaves_the_state_as_it_was():
    net = small(window=3, max_length=40)
    _, state = net.extend(words(2, 10), net.start(2, piece=2))
    twin, ids = net.fork(state), words(2, 6)
    ids[1, 5] = 11
    with pytest.raises(IndexError):
        net.extend(ids, state)
    with pytest.raises(ValueError, match="capacity"):
        net.extend(words(2, 31), state)
    assert torch.equal(net.extend(words(2, 1), state)[0], net.extend(words(2, 1), twin)[0])


def test_a_piece_is_a_number_of_tokens():
    message = "piece=0: a ring takes tokens; use 1 or more, or leave it out"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small(window=3).start(1, piece=0)
