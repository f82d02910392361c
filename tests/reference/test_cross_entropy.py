import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.cross_entropy import cross_entropy, cross_entropy_backward, perplexity, token_losses
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import log_sum_exp, softmax
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

SMOOTHINGS = st.sampled_from([0.0, 0.1, 1.0])


@st.composite
def cases(draw):
    """logits [B,T,V] and targets [B,T], some of them padding (-1), of which one at least is real."""
    B, T, V = (draw(st.integers(1, 4), label=name) for name in "BTV")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    targets = np.where(rng.random((B, T)) < 0.3, -1, rng.integers(0, V, (B, T)))
    targets[-1, -1] = 0
    return rng.normal(size=(B, T, V)), targets


def test_known_answers():
    logits = np.log(np.array([[[1.0, 2.0, 1.0], [1.0, 1.0, 6.0]]]))  # probabilities 1/4, 1/2, 1/4 and 1/8, 1/8, 6/8
    targets = np.array([[1, 0]])
    assert_close(token_losses(logits, targets), [[math.log(2), math.log(8)]])
    assert_close(cross_entropy(logits, targets), math.log(16) / 2)
    assert_close(perplexity(logits, targets), 4.0)
    assert_close(cross_entropy(logits, targets, padding_id=0), math.log(2))
    assert_close(cross_entropy(logits, targets, padding_id=0, smoothing=0.5), 0.5 * math.log(2) + math.log(32) / 6)
    assert_close(cross_entropy_backward(logits, targets), [[[1 / 8, -1 / 4, 1 / 8], [-7 / 16, 1 / 16, 3 / 8]]])


def test_three_steps_of_the_notes():
    # the notes have a total of 2.39 over three steps and call 0.7 its average; their terms are illegible, these are ours
    p = np.exp([-0.5, -0.9, -0.99])
    logits, targets = np.log(np.stack([p, 1 - p], axis=-1))[None], np.zeros((1, 3), dtype=np.int64)
    assert_close(np.sum(token_losses(logits, targets)), 2.39, terms=3)
    assert_close(cross_entropy(logits, targets), 2.39 / 3, terms=3)
    assert round(float(cross_entropy(logits, targets)), 2) == 0.8


def test_a_model_that_knows_nothing_is_as_unsure_as_between_all_words():
    assert_close(perplexity(np.zeros((1, 2, 7)), np.array([[3, 6]])), 7.0, terms=7)


@given(cases())
def test_equals_the_log_softmax_form(case):  # SQ4 with smoothing 0
    logits, targets = case
    log_p = logits - log_sum_exp(logits)[..., None]
    want = [-log_p[place][targets[place]] if targets[place] >= 0 else 0.0 for place in np.ndindex(targets.shape)]
    assert_close(token_losses(logits, targets, -1), np.reshape(want, targets.shape), terms=logits.shape[2])
    assert_close(cross_entropy(logits, targets, -1), sum(want) / np.sum(targets >= 0), terms=logits.size)


