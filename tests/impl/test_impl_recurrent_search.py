"""The states of impl.recurrent_translator: searches, impl's own greedy search, any schedule of extend, reorder and fork."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from attnspec.impl.decoding import greedy
from attnspec.impl.recurrent_translator import DecoderState, RecurrentTranslator
from attnspec.reference.beam_search import beam_search
from attnspec.reference.greedy_search import greedy_search
from tests.authorities.agreement import agrees
from tests.impl.translators_torch import (
    LENGTHS,
    MODELS,
    SOURCE,
    a_model,
    arrays,
    mask_of,
    reference_of,
    reference_reorder,
    reference_step,
    translator_of,
)
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.translators import translations

CELLS = ("rnn", "lstm", "gru", "gru_reset_before")  # dead units of relu make words of equal score
models = pytest.mark.parametrize(("kind", "feeding"), MODELS)


def started(translator, source, lengths):
    mask = mask_of(lengths, source.shape[1])
    return translator.start(translator.encode(torch.tensor(source), mask), mask)


def step_of(translator):
    """A step of the reference's searches that asks the model of torch."""

    def step(token, state):
        logits, state = translator.extend(torch.tensor(token)[:, None], state)
        return arrays(logits[:, 0]), state

    return step


@models
def test_searches_find_what_the_reference_finds(kind, feeding):
    @given(
        translations(kind, feeding, CELLS), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.7]), max_examples=25
    )
    def check(case, limit, beams, alpha):
        source, inputs, parameters, cell, lengths = case
        translator = translator_of(parameters, cell, kind, feeding)
        step, first = reference_step(kind, feeding, cell, source, parameters, lengths)
        state = started(translator, source, lengths)
        start, end = inputs[:, 0], int(inputs[0, -1])
        want = greedy_search(step, first, start, end, limit)
        np.testing.assert_array_equal(greedy_search(step_of(translator), state, start, end, limit), want)
        free = greedy(translator, started(translator, source, lengths), torch.tensor(start)[:, None], end, limit)
        np.testing.assert_array_equal(free.tokens, want)
        tokens, scores = beam_search(step, first, start, end, limit, beams, reference_reorder, alpha)
        own = beam_search(step_of(translator), state, start, end, limit, beams, reorder(translator), alpha)
        np.testing.assert_array_equal(own[0], tokens)
        assert_close(own[1], scores, terms=400)  # up to 2 layers, 5 steps, 20 summands each, twice

    check()  # fmt: skip


def reorder(translator):
    return lambda state, index: translator.reorder(state, torch.tensor(index))


@models
def test_any_schedule_of_extend_reorder_and_fork_is_the_reference_on_the_words_so_far(kind, feeding):
    @given(translations(kind, feeding), st.data(), max_examples=25)
    def check(case, data):
        source, _, parameters, cell, lengths = case
        translator = translator_of(parameters, cell, kind, feeding)
        state, rows = started(translator, source, lengths), np.arange(len(source))
        words, kept, reference = [[] for _ in rows], [], last(reference_of(kind, feeding, cell)[1])
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        for act in data.draw(st.lists(st.sampled_from(["extend", "extend", "reorder", "fork", "back"]), max_size=6)):
            if act == "extend":
                new = rng.integers(0, parameters["output.weight"].shape[0], size=(len(rows), rng.integers(0, 4)))
                real = rng.random(new.shape) < rng.choice([0.5, 1.0])
                mask = None if real.all() else torch.tensor(real)
                logits, state = translator.extend(torch.tensor(new), state, mask)
                words = [[*old, *more[one]] for old, more, one in zip(words, new, real, strict=True)]
                for b, row in enumerate(rows):
                    own = None if lengths is None else lengths[[row]]
                    said = np.array([words[b]], dtype=np.int64)
                    agrees(
                        arrays(logits[b : b + 1])[:, real[b]], reference, source[[row]], said, parameters, own, real[b].sum()
                    )
            elif act == "reorder":
                index = rng.integers(0, len(rows), size=rng.integers(1, 4))
                state, rows, words = translator.reorder(state, torch.tensor(index)), rows[index], [words[i] for i in index]
            elif act == "fork":
                kept.append((translator.fork(state), rows, words))
            elif kept:
                state, rows, words = kept.pop()

    check()


