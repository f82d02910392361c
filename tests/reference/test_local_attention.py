import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.local_attention import local_attention, predicted_positions
from attnspec.reference.luong_attention import luong_attention
from attnspec.reference.mask import padding_mask
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import attended
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


@st.composite
def local_cases(draw):
    queries, states, parameters, mask = draw(attended("general"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed of positions"))
    return (
        queries,
        states,
        rng.uniform(0, states.shape[1], size=queries.shape[:2]),
        draw(st.integers(1, 5), label="radius"),
        parameters,
        mask,
    )


def terms(case):
    return 4 + sum(case[0].shape) + 2 * sum(case[1].shape)


def test_known_answers():
    # sigmoid(v tanh(ln 2)) = sigmoid(0.6 v) is 3/4 for v = ln 3 / 0.6
    parameters = {"hidden.weight": np.array([[math.log(2)]]), "score.weight": np.array([math.log(3) / 0.6])}
    queries = np.ones((1, 1, 1))
    assert_close(predicted_positions(queries, np.array([8]), 10, parameters), [[6.0]])
    # equal scores, radius = 1, position 2: states 1, 2, 3 share, then 1 and 3 lose a factor exp(-2)
    states = np.array([[[9.0], [1.0], [2.0], [3.0], [9.0]]])
    context, weights = local_attention(0 * queries, states, np.array([[2.0]]), 1, {}, "dot")
    edge = math.exp(-2) / 3
    assert_close(weights, [[[0.0, edge, 1 / 3, edge, 0.0]]])
    assert_close(context, [[[4 * edge + 2 / 3]]])


@given(local_cases())
def test_weights_are_zero_outside_the_window_and_never_more_than_the_softmax_inside(case):
    queries, states, positions, radius, parameters, mask = case
    context, weights = local_attention(queries, states, positions, radius, parameters, mask=mask)
    distance = np.abs(np.arange(states.shape[1]) - positions[..., None])
    near = (distance <= radius) & mask
    _, align = luong_attention(queries, states, parameters, "general", near)
    assert (weights[~near] == 0).all()
    assert (weights <= align).all()
    assert_close(weights, align * np.exp(-(distance**2) / (2 * (radius / 2) ** 2)), terms=terms(case))
    assert_close(context, weights @ states, terms=terms(case))


@given(local_cases())
def test_a_wide_window_is_global_attention(case):
    queries, states, positions, _, parameters, mask = case
    wide = 2.0**40  # exp(-2 (5 / 2^40)^2) is 1
    for one, other in zip(local_attention(queries, states, positions, wide, parameters, mask=mask),
                          luong_attention(queries, states, parameters, "general", mask), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


@given(local_cases())
def test_without_a_mask_every_state_is_visible(case):
    queries, states, positions, radius, parameters, mask = case
    got = local_attention(queries, states, positions, radius, parameters)
    want = local_attention(queries, states, positions, radius, parameters, mask=np.ones_like(mask))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


@given(attended("concat"))
def test_positions_lie_inside_their_sources(case):
    queries, states, parameters, _ = case
    lengths = np.arange(len(states)) % (states.shape[1] + 1)
    named = {"hidden.weight": parameters["query.weight"], "score.weight": 50 * parameters["score.weight"]}
    positions = predicted_positions(queries, lengths, states.shape[1], named)
    assert ((positions >= 0) & (positions <= lengths[:, None])).all()
    assert_close(
        predicted_positions(0 * queries, lengths, states.shape[1], named),
        np.repeat(lengths[:, None] / 2, queries.shape[1], 1),
    )


@given(local_cases())
def test_padding_changes_no_row(case):
    queries, states, positions, radius, parameters, _ = case
    lengths = np.arange(len(states)) % states.shape[1] + 1
    mask = padding_mask(lengths, states.shape[1])[:, 0]
    context, weights = local_attention(queries, states, positions, radius, parameters, mask=mask)
    for b, n in enumerate(lengths):
        alone = local_attention(queries[[b]], states[[b], :n], positions[[b]], radius, parameters)
        assert_close(context[[b]], alone[0], terms=terms(case))
        assert_close(weights[[b], :, :n], alone[1], terms=terms(case))


@pytest.mark.parametrize(
    ("positions", "radius", "error", "message"),
    [
        (np.zeros((1, 2)), 0, ValueError, "radius=0: sigma is half of it, and positive; pass radius >= 1"),
        (np.zeros((1, 3)), 1, ShapeError, "positions.shape=(1, 3): there is one for each query, [B,T] = (1, 2); pass"),
    ],
)
def test_errors(positions, radius, error, message):
    with pytest.raises(error) as caught:
        local_attention(np.zeros((1, 2, 3)), np.zeros((1, 4, 3)), positions, radius, {}, "dot")
    assert str(caught.value).startswith(message)


def test_a_mask_of_numbers():
    with pytest.raises(TypeError, match=r"mask.dtype=float64: it is boolean"):
        local_attention(np.zeros((1, 2, 3)), np.zeros((1, 4, 3)), np.zeros((1, 2)), 1, {}, "dot", np.ones(4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"score.weight": None}, ValueError, "parameters=['hidden.weight']: missing ['score.weight']"),
        ({"score.weight": np.zeros(2)}, ShapeError, "A=4 in hidden.weight and A=2 in score.weight: A is one size"),
        ({"score.weight": np.zeros((4, 1))}, ShapeError, "score.weight.shape=(4, 1): score.weight has the 1 axes [A]"),
        ({"queries": np.zeros((2, 3))}, ShapeError, "queries.shape=(2, 3): queries has the 3 axes [B,T,N]"),
        ({"lengths": np.array([5, 6])}, ValueError, "lengths=[5, 6]: each lies in 0..S with S=5"),
        ({"lengths": np.array([5, 4])}, ShapeError, "B=1 in queries and B=2 in lengths: B is one size"),
    ],
)  # fmt: skip
def test_errors_of_positions(change, error, message):
    arrays = {"queries": np.zeros((1, 2, 3)), "lengths": np.array([5])}
    arrays |= {"hidden.weight": np.zeros((4, 3)), "score.weight": np.zeros(4)} | change
    parameters = {name: x for name, x in arrays.items() if x is not None and name.endswith("weight")}
    with pytest.raises(error) as caught:
        predicted_positions(arrays["queries"], arrays["lengths"], 5, parameters)
    assert str(caught.value).startswith(message)


def test_the_states_have_three_axes():
    with pytest.raises(ShapeError, match=r"^states.shape=\(4,\): states has the 3 axes \[B,S,N\]"):
        local_attention(np.ones((1, 2, 4)), np.ones(4), np.ones((1, 2)), 1, {}, "dot")
