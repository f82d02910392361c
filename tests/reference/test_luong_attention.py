import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.additive_attention import additive_energies
from attnspec.reference.attention import attention_weights
from attnspec.reference.luong_attention import attentional_states, luong_attention, luong_scores
from attnspec.reference.luong_attention_backward import (
    attentional_states_backward,
    luong_attention_backward,
    luong_scores_backward,
)
from attnspec.reference.mask import padding_mask, window_mask
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import attended, check_gradients, weights_for
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

SCORES = ("dot", "general", "concat")


def terms(queries, states):
    return 4 + sum(queries.shape) + 2 * sum(states.shape)


def test_known_answer():
    queries, states = np.array([[[1.0, 2.0]]]), np.array([[[math.log(2), 0.0], [0.0, math.log(3) / 2]]])
    assert_close(luong_scores(queries, states, {}), [[[math.log(2), math.log(3)]]])
    context, weights = luong_attention(queries, states, {})
    assert_close(weights, [[[0.4, 0.6]]])
    assert_close(context, [[[0.4 * math.log(2), 0.3 * math.log(3)]]])
    # q·W h with W = [[0, 1], [2, 0]]: 1 * h_2 + 2 * 2 h_1
    general = {"weight": np.array([[0.0, 1.0], [2.0, 0.0]])}
    assert_close(luong_scores(queries, states, general, "general"), [[[4 * math.log(2), math.log(3) / 2]]])
    joined = attentional_states(np.array([[[math.log(2)]]]), np.array([[[math.log(3)]]]), {"weight": np.array([[1.0, 0.0]])})
    assert_close(joined, [[[0.6]]])  # tanh(ln 2); the context comes first


@given(attended("dot"))
def test_dot_is_general_with_the_identity(case):
    queries, states, _, mask = case
    identity = {"weight": np.eye(queries.shape[2])}
    np.testing.assert_array_equal(luong_scores(queries, states, identity, "general"), luong_scores(queries, states, {}))
    for one, other in zip(luong_attention(queries, states, identity, "general", mask),
                          luong_attention(queries, states, {}, "dot", mask), strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


@given(attended("general"))
def test_general_is_dot_on_projected_states_or_projected_queries(case):
    queries, states, parameters, _ = case
    got, W = luong_scores(queries, states, parameters, "general"), parameters["weight"]
    assert_close(luong_scores(queries, states @ W.T, {}), got, terms=terms(queries, states))
    assert_close(luong_scores(queries @ W, states, {}), got, terms=terms(queries, states))


@given(attended("dot"))
def test_dot_is_scaled_dot_product_attention_with_scale_one(case):
    queries, states, _, mask = case
    want = attention_weights(queries[:, None], states[:, None], mask=mask[:, None], scale=1.0)[:, 0]
    assert_close(luong_attention(queries, states, {}, mask=mask)[1], want, terms=terms(queries, states))


@given(attended("concat"))
def test_concat_is_additive_attention_without_bias(case):
    queries, states, parameters, _ = case
    got = luong_scores(queries, states, parameters, "concat")
    np.testing.assert_array_equal(got, additive_energies(queries, states, parameters))


@given(st.data(), st.sampled_from(SCORES))
def test_weights_are_the_softmax_of_the_scores(data, score):
    queries, states, parameters, mask = data.draw(attended(score))
    context, weights = luong_attention(queries, states, parameters, score, mask)
    exps = np.exp(luong_scores(queries, states, parameters, score)) * mask
    total = exps.sum(-1, keepdims=True)
    want = exps / np.where(total == 0, 1, total)
    size = terms(queries, states) * (1 + np.abs(luong_scores(queries, states, parameters, score)).max())
    assert_close(weights.sum(-1), mask.any(-1).astype(float), terms=states.shape[1])
    assert_close(weights, want, terms=size)
    assert_close(context, want @ states, terms=size)


@given(attended("dot"), st.integers(1, 5))
def test_local_attention_is_a_window(case, D):
    # local-m: step t reads the states of positions t - D to t + D
    queries, states, _, _ = case
    T, S = queries.shape[1], states.shape[1]
    _, weights = luong_attention(queries, states, {}, mask=window_mask(T, S, D + 1, side="both"))
    for t, s in np.ndindex(T, S):
        if abs(t - s) > D:
            assert (weights[:, t, s] == 0).all()
    if max(T, S) <= D + 1:  # a wide window is global attention
        np.testing.assert_array_equal(weights, luong_attention(queries, states, {})[1])


@pytest.mark.parametrize("score", SCORES)
def test_padding_changes_no_row(score):
    rng = np.random.default_rng(0)
    parameters, lengths = weights_for(score, 3, 3, 4, rng), np.array([4, 2])
    queries, states = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 4, 3))
    context, weights = luong_attention(queries, states, parameters, score, padding_mask(lengths, 4)[:, 0])
    for b, n in enumerate(lengths):
        alone = luong_attention(queries[[b]], states[[b], :n], parameters, score)
        assert_close(context[[b]], alone[0], terms=20)
        assert_close(weights[[b], :, :n], alone[1], terms=20)


@given(st.data(), st.sampled_from(SCORES), max_examples=50)
def test_gradients_agree_with_central_differences(data, score):
    queries, states, parameters, mask = data.draw(attended(score))
    do = np.random.default_rng(7).normal(size=(*queries.shape[:2], states.shape[2]))
    gradients = luong_attention_backward(queries, states, parameters, do, score, mask)
    size = terms(queries, states) ** 2  # scores reach 10, and enter the third derivatives
    check_gradients(
        lambda q, h, p: luong_attention(q, h, p, score, mask)[0], (queries, states), parameters, gradients, do, size
    )
    assert (gradients[0][~mask.any(-1)] == 0).all()
    assert (gradients[1][~mask.any(1)] == 0).all()


