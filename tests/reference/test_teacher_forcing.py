import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.cross_entropy import cross_entropy
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import softmax
from attnspec.reference.teacher_forcing import log_probability, padded_targets, shift_right, teacher_forced_logits
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.prefix_model import START, PrefixModel

END, PAD = 1, 2


@st.composite
def cases(draw):
    """A model, and targets [B,T] of its words."""
    B, T, V = draw(st.integers(1, 3), label="B"), draw(st.integers(1, 4), label="T"), draw(st.integers(3, 5), label="V")
    seed = draw(st.integers(0, 2**32 - 1), label="seed")
    return PrefixModel(V, seed), np.random.default_rng(seed).integers(0, V, (B, T))


def test_known_answers():
    targets = padded_targets([[5, 6], [], [7]], END, PAD)
    assert targets.tolist() == [[5, 6, END], [END, PAD, PAD], [7, END, PAD]]
    assert shift_right(targets, START).tolist() == [[START, 5, 6], [START, END, PAD], [START, 7, END]]
    assert padded_targets([np.array([3])], END, PAD).tolist() == [[3, END]]
    assert shift_right(np.zeros((2, 0), int), START).shape == (2, 0)


@given(cases())
def test_loss_is_the_mean_of_the_stepwise_log_p(case):  # SQ1
    model, targets = case
    logits = teacher_forced_logits(model.step, model.begin(len(targets)), targets, START)
    log_p = [np.log(softmax(model.logits((b, START, *targets[b, :t])))[targets[b, t]]) for b, t in np.ndindex(targets.shape)]
    assert_close(cross_entropy(logits, targets), -np.mean(log_p), terms=logits.size)
    assert model.steps == targets.shape[1]


@given(cases(), st.data())
def test_a_target_does_not_reach_its_own_logits(case, data):  # SQ2
    model, targets = case
    t = data.draw(st.integers(0, targets.shape[1] - 1))
    other = np.where(np.arange(targets.shape[1]) >= t, (targets + 1) % model.V, targets)
    one, two = (teacher_forced_logits(model.step, model.begin(len(y)), y, START) for y in (targets, other))
    np.testing.assert_array_equal(one[:, : t + 1], two[:, : t + 1])
    assert (one[:, t + 1 :] != two[:, t + 1 :]).all()


@given(cases())
def test_scheduled_sampling_lies_between_teacher_forcing_and_a_free_run(case):  # SQ5
    model, targets = case
    args = (model.step, model.begin(len(targets)), targets, START)
    always, never = np.ones(targets.shape, bool), np.zeros(targets.shape, bool)
    np.testing.assert_array_equal(teacher_forced_logits(*args, always), teacher_forced_logits(*args))
    free = teacher_forced_logits(*args, never)
    said = greedy_search(model.step, model.begin(len(targets)), np.full(len(targets), START), END, targets.shape[1])
    for row, words in zip(np.argmax(free, axis=-1), said, strict=True):
        n = list(words).index(END) + 1 if END in words else len(words)
        np.testing.assert_array_equal(row[:n], words[:n])
    mixed = teacher_forced_logits(*args, np.arange(targets.shape[1]) % 2 + never > 0)
    np.testing.assert_array_equal(mixed[:, :2], teacher_forced_logits(*args)[:, :2])


@given(cases())
def test_log_probability_counts_up_to_the_end(case):
    model, tokens = case
    got = log_probability(model.step, model.begin(len(tokens)), tokens, START, END)
    for b, row in enumerate(tokens):
        n = list(row).index(END) + 1 if END in row else len(row)
        log_p = [np.log(softmax(model.logits((b, START, *row[:t])))[row[t]]) for t in range(n)]
        assert_close(got[b], sum(log_p), terms=10 * n)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda _: padded_targets([], END, PAD), ValueError, "sentences=[]: a batch has a sentence; pass at least one"),
        (lambda _: shift_right(np.zeros(2, int), START), ShapeError, "targets.shape=(2,): targets has the 2 axes [B,T]"),
        (lambda m: teacher_forced_logits(m.step, m.begin(), np.zeros((1, 0), int), START), ShapeError,
         "targets.shape=(1, 0), forced.shape=(1, 0): T >= 1, and forced has one entry for each target; pass both"),
        (lambda m: teacher_forced_logits(m.step, m.begin(), np.zeros((1, 2), int), START, np.ones(2, bool)), ShapeError,
         "targets.shape=(1, 2), forced.shape=(2,): T >= 1"),
        (lambda m: log_probability(m.step, m.begin(), np.array([[9]]), START, END), ValueError,
         "targets=9 at (0, 0): ids lie in 0..V-1 with V=3"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(PrefixModel(3))
    assert str(caught.value).startswith(message)


def test_ids_are_integers_and_forced_is_boolean():
    with pytest.raises(TypeError, match=r"^sentences.dtype=float64: ids are integers; pass integers"):
        padded_targets([[1.5], [2]], 0, 9)
    with pytest.raises(TypeError, match=r"^targets.dtype=float64: ids are integers; pass integers"):
        shift_right(np.array([[1.0]]), 0)
    with pytest.raises(TypeError, match=r"^forced.dtype=int64: it is boolean, True = the right word; pass forced.astype"):
        teacher_forced_logits(None, None, np.array([[1]]), 0, np.array([[1]]))  # refused before the first step