def last(reference):
    """The logits of the last T words."""

    def logits(source, words, parameters, lengths, T):
        return reference(source, words, parameters, lengths)[:, words.shape[1] - T :]

    return logits


def held(state):
    """All arrays of a state, with their names."""
    fed = () if state.fed is None else (state.fed,)
    return (*state.layers, *fed, *state.source)


def middle(kind, feeding):
    """A model in the middle of a sentence."""
    _, translator = a_model(kind, feeding)
    state = started(translator, SOURCE, LENGTHS)
    return translator, translator.extend(torch.tensor([[1, 2], [4, 0]]), state)[1]


def check_apart(translator, state, index):
    """What is made of a state shares no memory with it, and is made of all of it."""
    copies = [translator.fork(state), translator.reorder(state, torch.tensor([0, 1])), translator.reorder(state, index)]
    before = [array.clone() for array in held(state)]
    for one in copies[:2]:
        for array, same in zip(held(one), before, strict=True):
            assert torch.equal(array, same)
    for array in held(copies[2])[2:]:
        assert array.shape[0] == len(index)
    for one in copies:
        for array in held(one):
            array.fill_(1)
    for array, same in zip(held(state), before, strict=True):
        assert torch.equal(array, same), "a copy writes into the state that it was made of"


@models
def test_reorder_and_fork_do_not_alias(kind, feeding):
    translator, state = middle(kind, feeding)
    with torch.no_grad():
        check_apart(translator, state, torch.tensor([1, 1, 0]))


@models
def test_extend_changes_nothing_that_it_was_given(kind, feeding):
    translator, state = middle(kind, feeding)
    before = [array.clone() for array in held(state)]
    translator.extend(torch.tensor([[3, 1], [2, 2]]), state)
    for array, same in zip(held(state), before, strict=True):
        assert torch.equal(array, same)


def test_greedy_search_stops_when_all_have_ended_and_at_the_limit():
    translator = RecurrentTranslator(4, 3, 4, attention="dot")
    source, prompt = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        translator.output.weight.zero_()
        translator.output.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 1.0]))  # of equal logits the lowest id wins
    state = translator.start(translator.encode(source))
    assert greedy(translator, translator.fork(state), prompt, 2, 3).tokens.tolist() == [[1, 1, 1]] * 2
    assert greedy(translator, state, prompt, 1, 3).tokens.tolist() == [[1]] * 2


# Defects of the states: each must break the agreement or the independence that holds without it.
def forgets_the_source(self, state, index):
    layers = tuple(array.index_select(1, index) for array in state.layers)
    return DecoderState(layers, None if state.fed is None else state.fed[index], state.source)


def forgets_what_was_fed(self, state, index):
    new = state.each(lambda array, axis: array.index_select(axis, index))
    return DecoderState(new.layers, state.fed, new.source)


def shares_everything(self, state):
    return state.each(lambda array, _: array.detach())


DEFECTS = {"forgets the source": forgets_the_source, "forgets what was fed": forgets_what_was_fed}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_reorder_is_seen(defect, monkeypatch):
    translator, state = middle("general", True)
    parameters = {name: arrays(array) for name, array in translator.state_dict().items()}
    source, words = np.array([[3, 1, 0, 0], [0, 1, 2, 3]]), np.array([[4, 0, 1], [1, 2, 1]])
    _, reference = reference_of("general", True, "lstm")

    def check():
        moved = translator.reorder(state, torch.tensor([1, 0]))
        logits, _ = translator.extend(torch.tensor([[1], [1]]), moved)
        agrees(arrays(logits), last(reference), source, words, parameters, np.array([2, 4]), 1)

    check()
    monkeypatch.setattr(RecurrentTranslator, "reorder", DEFECTS[defect])
    with pytest.raises(AssertionError, match=r"error .* > bound"):
        check()


@pytest.mark.parametrize("kind", ["none", "dot"])
def test_a_fork_that_aliases_is_seen(kind, monkeypatch):
    translator, state = middle(kind, True)
    monkeypatch.setattr(RecurrentTranslator, "fork", shares_everything)
    with torch.no_grad(), pytest.raises(AssertionError, match="a copy writes into the state"):
        check_apart(translator, state, torch.tensor([1, 1, 0]))
