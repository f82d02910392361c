import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.encoder_decoder import encode
from attnspec.reference.luong_decoder import luong_logits, luong_start, luong_step
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.translators import model, translations

SIZES = {"V": 4, "W": 5, "M": 3, "P": 2, "N": 3, "A": 2, "L": 1, "R": 1}
TERMS = 400  # up to 2 layers, 4 steps, 20 summands each, twice
SCORES = ("dot", "general", "concat")


@st.composite
def luong_cases(draw, feeding=None):
    score = draw(st.sampled_from(SCORES), label="score")
    feeding = draw(st.booleans(), label="input feeding") if feeding is None else feeding
    source, inputs, parameters, cell, lengths = draw(translations(score, feeding))
    return source, inputs, parameters, {"cell": cell, "score": score, "lengths": lengths, "input_feeding": feeding}


def some_model(score="general", **changes):
    return model(score, {**SIZES, **changes}, "lstm", np.random.default_rng(0))


def start(source, parameters, options):
    return luong_start(source, parameters, options["cell"], options["lengths"])


def test_known_answer():
    # the decoder shows 0, so both states weigh 1/2; s~ = tanh(c) with c = ln 2
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    parameters = {
        "source.embedding.weight": np.arctanh([[0.5], [2 * math.log(2) - 0.5]]), "target.embedding.weight": np.array([[9.0]]),
        "encoder.0.input.weight": one, "encoder.0.hidden.weight": zero, "decoder.0.input.weight": np.zeros((1, 2)),
        "decoder.0.hidden.weight": zero, "output.weight": np.array([[1.0], [-5.0]]),
        "attention.combine.weight": np.array([[1.0, 0.0]]),
    }  # fmt: skip
    source, inputs = np.array([[0, 1]]), np.array([[0, 0]])
    logits, alphas = luong_logits(source, inputs, parameters, "rnn", "dot")
    assert_close(alphas, np.full((1, 2, 2), 0.5))
    assert_close(logits, [[[0.6, -3.0]] * 2])
    # with the fed s~ as the only input, s = tanh(s~ of the step before) and is what is shown
    shown = parameters | {
        "attention.combine.weight": np.array([[0.0, 1.0]]),
        "decoder.0.input.weight": np.array([[1.0, 1.0]]),
    }
    shown["target.embedding.weight"] = np.array([[math.log(2)]])
    first = math.tanh(0.6)  # s = tanh(ln 2 + 0), s~ = tanh(s)
    second = math.tanh(math.tanh(math.log(2) + first))
    assert_close(luong_logits(source, inputs, shown, "rnn", "dot")[0][..., 0], [[first, second]])


@given(luong_cases())
def test_teacher_forced_logits_are_those_of_the_steps(case):
    source, inputs, parameters, options = case
    logits, alphas = luong_logits(source, inputs, parameters, **options)
    states, state = start(source, parameters, options)
    for t in range(inputs.shape[1]):
        one, state, alpha = luong_step(inputs[:, t], state, states, parameters, **options)
        assert_close(one, logits[:, t], terms=TERMS)
        assert_close(alpha, alphas[:, t], terms=TERMS)


@given(luong_cases(feeding=True))
def test_feeding_through_weights_of_zero_is_not_feeding(case):
    source, inputs, parameters, options = case
    P = parameters["target.embedding.weight"].shape[1]
    from_token = parameters["decoder.0.input.weight"][:, :P]
    deaf = np.concatenate([from_token, 0 * parameters["decoder.0.input.weight"][:, P:]], axis=1)
    fed = luong_logits(source, inputs, parameters | {"decoder.0.input.weight": deaf}, **options)
    options["input_feeding"] = False
    plain = luong_logits(source, inputs, parameters | {"decoder.0.input.weight": from_token}, **options)
    for one, other in zip(fed, plain, strict=True):
        assert_close(one, other, terms=TERMS)


@given(translations("dot"))
def test_dot_is_general_with_the_identity(case):
    source, inputs, parameters, cell, lengths = case
    identity = {"attention.weight": np.eye(parameters["output.weight"].shape[1])}
    dot = luong_logits(source, inputs, parameters, cell, "dot", lengths)
    general = luong_logits(source, inputs, parameters | identity, cell, "general", lengths)
    for one, other in zip(dot, general, strict=True):
        np.testing.assert_array_equal(one, other)


@given(luong_cases())
def test_padding_changes_no_row(case):
    source, inputs, parameters, options = case
    options["lengths"] = np.arange(len(source)) % source.shape[1] + 1
    logits, alphas = luong_logits(source, inputs, parameters, **options)
    for b, n in enumerate(options["lengths"]):
        alone = luong_logits(source[[b], :n], inputs[[b]], parameters, **{**options, "lengths": None})
        assert_close(logits[[b]], alone[0], terms=TERMS)
        assert_close(alphas[[b], :, :n], alone[1], terms=TERMS)
        assert (alphas[b, :, n:] == 0).all()


@given(luong_cases())
def test_a_word_does_not_reach_earlier_logits_or_alignments(case):
    source, inputs, parameters, options = case
    before = luong_logits(source, inputs, parameters, **options)
    for t in range(inputs.shape[1]):
        changed = inputs.copy()
        changed[:, t] = (changed[:, t] + 1) % parameters["output.weight"].shape[0]
        after = luong_logits(source, changed, parameters, **options)
        for one, other in zip(after, before, strict=True):
            np.testing.assert_array_equal(one[:, :t], other[:, :t])


