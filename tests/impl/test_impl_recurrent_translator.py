"""impl.recurrent_translator against the encoder-decoders of the reference on the same weights."""

import re

import numpy as np
import pytest
import torch

from attnspec.impl import recurrent_translator as impl
from attnspec.impl.additive_attention import AdditiveAttention
from attnspec.impl.luong_attention import LuongAttention
from attnspec.impl.recurrent_translator import DecoderState, Memory, RecurrentTranslator
from attnspec.reference.encoder_decoder import encode
from attnspec.reference.reversed_source import reverse_source
from tests.authorities.agreement import agrees
from tests.impl.translators_torch import (
    KINDS,
    LENGTHS,
    MODELS,
    SOURCE,
    TARGET,
    a_model,
    arrays,
    logits_and_table,
    mask_of,
    reference_of,
    rounded,
    tensors,
    translator_of,
)
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import assert_is_gradient
from tests.reference.translators import model, translations

models = pytest.mark.parametrize(("kind", "feeding"), MODELS)


def in_chunks(translator, source, target, lengths, cuts):
    mask = mask_of(lengths, source.shape[1])
    state, parts = translator.start(translator.encode(tensors(source), mask), mask), []
    for words in tensors(target).split(cuts, dim=1):
        if translator.attention is None:
            logits, state = translator.extend(words, state)
            parts.append((logits,))
        else:
            logits, state, table = translator.extend_with_table(words, state)
            parts.append((logits, table))
    return tuple(arrays(torch.cat(part, dim=1)) for part in zip(*parts, strict=True))


@models
def test_at_once_step_by_step_and_in_chunks_it_is_the_reference(kind, feeding):
    @given(translations(kind, feeding), max_examples=30)
    def check(case):
        source, target, parameters, cell, lengths = case
        translator = translator_of(parameters, cell, kind, feeding)
        reference, _ = reference_of(kind, feeding, cell)
        T = target.shape[1]
        agrees(logits_and_table(translator, source, target, lengths), reference, source, target, parameters, lengths)
        for cuts in ([1] * T, [T // 2, T - T // 2]):
            got = in_chunks(translator, source, target, lengths, cuts)
            agrees(got, reference, source, target, parameters, lengths)

    check()


@models
def test_float32_is_within_the_bound_of_float32(kind, feeding):
    @given(translations(kind, feeding), max_examples=15, derandomize=True)
    def check(case):
        source, target, parameters, cell, lengths = rounded(case)
        translator = translator_of(parameters, cell, kind, feeding, torch.float32)
        got = logits_and_table(translator, source, target, lengths)
        agrees(got, reference_of(kind, feeding, cell)[0], source, target, parameters, lengths, unit="float32")

    check()


@models
def test_a_reversed_source_gives_the_table_in_the_order_of_the_words(kind, feeding):
    @given(translations(kind, feeding), max_examples=15)
    def check(case):
        source, target, parameters, cell, lengths = case
        translator = translator_of(parameters, cell, kind, feeding, reverse_source=True)
        got = logits_and_table(translator, source, target, lengths)
        back = [arrays(impl.reverse_source(torch.tensor(t).mT, None if lengths is None else torch.tensor(lengths)).mT)
                for t in got[1:]]  # fmt: skip
        reference, _ = reference_of(kind, feeding, cell)
        agrees((got[0], *back), reference, reverse_source(source, lengths), target, parameters, lengths)

    check()


@given(translations("none"), max_examples=30)
def test_memory_is_what_the_encoder_of_the_reference_hands_on(case):
    source, _, parameters, cell, lengths = case
    memory = translator_of(parameters, cell, "none").encode(tensors(source), mask_of(lengths, source.shape[1]))
    assert isinstance(memory, Memory)
    agrees(arrays(tuple(memory)), encode, source, parameters, cell, lengths)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "gru_reset_before"])  # relu has a kink