@given(st.data(), st.sampled_from(SCORES), max_examples=50)
def test_gradients_of_the_scores_agree_with_central_differences(data, score):
    queries, states, parameters, mask = data.draw(attended(score))
    de = np.random.default_rng(7).normal(size=mask.shape)
    gradients = luong_scores_backward(queries, states, parameters, de, score)
    size = terms(queries, states)
    check_gradients(lambda q, h, p: luong_scores(q, h, p, score), (queries, states), parameters, gradients, de, size)


@given(attended("additive"), st.booleans(), max_examples=25)
def test_gradients_of_the_attentional_states_agree_with_central_differences(case, biased):
    queries, _, _, _ = case
    rng, N = np.random.default_rng(5), queries.shape[2]
    contexts, do = rng.normal(size=(*queries.shape[:2], 3)), rng.normal(size=queries.shape)
    parameters = {"weight": rng.normal(size=(N, 3 + N)), **({"bias": rng.normal(size=N)} if biased else {})}
    gradients = attentional_states_backward(contexts, queries, parameters, do)
    check_gradients(attentional_states, (contexts, queries), parameters, gradients, do, terms(queries, queries))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)])
def test_sizes_of_zero(shape, score):
    B, T, S, N = shape
    parameters, queries, states = (
        weights_for(score, N, N, 2, np.random.default_rng(0)),
        np.ones((B, T, N)),
        np.ones((B, S, N)),
    )
    context, weights = luong_attention(queries, states, parameters, score)
    assert (context.shape, weights.shape) == ((B, T, N), (B, T, S))
    dq, dh, gradients = luong_attention_backward(queries, states, parameters, context, score)
    assert (dq.shape, dh.shape) == (queries.shape, states.shape)
    assert {name: x.shape for name, x in gradients.items()} == {name: x.shape for name, x in parameters.items()}


@pytest.mark.parametrize(
    ("queries", "states", "parameters", "score", "error", "message"),
    [
        ((1, 2, 3), (1, 2, 3), {}, "cosine", ValueError, "score='cosine': it is one of dot, general, concat; pass one"),
        ((1, 2, 3), (1, 2, 3), {"weight": (3, 3)}, "dot", ValueError, "parameters=['weight']: missing [], unknown ['weigh"),
        ((1, 2, 3), (1, 2, 3), {}, "general", ValueError, "parameters=[]: missing ['weight'], unknown []"),
        ((1, 2, 3), (1, 2, 3), {"weight": (3, 3)}, "concat", ValueError, "parameters=['weight']: missing ['key.weight', 'q"),
        ((2, 3), (1, 2, 3), {}, "dot", ShapeError, "queries.shape=(2, 3): queries has the 3 axes [B,T,N]"),
        ((1, 2, 3), (2, 3), {}, "dot", ShapeError, "states.shape=(2, 3): states has the 3 axes [B,S,N]"),
        ((1, 2, 3), (2, 2, 3), {}, "dot", ShapeError, "B=1 in queries and B=2 in states: B is one size"),
        ((1, 2, 3), (1, 2, 4), {}, "dot", ShapeError, "N=3 in queries and N=4 in states: N is one size"),
        ((1, 2, 3), (1, 2, 4), {"weight": (2, 4)}, "general", ShapeError, "N=3 in queries and N=2 in weight: N is one size"),
        ((1, 2, 3), (1, 2, 4), {"weight": (3, 3)}, "general", ShapeError, "M=4 in the input of weight and M=3 in weight"),
    ],
)  # fmt: skip
def test_errors(queries, states, parameters, score, error, message):
    arrays = {name: np.zeros(shape) for name, shape in parameters.items()}
    with pytest.raises(error) as caught:
        luong_attention(np.zeros(queries), np.zeros(states), arrays, score)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("contexts", "queries", "message"),
    [
        ((2, 3), (1, 2, 3), "contexts.shape=(2, 3): contexts has the 3 axes [B,T,N]"),
        ((1, 2, 3), (2, 3), "queries.shape=(2, 3): queries has the 3 axes [B,T,N]"),
        ((1, 2, 3), (2, 2, 3), "B=1 in contexts and B=2 in queries: B is one size"),
        ((1, 2, 3), (1, 3, 3), "T=2 in contexts and T=3 in queries: T is one size"),
        ((1, 2, 3), (1, 2, 2), "M=5 in the input of weight and M=6 in weight: M is one size"),
    ],
)
def test_errors_of_attentional_states(contexts, queries, message):
    with pytest.raises(ShapeError) as caught:
        attentional_states(np.zeros(contexts), np.zeros(queries), {"weight": np.zeros((3, 6))})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("score", SCORES)
def test_cotangents_of_another_shape(score):
    parameters, x = weights_for(score, 3, 3, 4, np.random.default_rng(0)), np.zeros((1, 2, 3))
    with pytest.raises(
        ShapeError, match=r"cotangent.shape=\(2,\): it has the shape \(1, 2, 2\) of the scores; pass the gradient"
    ):
        luong_scores_backward(x, x, parameters, np.zeros(2), score)
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(2,\): it has the shape \(.*\) of the contexts"):
        luong_attention_backward(x, x, parameters, np.zeros(2), score)
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(3,\): it has the shape \(1, 2, 3\) of the output"):
        attentional_states_backward(x, x, {"weight": np.zeros((3, 6))}, np.zeros(3))
