import math

import numpy as np
import pytest

from attnspec.reference.embedding import embedding
from attnspec.reference.encoder_decoder import (
    encode,
    encoder_decoder_logits,
    encoder_decoder_start,
    encoder_decoder_step,
)
from attnspec.reference.parameters import part
from attnspec.reference.recurrent import recurrent
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import log_sum_exp, softmax
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.translators import model, translations

SIZES = {"V": 4, "W": 5, "M": 3, "P": 2, "N": 3, "A": 2, "L": 1, "R": 1}
TERMS = 200  # up to 2 layers of 2 runs, 4 steps and 8 summands each, twice


def some_model(**changes):
    return model("none", {**SIZES, **changes}, "lstm", np.random.default_rng(0))


def test_known_answer():
    # the encoder shows tanh of the last embedding, ln 2; the decoder shows tanh(ln 2) = 3/5, then tanh(3/5)
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    parameters = {
        "source.embedding.weight": np.array([[7.0], [math.atanh(math.log(2))]]), "target.embedding.weight": np.array([[9.0]]),
        "encoder.0.input.weight": one, "encoder.0.hidden.weight": zero, "decoder.0.input.weight": zero,
        "decoder.0.hidden.weight": one, "output.weight": np.array([[1.0], [-5.0]]), "output.bias": np.array([0.0, 1.0]),
    }  # fmt: skip
    got = encoder_decoder_logits(np.array([[0, 0, 1]]), np.array([[0, 0]]), parameters, "rnn")
    assert_close(got, [[[0.6, -2.0], [math.tanh(0.6), 1 - 5 * math.tanh(0.6)]]])
    context = encoder_decoder_start(np.array([[0, 1, 0]]), parameters, "rnn", np.array([2]))
    assert_close(context[0], [[[math.log(2)]]])


@given(translations("none"))
def test_teacher_forced_logits_are_those_of_the_steps(case):
    source, inputs, parameters, cell, lengths = case
    logits = encoder_decoder_logits(source, inputs, parameters, cell, lengths)
    state = encoder_decoder_start(source, parameters, cell, lengths)
    for t in range(inputs.shape[1]):
        one, state = encoder_decoder_step(inputs[:, t], state, parameters, cell)
        assert_close(one, logits[:, t], terms=TERMS)


@given(translations("none"))
def test_the_loss_of_teacher_forcing_is_the_sum_of_the_stepwise_ones(case):
    source, inputs, parameters, cell, lengths = case
    words, gold = inputs[:, :-1], inputs[:, 1:]
    logits = encoder_decoder_logits(source, words, parameters, cell, lengths)
    loss = np.sum(log_sum_exp(logits) - np.take_along_axis(logits, gold[..., None], axis=2)[..., 0])
    state, total = encoder_decoder_start(source, parameters, cell, lengths), 0.0
    for t in range(words.shape[1]):
        one, state = encoder_decoder_step(words[:, t], state, parameters, cell)
        total -= np.log(softmax(one)[np.arange(len(source)), gold[:, t]]).sum()
    assert_close(loss, total, terms=TERMS * gold.size)


@given(translations("none"))
def test_padding_changes_no_row(case):
    source, inputs, parameters, cell, _ = case
    lengths = np.arange(len(source)) % source.shape[1] + 1
    logits = encoder_decoder_logits(source, inputs, parameters, cell, lengths)
    for b, n in enumerate(lengths):
        alone = encoder_decoder_logits(source[[b], :n], inputs[[b]], parameters, cell)
        assert_close(logits[[b]], alone, terms=TERMS)


@given(translations("none"))
def test_a_later_word_does_not_reach_earlier_logits(case):
    source, inputs, parameters, cell, lengths = case
    W = parameters["output.weight"].shape[0]
    before = encoder_decoder_logits(source, inputs, parameters, cell, lengths)
    for t in range(inputs.shape[1]):
        changed = inputs.copy()
        changed[:, t] = (changed[:, t] + 1) % W
        after = encoder_decoder_logits(source, changed, parameters, cell, lengths)
        np.testing.assert_array_equal(after[:, :t], before[:, :t])


