import math

import numpy as np
import pytest

from attnspec.reference.additive_attention import additive_attention
from attnspec.reference.bahdanau_decoder import bahdanau_logits, bahdanau_start, bahdanau_step
from attnspec.reference.encoder_decoder import encode, encoder_decoder_logits
from attnspec.reference.parameters import part
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.translators import model, translations

SIZES = {"V": 4, "W": 5, "M": 3, "P": 2, "N": 3, "A": 2, "L": 1, "R": 1}
TERMS = 400  # up to 2 layers, 4 steps, 20 summands each, twice


def some_model(**changes):
    return model("additive", {**SIZES, **changes}, "lstm", np.random.default_rng(0))


def test_known_answer():
    # v = 0: every step reads the mean of the states 0.1 and 2 ln 2 - 0.1 - 1/2, which is ln 2 - 1/4
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    first, second = 0.1, 2 * math.log(2) - 0.6
    parameters = {
        "source.embedding.weight": np.arctanh([[first], [second]]), "target.embedding.weight": np.array([[0.25]]),
        "encoder.0.input.weight": one, "encoder.0.hidden.weight": zero, "decoder.0.input.weight": np.ones((1, 2)),
        "decoder.0.hidden.weight": zero, "output.weight": np.array([[1.0], [-5.0]]),
        "attention.query.weight": one, "attention.key.weight": one, "attention.score.weight": np.zeros(1),
    }  # fmt: skip
    logits, alphas = bahdanau_logits(np.array([[0, 1]]), np.array([[0, 0]]), parameters, "rnn")
    assert_close(alphas, np.full((1, 2, 2), 0.5))
    assert_close(logits, [[[0.6, -3.0]] * 2])  # tanh(1/4 + ln 2 - 1/4) = 3/5


@given(translations("additive"))
def test_teacher_forced_logits_are_those_of_the_steps(case):
    source, inputs, parameters, cell, lengths = case
    logits, alphas = bahdanau_logits(source, inputs, parameters, cell, lengths)
    states, state = bahdanau_start(source, parameters, cell, lengths)
    for t in range(inputs.shape[1]):
        one, state, alpha = bahdanau_step(inputs[:, t], state, states, parameters, cell, lengths)
        np.testing.assert_array_equal(one, logits[:, t])
        np.testing.assert_array_equal(alpha, alphas[:, t])


@given(translations("additive"))
def test_a_step_changes_nothing_that_it_was_given(case):
    source, inputs, parameters, cell, lengths = case
    states, state = bahdanau_start(source, parameters, cell, lengths)
    before = [array.copy() for array in (states, *state)]
    bahdanau_step(inputs[:, 0], state, states, parameters, cell, lengths)
    for one, other in zip(before, (states, *state), strict=True):
        np.testing.assert_array_equal(one, other)


@given(translations("additive"))
def test_padding_changes_no_row(case):
    source, inputs, parameters, cell, _ = case
    lengths = np.arange(len(source)) % source.shape[1] + 1
    logits, alphas = bahdanau_logits(source, inputs, parameters, cell, lengths)
    for b, n in enumerate(lengths):
        alone = bahdanau_logits(source[[b], :n], inputs[[b]], parameters, cell)
        assert_close(logits[[b]], alone[0], terms=TERMS)
        assert_close(alphas[[b], :, :n], alone[1], terms=TERMS)
        assert (alphas[b, :, n:] == 0).all()
        poisoned = source.copy()
        poisoned[b, n:] = 0
        np.testing.assert_array_equal(bahdanau_logits(poisoned, inputs, parameters, cell, lengths)[0], logits)


@given(translations("additive"))
def test_a_word_reaches_neither_earlier_logits_nor_its_own_alignment(case):
    source, inputs, parameters, cell, lengths = case
    before = bahdanau_logits(source, inputs, parameters, cell, lengths)
    for t in range(inputs.shape[1]):
        changed = inputs.copy()
        changed[:, t] = (changed[:, t] + 1) % parameters["output.weight"].shape[0]
        after = bahdanau_logits(source, changed, parameters, cell, lengths)
        np.testing.assert_array_equal(after[0][:, :t], before[0][:, :t])
        np.testing.assert_array_equal(after[1][:, : t + 1], before[1][:, : t + 1])


def test_a_word_reaches_the_next_alignment():
    source, inputs, parameters = np.array([[0, 1, 2]]), np.array([[0, 1, 2]]), some_model()
    before = bahdanau_logits(source, inputs, parameters)
    after = bahdanau_logits(source, np.array([[4, 1, 2]]), parameters)
    assert (after[0] != before[0]).all()
    assert (after[1][:, 1:] != before[1][:, 1:]).all()


@given(translations("additive"))
def test_alignments_are_shares_one_for_each_pair(case):
    source, inputs, parameters, cell, lengths = case
    _, alphas = bahdanau_logits(source, inputs, parameters, cell, lengths)
    assert alphas.shape == (*inputs.shape, source.shape[1])
    assert (alphas >= 0).all()
    assert_close(alphas.sum(2), np.ones(inputs.shape), terms=source.shape[1])