@models
def test_gradients_are_the_central_differences_of_the_reference(kind, feeding, cell):
    sizes = {"V": 3, "W": 3, "M": 2, "P": 2, "N": 1, "A": 2, "L": 1, "R": 2}
    parameters = model(kind, sizes, cell, np.random.default_rng(1), True, feeding)
    source, target = SOURCE[:, :3] % 3, TARGET[:, :2] % 3
    cotangent = np.random.default_rng(2).normal(size=(2, 2, 3))
    translator = translator_of(parameters, cell, kind, feeding)
    lengths = np.array([3, 2])
    translator.logits(tensors(source), tensors(target), mask_of(lengths, 3)).backward(torch.tensor(cotangent))
    got = {name: arrays(parameter.grad) for name, parameter in translator.named_parameters()}
    _, logits = reference_of(kind, feeding, cell)
    assert_is_gradient(lambda p: np.sum(logits(source, target, p, lengths) * cotangent), [got], [parameters])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_no_step_changes_is_computed_once_for_a_source(kind, monkeypatch):
    _, translator = a_model(kind)
    calls = []
    for place in (AdditiveAttention, LuongAttention):
        keys = place.keys
        monkeypatch.setattr(place, "keys", lambda self, states, keys=keys: calls.append(1) or keys(self, states))
    translator.logits(tensors(SOURCE), tensors(TARGET))
    assert calls == [1]
    state = translator.start(translator.encode(tensors(SOURCE)))
    for words in tensors(TARGET).split(1, dim=1):
        _, state = translator.extend(words, state)
    assert calls == [1, 1]


@pytest.mark.parametrize(
    ("kind", "feeding", "calls"), [("none", True, 1), ("dot", False, 1), ("dot", True, 3), ("additive", True, 3)]
)
def test_the_decoder_reads_all_steps_at_once_where_none_waits_for_another(kind, feeding, calls, monkeypatch):
    _, translator = a_model(kind, feeding)
    steps, forward = [], translator.decoder.forward
    monkeypatch.setattr(translator.decoder, "forward", lambda x, *rest: steps.append(x.shape[1]) or forward(x, *rest))
    translator.logits(tensors(SOURCE), tensors(TARGET))
    assert len(steps) == calls  # fmt: skip


@models
def test_sizes_of_zero(kind, feeding):
    parameters, translator = a_model(kind, feeding)
    reference, _ = reference_of(kind, feeding, "lstm")
    nothing = np.zeros((2, 0), dtype=np.int64)
    cases = (
        (SOURCE, nothing, LENGTHS),
        (nothing, TARGET, None),
        (SOURCE, TARGET, np.array([0, 4])),
        (SOURCE[:0], TARGET[:0], None),
    )
    for source, target, lengths in cases:
        got = logits_and_table(translator, source, target, lengths)
        agrees(got, reference, source, target, parameters, lengths)
    table = logits_and_table(translator, SOURCE, TARGET, np.array([0, 4]))[-1]
    assert kind == "none" or (table[0] == 0).all()


@models
def test_names_of_parameters_are_those_of_the_glossary(kind, feeding):
    parameters, translator = a_model(kind, feeding)
    assert set(translator.state_dict()) == set(parameters)
    small = RecurrentTranslator(4, 3, 4, attention=kind, input_feeding=feeding, bias=False)
    plain = {name for name in parameters if not name.endswith("bias") and ".reverse." not in name and ".1." not in name}
    assert set(small.state_dict()) == plain
    assert small.state_dict()["target.embedding.weight"].shape == (4, 3)
    assert kind not in ("additive", "concat") or small.state_dict()["attention.key.weight"].shape == (4, 4)


def raises(message, call, *args, **kwargs):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(*args, **kwargs)