def test_every_word_reaches_its_own_and_later_logits():
    source, inputs, parameters = np.array([[0, 1]]), np.array([[0, 1, 2]]), some_model()
    before = encoder_decoder_logits(source, inputs, parameters)
    for t in range(3):
        changed = inputs.copy()
        changed[0, t] = 4
        assert (encoder_decoder_logits(source, changed, parameters)[:, t:] != before[:, t:]).all()
    for s in range(2):
        other = source.copy()
        other[0, s] = 3
        assert (encoder_decoder_logits(other, inputs, parameters) != before).all()


@given(translations("none"))
def test_the_context_is_the_last_state_with_the_runs_of_a_layer_joined(case):
    source, _, parameters, cell, lengths = case
    encoder = part(parameters, "encoder")
    out, final = recurrent(embedding(source, part(parameters, "source.embedding")), encoder, cell, lengths)
    states, context = encode(source, parameters, cell, lengths)
    np.testing.assert_array_equal(states, out)
    both = "0.reverse.input.weight" in encoder
    for got, array in zip(context, final, strict=True):
        for layer, one in enumerate(got):
            want = np.concatenate(array[2 * layer : 2 * layer + 2], axis=1) if both else array[layer]
            np.testing.assert_array_equal(one, want)
    last = np.full(len(source), source.shape[1]) if lengths is None else lengths
    N = states.shape[2] // (2 if both else 1)
    np.testing.assert_array_equal(context[0][-1][:, :N], states[np.arange(len(source)), last - 1, :N])
    if both:
        np.testing.assert_array_equal(context[0][-1][:, N:], states[:, 0, N:])


def test_sizes_of_zero():
    parameters = some_model()
    assert encoder_decoder_logits(np.zeros((2, 3), int), np.zeros((2, 0), int), parameters).shape == (2, 0, 5)
    assert encoder_decoder_logits(np.zeros((0, 3), int), np.zeros((0, 2), int), parameters).shape == (0, 2, 5)
    assert all((array == 0).all() for array in encoder_decoder_start(np.zeros((2, 0), int), parameters))
    assert all((array == 0).all() for array in encoder_decoder_start(np.ones((1, 2), int), parameters, lengths=np.array([0])))


def test_errors():
    parameters, source, inputs = some_model(), np.zeros((1, 2), int), np.zeros((1, 2), int)

    def check(error, message, source=source, inputs=inputs, parameters=parameters):
        with pytest.raises(error) as caught:
            encoder_decoder_logits(source, inputs, parameters)
        assert message in str(caught.value)

    lacking = {name: array for name, array in parameters.items() if not name.startswith("output")}
    check(ValueError, "missing ['output'], unknown []; pass source, encoder, target", parameters=lacking)
    check(ValueError, "missing [], unknown ['attention']", parameters=parameters | {"attention.bias": np.zeros(2)})
    reverse = parameters | {"decoder.0.reverse.input.weight": np.zeros((12, 2))}
    check(ValueError, "parameters have 'decoder.0.reverse.input.weight': a decoder reads from left", parameters=reverse)
    check(ShapeError, "source.shape=(2,): source has the 2 axes [B,S]", source=source[0])
    check(ShapeError, "inputs.shape=(2,): inputs has the 2 axes [B,T]", inputs=inputs[0])
    check(ValueError, "ids=4 at (0, 0): ids lie in 0..V-1 with V=4", source=source + 4)
    check(ShapeError, "h.shape=(1, 2, 3): the state is [R,B,N] = (1, 1, 3)", source=np.zeros((2, 2), int))
    both, one = some_model(L=2, R=2), some_model(L=2)
    mixed = {name: array for name, array in both.items() if "1.reverse" not in name}
    mixed["encoder.1.input.weight"] = np.zeros((12, 6))
    check(ShapeError, "directions=[2, 1] of the encoder's layers: the decoder's layers start from", parameters=mixed)
    narrow = one | {name: array for name, array in both.items() if name.startswith("encoder")}
    check(ShapeError, "h.shape=(2, 1, 6): the state is [R,B,N] = (2, 1, 3)", parameters=narrow)
    with pytest.raises(ShapeError, match=r"tokens.shape=\(1, 2\): tokens has the 1 axes \[B\]"):
        encoder_decoder_step(inputs, encoder_decoder_start(source, parameters), parameters)