@given(translations("additive"))
def test_without_weights_for_the_context_it_is_the_plain_encoder_decoder(case):
    source, inputs, parameters, cell, lengths = case
    P = parameters["target.embedding.weight"].shape[1]
    from_token = parameters["decoder.0.input.weight"][:, :P]
    blind = np.concatenate([from_token, 0 * parameters["decoder.0.input.weight"][:, P:]], axis=1)
    logits, _ = bahdanau_logits(source, inputs, parameters | {"decoder.0.input.weight": blind}, cell, lengths)
    plain = {name: array for name, array in parameters.items() if not name.startswith("attention.")}
    want = encoder_decoder_logits(source, inputs, plain | {"decoder.0.input.weight": from_token}, cell, lengths)
    assert_close(logits, want, terms=TERMS)


@given(translations("additive"))
def test_it_starts_from_what_the_encoder_hands_on(case):
    source, _, parameters, cell, lengths = case
    (states, state), (want, context) = (f(source, parameters, cell, lengths) for f in (bahdanau_start, encode))
    np.testing.assert_array_equal(states, want)
    for one, other in zip(state, context, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sizes_of_zero():
    parameters = some_model()
    logits, alphas = bahdanau_logits(np.zeros((2, 3), int), np.zeros((2, 0), int), parameters)
    assert (logits.shape, alphas.shape) == ((2, 0, 5), (2, 0, 3))
    logits, alphas = bahdanau_logits(np.zeros((0, 3), int), np.zeros((0, 2), int), parameters)
    assert (logits.shape, alphas.shape) == ((0, 2, 5), (0, 2, 3))
    assert bahdanau_logits(np.zeros((1, 0), int), np.zeros((1, 2), int), parameters)[1].shape == (1, 2, 0)
    _, alphas = bahdanau_logits(np.zeros((1, 2), int), np.zeros((1, 2), int), parameters, lengths=np.array([0]))
    assert (alphas == 0).all()


def test_errors():
    parameters, source, inputs = some_model(), np.zeros((1, 2), int), np.zeros((1, 2), int)
    lacking = {name: array for name, array in parameters.items() if not name.startswith("attention")}
    with pytest.raises(ValueError, match=r"missing \['attention'\], unknown \[\]"):
        bahdanau_logits(source, inputs, lacking)
    with pytest.raises(ValueError, match=r"unknown \['weight'\]"):
        bahdanau_logits(source, inputs, parameters | {"attention.weight": np.zeros((3, 3))})
    with pytest.raises(ShapeError, match=r"inputs.shape=\(2,\): inputs has the 2 axes \[B,T\]"):
        bahdanau_logits(source, inputs[0], parameters)
    states, state = bahdanau_start(source, parameters)
    with pytest.raises(ShapeError, match=r"tokens.shape=\(1, 2\): tokens has the 1 axes \[B\]"):
        bahdanau_step(inputs, state, states, parameters)
    with pytest.raises(ValueError, match=r"lengths=\[3\]: each lies in 0..S with S=2"):
        bahdanau_step(inputs[0, :1], state, states, parameters, lengths=np.array([3]))


def test_it_looks_with_what_the_last_layer_shows_not_with_its_memory_or_the_layers_below():
    parameters, source, tokens = some_model(L=2), np.array([[0, 1, 2]]), np.array([1])
    states, (h, c) = bahdanau_start(source, parameters)
    alpha = bahdanau_step(tokens, (h, c), states, parameters)[2]
    np.testing.assert_array_equal(alpha, additive_attention(h[-1][:, None], states, part(parameters, "attention"))[1][:, 0])
    below = np.stack([h[0] + 1, h[1]])
    np.testing.assert_array_equal(bahdanau_step(tokens, (below, c + 1), states, parameters)[2], alpha)
    assert (bahdanau_step(tokens, (h[::-1], c), states, parameters)[2] != alpha).all()


def test_nothing_is_broadcast_over_the_batch():
    parameters = some_model()
    states, state = bahdanau_start(np.zeros((2, 3), int), parameters)
    with pytest.raises(ShapeError, match=r"B=2 in states and B=1 in lengths: B is one size"):
        bahdanau_step(np.zeros(2, int), state, states, parameters, lengths=np.array([1]))
    with pytest.raises(ShapeError, match=r"h.shape=\(1, 2, .\): the state is \[R,B,N\] = \(1, 1, .\); stack"):
        bahdanau_step(np.zeros(1, int), state, states, parameters)
    with pytest.raises(ShapeError, match=r"B=2 in queries and B=1 in states"):
        bahdanau_step(np.zeros(2, int), state, states[:1], parameters)
    with pytest.raises(TypeError, match=r"lengths.dtype=float64: lengths count keys; pass integers"):
        bahdanau_step(np.zeros(2, int), state, states, parameters, lengths=np.array([np.nan, 1]))
    lacking = {name: array for name, array in parameters.items() if name != "output.weight"}
    with pytest.raises(ValueError, match=r"missing \['weight'\]"):
        bahdanau_logits(np.zeros((2, 3), int), np.zeros((2, 1), int), lacking | {"output.bias": np.zeros(3)})