@given(cases(), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_smoothing_is_the_declared_mixture(case, smoothing):  # SQ4
    logits, targets = case
    everywhere = [token_losses(logits, np.where(targets < 0, -1, v), -1) for v in range(logits.shape[2])]
    want = (1 - smoothing) * token_losses(logits, targets, -1) + smoothing * np.mean(everywhere, axis=0)
    assert_close(token_losses(logits, targets, -1, smoothing), want, terms=logits.shape[2])


@given(cases(), SMOOTHINGS)
def test_padding_counts_for_nothing(case, smoothing):  # SQ3
    logits, targets = case
    real = targets >= 0
    poisoned = np.where(real[..., None], logits, 1e300)
    for function in (token_losses, cross_entropy, cross_entropy_backward):
        np.testing.assert_array_equal(function(poisoned, targets, -1, smoothing), function(logits, targets, -1, smoothing))
    assert (token_losses(logits, targets, -1, smoothing)[~real] == 0).all()
    assert (cross_entropy_backward(logits, targets, -1, smoothing)[~real] == 0).all()
    want = cross_entropy(logits[real], targets[real], None, smoothing)  # the same without padding
    assert_close(cross_entropy(logits, targets, -1, smoothing), want, terms=logits.size)


@given(cases(), SMOOTHINGS)
def test_sums_over_parts_of_the_batch_add_up(case, smoothing):  # SQ3
    logits, targets = case
    parts = [cross_entropy(one, y, -1, smoothing) * np.sum(y >= 0) for one, y in zip(logits, targets, strict=True)]
    assert_close(cross_entropy(logits, targets, -1, smoothing), sum(parts) / np.sum(targets >= 0), terms=logits.size)


@given(cases(), SMOOTHINGS)
def test_gradient_by_central_differences(case, smoothing):
    logits, targets = case
    got = cross_entropy_backward(logits, targets, -1, smoothing)
    h = 2.0**-17  # h² of the formula and 2^-53 / h of rounding are both about 2^-35
    for place in np.ndindex(logits.shape):
        step = np.zeros(logits.shape)
        step[place] = h
        up, down = (cross_entropy(logits + sign * step, targets, -1, smoothing) for sign in (1, -1))
        assert_close(got[place], (up - down) / (2 * h), terms=2.0**17)


@given(cases(), SMOOTHINGS)
def test_gradients_of_a_token_sum_to_zero(case, smoothing):
    logits, targets = case
    total = np.sum(cross_entropy_backward(logits, targets, -1, smoothing), axis=-1)
    assert_close(total, np.zeros_like(total), terms=logits.shape[2])


def test_words_ruled_out_have_no_share():
    logits = np.array([[0.0, -np.inf, 0.0]])
    assert_close(token_losses(logits, np.array([2])), [math.log(2)])
    assert token_losses(logits, np.array([1])).tolist() == [np.inf]
    assert_close(cross_entropy_backward(logits, np.array([2])), softmax(logits) - [[0.0, 0.0, 1.0]])


def test_no_tokens():
    logits, targets = np.zeros((1, 2, 3)), np.array([[-1, -1]])
    assert cross_entropy(logits, targets, -1) == 0
    assert perplexity(logits, targets, -1) == 1
    assert (cross_entropy_backward(logits, targets, -1) == 0).all()
    assert cross_entropy(np.zeros((0, 2, 3)), np.zeros((0, 2))) == 0
    assert token_losses(np.zeros((2, 0, 3)), np.zeros((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("function", [token_losses, cross_entropy, cross_entropy_backward])
@pytest.mark.parametrize(
    ("logits", "targets", "options", "error", "message"),
    [
        ((2, 3, 4), np.zeros((2, 2), int), {}, ShapeError,
         "logits.shape=(2, 3, 4): logits have a last axis of V > 0 words for each of the targets (2, 2); pass"),
        ((2, 3), np.zeros((2, 3), int), {}, ShapeError, "logits.shape=(2, 3): logits have a last axis"),
        ((2, 3, 0), np.zeros((2, 3), int), {}, ShapeError, "logits.shape=(2, 3, 0): logits have a last axis"),
        ((), np.zeros((), int), {}, ShapeError, "logits.shape=(): logits have a last axis"),
        ((1, 2, 4), np.array([[0, 4]]), {}, ValueError, "targets=4 at (0, 1): ids lie in 0..V-1 with V=4; map"),
        ((1, 2, 4), np.array([[-1, -2]]), {"padding_id": -1}, ValueError, "targets=-2 at (0, 1): ids lie in 0..V-1"),
        ((1, 1, 4), np.array([[0.5]]), {}, TypeError, "targets.dtype=float64: ids are integers"),
        ((1, 1, 4), np.array([[0]]), {"smoothing": 1.5}, ValueError,
         "smoothing=1.5: it is a share of the target, in [0, 1]; pass 0 for none"),
    ],
)  # fmt: skip
def test_errors(function, logits, targets, options, error, message):
    with pytest.raises(error) as caught:
        function(np.zeros(logits), targets, **options)
    assert str(caught.value).startswith(message)


def test_truth_values_are_no_targets():
    with pytest.raises(TypeError, match=r"^targets.dtype=bool: ids are integers; pass integers"):
        cross_entropy(np.zeros((1, 2, 3)), np.array([[True, False]]))