@pytest.mark.parametrize("score", SCORES)
def test_a_word_reaches_its_own_alignment(score):
    # where Bahdanau's alignment of a step does not know that step's word
    source, inputs, parameters = np.array([[0, 1, 2]]), np.array([[0, 1, 2]]), some_model(score)
    before = luong_logits(source, inputs, parameters, score=score)
    after = luong_logits(source, np.array([[0, 1, 4]]), parameters, score=score)
    assert (after[1][:, 2] != before[1][:, 2]).all()
    assert (after[0][:, 2] != before[0][:, 2]).all()


@given(luong_cases())
def test_alignments_are_shares_one_for_each_pair(case):
    source, inputs, parameters, options = case
    _, alphas = luong_logits(source, inputs, parameters, **options)
    assert alphas.shape == (*inputs.shape, source.shape[1])
    assert (alphas >= 0).all()
    assert_close(alphas.sum(2), np.ones(inputs.shape), terms=source.shape[1])


@given(luong_cases())
def test_it_starts_from_what_the_encoder_hands_on_and_feeds_zeros(case):
    source, _, parameters, options = case
    states, (*state, fed) = start(source, parameters, options)
    want, context = encode(source, parameters, options["cell"], options["lengths"])
    np.testing.assert_array_equal(states, want)
    for one, other in zip(state, context, strict=True):
        np.testing.assert_array_equal(one, other)
    assert fed.shape == (1, *context[0].shape[1:])
    assert (fed == 0).all()


def test_the_batch_is_axis_one_of_every_array_of_the_state():
    # so that a beam search can reorder hypotheses with one np.take for all arrays
    parameters, source, inputs = some_model(L=2), np.array([[0, 1], [2, 3], [1, 1]]), np.array([[0], [1], [2]])
    states, state = luong_start(source, parameters)
    _, state, _ = luong_step(inputs[:, 0], state, states, parameters)
    order = np.array([2, 0, 0])
    reordered = tuple(np.take(array, order, axis=1) for array in state)
    one = luong_step(inputs[order, 0], reordered, states[order], parameters)
    other = luong_step(inputs[:, 0], state, states, parameters)
    assert_close(one[0], other[0][order], terms=TERMS)


@pytest.mark.parametrize("feeding", [True, False])
def test_sizes_of_zero(feeding):
    parameters = model("general", SIZES, "lstm", np.random.default_rng(0), feeding=feeding)
    logits, alphas = luong_logits(np.zeros((2, 3), int), np.zeros((2, 0), int), parameters, input_feeding=feeding)
    assert (logits.shape, alphas.shape) == ((2, 0, 5), (2, 0, 3))
    logits, alphas = luong_logits(np.zeros((0, 3), int), np.zeros((0, 2), int), parameters, input_feeding=feeding)
    assert (logits.shape, alphas.shape) == ((0, 2, 5), (0, 2, 3))


def test_errors():
    parameters, source, inputs = some_model(), np.zeros((1, 2), int), np.zeros((1, 2), int)
    lacking = {name: array for name, array in parameters.items() if not name.startswith("attention.combine")}
    with pytest.raises(ValueError, match=r"parameters=\[\]: missing \['weight'\]"):
        luong_logits(source, inputs, lacking)
    with pytest.raises(ValueError, match=r"parameters=\['weight'\]: missing \[\], unknown \['weight'\]"):
        luong_logits(source, inputs, parameters, score="dot")
    with pytest.raises(ShapeError, match=r"inputs.shape=\(2,\): inputs has the 2 axes \[B,T\]"):
        luong_logits(source, inputs[0], parameters)
    states, state = luong_start(source, parameters)
    with pytest.raises(ShapeError, match=r"tokens.shape=\(1, 2\): tokens has the 1 axes \[B\]"):
        luong_step(inputs, state, states, parameters)
    with pytest.raises(ShapeError, match=r"M=5 in x and M=2 in input.weight"):
        luong_logits(source, inputs, model("general", SIZES, "lstm", np.random.default_rng(0), feeding=False))


def test_nothing_is_broadcast_over_the_batch():
    parameters = some_model()
    states, state = luong_start(np.zeros((2, 3), int), parameters)
    with pytest.raises(ShapeError, match=r"B=2 in states and B=1 in lengths: B is one size"):
        luong_step(np.zeros(2, int), state, states, parameters, lengths=np.array([1]))
    with pytest.raises(ShapeError, match=r"h.shape=\(1, 2, .\): the state is \[R,B,N\] = \(1, 1, .\); stack"):
        luong_step(np.zeros(1, int), state, states, parameters)
    with pytest.raises(ShapeError, match=r"state\[-1\].shape=\(1, 1, .\): the last of the state is s~, \[1,B,N\]"):
        luong_step(np.zeros(2, int), (*state[:-1], state[-1][:, :1]), states, parameters)
    lacking = {name: array for name, array in parameters.items() if name != "output.weight"}
    with pytest.raises(ValueError, match=r"missing \['weight'\]"):
        luong_logits(np.zeros((2, 3), int), np.zeros((2, 1), int), lacking | {"output.bias": np.zeros(3)})