def test_errors():
    raises("V=0, M=3, N=4, target_V=5, target_M=3, A=4: sizes are 1 or more", RecurrentTranslator, 0, 3, 4, target_V=5)
    raises("V=4, M=3, N=4, target_V=4, target_M=3, A=0: sizes are 1 or more", RecurrentTranslator, 4, 3, 4, A=0)
    raises("attention=cosine: attention is one of none, additive,", RecurrentTranslator, 4, 3, 4, attention="cosine")
    raises("N=3: two directions share N; use an even N", RecurrentTranslator, 4, 3, 3, bidirectional=True)
    plain, attends = RecurrentTranslator(4, 3, 4), RecurrentTranslator(4, 3, 4, attention="dot")
    ids, words = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3) > 0
    raises("source=[3]: sentences are [B,T]; add an axis", plain.logits, ids[0], ids)
    raises("target=[3]: sentences are [B,T]; add an axis", plain.logits, ids, ids[0])
    raises("source_mask=[2, 2], source=[2, 3]: a mask has one entry", plain.encode, ids, words[:, 1:])
    raises("mask=torch.float32: a mask is boolean, or 1 for a word;", plain.encode, ids, words.float())
    raises("source_mask=[2, 2], states=[2, 3, 4]: a mask has", attends.start, attends.encode(ids), words[:, 1:])
    raises("target=[1, 3], B=2: words are [B,T]", plain.logits, ids, ids[:1])
    raises("target=[3]: sentences are [B,T]; add", plain.extend, ids[0], plain.start(plain.encode(ids)))
    for call in (plain.logits_with_table, lambda *_: plain.extend_with_table(ids, plain.start(plain.encode(ids)))):
        raises("attention=none: only attention gives a table;", call, ids, ids)
    with pytest.raises(IndexError):
        plain.encode(ids + 4)


# Defects: each must break the agreement with the reference that holds without it.
def without_mask(step):
    def bad(self, x, state, lengths):
        seeing = DecoderState(state.layers, state.fed, (*state.source[:2], state.source[2] | True))
        return step(self, x, seeing, lengths)

    return bad


def never_fed(step):
    def bad(self, x, state, lengths):
        out, table, new = step(self, x, state, lengths)
        return out, table, DecoderState(new.layers, state.fed, new.source)

    return bad


def looks_with_the_first_layer(step):
    def bad(self, x, state, lengths):
        first = tuple(array.flip(0) for array in state.layers)
        context, table = self.attention(first[0][-1][:, None], *state.source[::2], state.source[1])
        out, layers = self.decoder(torch.cat([x, context], dim=2), state=state.layers)
        return out, table, DecoderState(layers, None, state.source)

    return bad


def query_before_context(self, contexts, queries):
    return torch.tanh(self.combine(torch.cat([queries, contexts], dim=2)))


def directions_apart(encoding):
    def bad(self, source, mask=None):
        states, context = encoding(self, source, mask)
        return Memory(states, tuple(array.unflatten(2, (2, -1)).flip(2).flatten(2) for array in context))

    return bad


DEFECTS = {
    "no mask": ("additive", RecurrentTranslator, "_step", without_mask(RecurrentTranslator._step)),
    "no mask, luong": ("dot", RecurrentTranslator, "_step", without_mask(RecurrentTranslator._step)),
    "never fed": ("general", RecurrentTranslator, "_step", never_fed(RecurrentTranslator._step)),
    "first layer": ("additive", RecurrentTranslator, "_step", looks_with_the_first_layer(RecurrentTranslator._step)),
    "query before context": ("concat", LuongAttention, "join", query_before_context),
    "directions in another order": ("none", RecurrentTranslator, "encode", directions_apart(RecurrentTranslator.encode)),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_seen(defect, monkeypatch):
    kind, place, name, bad = DEFECTS[defect]
    parameters, translator = a_model(kind)
    reference, _ = reference_of(kind, True, "lstm")

    def check():
        got = logits_and_table(translator, SOURCE, TARGET, LENGTHS)
        agrees(got, reference, SOURCE, TARGET, parameters, LENGTHS)

    check()
    monkeypatch.setattr(place, name, bad)
    with pytest.raises(AssertionError, match=r"error .* > bound"):
        check()
