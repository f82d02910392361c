import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.context_vector import context_vectors, context_vectors_backward
from attnspec.reference.mask import padding_mask
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import attended, check_gradients
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


@st.composite
def rated(draw):
    """Energies with integers, so that a shift is exact, states and a mask."""
    _, states, _, mask = draw(attended("dot"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-3, 4, size=mask.shape).astype(float), states, mask


def test_known_answer():
    energies, states = np.log([[[1.0, 2.0, 3.0]]]), np.array([[[6.0], [12.0], [18.0]]])
    context, weights = context_vectors(energies, states)
    assert_close(weights, [[[1 / 6, 1 / 3, 1 / 2]]])
    assert_close(context, [[[14.0]]])
    context, weights = context_vectors(energies, states, padding_mask(np.array([2]), 3)[:, 0])
    assert_close(weights, [[[1 / 3, 2 / 3, 0.0]]])
    assert_close(context, [[[10.0]]])


def test_there_is_a_weight_for_each_pair_of_output_and_input():
    _, weights = context_vectors(np.zeros((1, 4, 4)), np.zeros((1, 4, 2)))
    assert weights.size == 16  # 4 words in, 4 words out
    assert (weights == 0.25).all()


@given(rated())
def test_weights_are_shares_and_contexts_lie_in_the_hull(case):
    energies, states, mask = case
    context, weights = context_vectors(energies, states, mask)
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    assert_close(weights.sum(-1), mask.any(-1).astype(float), terms=states.shape[1])
    # a point is in the hull if no direction reaches further than the vertices; the axes and random ones are tried
    directions = np.random.default_rng(1).normal(size=(states.shape[2], 8))
    reach = np.where(mask[..., None], (states @ directions)[:, None], -np.inf)
    for b, t in zip(*np.nonzero(mask.any(-1)), strict=True):
        for towards, limit in zip((context[b, t] @ directions), reach[b, t].max(0), strict=True):
            assert_close(max(towards, limit), limit, terms=sum(states.shape))


@given(rated(), st.integers(-1000, 1000))
def test_a_constant_added_to_the_energies_changes_nothing(case, shift):
    energies, states, mask = case
    for one, other in zip(
        context_vectors(energies, states, mask), context_vectors(energies + shift, states, mask), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@given(rated())
def test_one_step_at_a_time_and_one_sentence_at_a_time(case):
    energies, states, mask = case
    context, _ = context_vectors(energies, states, mask)
    for b, t in np.ndindex(*energies.shape[:2]):
        seen = mask[b, t]
        alone, _ = context_vectors(energies[b, t, seen][None, None], states[b, seen][None])  # without the hidden states
        assert_close(alone[0, 0], context[b, t], terms=states.shape[1])


@given(rated())
def test_hidden_states_may_be_anything_finite(case):
    energies, states, mask = case
    poisoned = np.where(mask.any(1)[..., None], states, 1e150)
    one, other = context_vectors(energies, states, mask), context_vectors(energies, poisoned, mask)
    np.testing.assert_array_equal(one[0], other[0])


@given(rated(), max_examples=25)
def test_gradients_agree_with_central_differences(case):
    energies, states, mask = case
    do = np.random.default_rng(7).normal(size=(*energies.shape[:2], states.shape[2]))
    gradients = context_vectors_backward(energies, states, do, mask)
    check_gradients(lambda e, h, _: context_vectors(e, h, mask)[0], (energies, states), {}, (*gradients, {}), do, 20)
    denergies, dstates = gradients
    assert (denergies[~mask] == 0).all()
    assert (dstates[~mask.any(1)] == 0).all()


def test_sizes_of_zero():
    context, weights = context_vectors(np.zeros((2, 3, 0)), np.zeros((2, 0, 4)))
    assert (context.shape, weights.shape) == ((2, 3, 4), (2, 3, 0))
    assert (context == 0).all()
    for shape in ((0, 2, 3), (1, 0, 3)):
        B, T, S = shape
        gradients = context_vectors_backward(np.zeros(shape), np.zeros((B, S, 4)), np.zeros((B, T, 4)))
        assert [gradient.shape for gradient in gradients] == [shape, (B, S, 4)]


@pytest.mark.parametrize(
    ("shapes", "mask", "error", "message"),
    [
        (((2, 3), (1, 3, 4)), None, ShapeError, "energies.shape=(2, 3): energies has the 3 axes [B,T,S]"),
        (((1, 2, 3), (3, 4)), None, ShapeError, "states.shape=(3, 4): states has the 3 axes [B,S,N]"),
        (((1, 2, 3), (2, 3, 4)), None, ShapeError, "B=1 in energies and B=2 in states: B is one size"),
        (((1, 2, 3), (1, 4, 4)), None, ShapeError, "S=3 in energies and S=4 in states: S is one size"),
        (((1, 2, 3), (1, 3, 4)), np.ones(2, bool), ShapeError, "mask.shape=(2,): mask broadcasts to [B,T,S] = (1, 2, 3)"),
        (((1, 2, 3), (1, 3, 4)), np.ones(3), TypeError, "mask.dtype=float64: it is boolean, True = may attend"),
    ],
)  # fmt: skip
def test_errors(shapes, mask, error, message):
    with pytest.raises(error) as caught:
        context_vectors(*(np.zeros(shape) for shape in shapes), mask)
    assert str(caught.value).startswith(message)


def test_a_cotangent_of_another_shape():
    with pytest.raises(ShapeError) as caught:
        context_vectors_backward(np.zeros((1, 2, 3)), np.zeros((1, 3, 4)), np.zeros((1, 2, 3)))
    rule = "it has the shape (1, 2, 4) of the contexts; pass the gradient"
    assert str(caught.value).startswith(f"cotangent.shape=(1, 2, 3): {rule}")


def test_weights_do_not_depend_on_the_scale_of_states():
    energies = np.array([[[0.0, math.log(3)]]])
    np.testing.assert_array_equal(
        context_vectors(energies, np.ones((1, 2, 1)))[1], context_vectors(energies, np.zeros((1, 2, 1)))[1]
    )
