import math

import numpy as np
import pytest

from attnspec.reference.additive_attention import additive_attention, additive_energies, additive_hidden
from attnspec.reference.additive_attention_backward import additive_attention_backward, additive_energies_backward
from attnspec.reference.mask import padding_mask
from attnspec.reference.shapes import ShapeError
from tests.reference.attended import attended, check_gradients, weights_for
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


def terms(parameters, states):
    return sum(parameters["query.weight"].shape) + 2 * sum(states.shape[1:])


def pair(query, state, parameters):
    """e = v·tanh(W [q; h] + b) of one pair in scalar loops: the form of the lecture notes."""
    joined = [*query, *state]
    rows = np.concatenate([parameters["query.weight"], parameters["key.weight"]], axis=1)
    bias = parameters.get("bias", np.zeros(len(rows)))
    hidden = [
        math.tanh(math.fsum(w * x for w, x in zip(row, joined, strict=True)) + b) for row, b in zip(rows, bias, strict=True)
    ]
    return math.fsum(v * y for v, y in zip(parameters["score.weight"], hidden, strict=True))


def test_known_answer():
    # tanh(ln 2) = 3/5 and tanh(ln 3) = 4/5: energies 3 + 1, 4 + 1; the weights are those of 0 and 1
    ln2, ln3 = math.log(2), math.log(3)
    parameters = {
        "query.weight": np.array([[0.0], [1.0]]), "key.weight": np.array([[1.0], [0.0]]),
        "score.weight": np.array([5.0, 5 / 3]), "bias": np.array([0.0, ln2 - 1]),
    }  # fmt: skip
    queries, states = np.array([[[1.0]]]), np.array([[[ln2], [ln3]]])
    assert_close(additive_hidden(queries, states, parameters), [[[[0.6, 0.6], [0.8, 0.6]]]])
    assert_close(additive_energies(queries, states, parameters), [[[4.0, 5.0]]])
    context, weights = additive_attention(queries, states, parameters)
    assert_close(weights, [[[1 / (1 + math.e), math.e / (1 + math.e)]]])
    assert_close(context, [[[(ln2 + math.e * ln3) / (1 + math.e)]]])


@given(attended("additive"))
def test_the_split_form_is_the_concatenated_form_one_pair_at_a_time(case):
    queries, states, parameters, _ = case
    got = additive_energies(queries, states, parameters)
    for b, t, s in np.ndindex(got.shape):
        assert_close(got[b, t, s], pair(queries[b, t], states[b, s], parameters), terms=terms(parameters, states))


@given(attended("additive"))
def test_weights_are_the_softmax_of_the_energies(case):
    queries, states, parameters, mask = case
    context, weights = additive_attention(queries, states, parameters, mask)
    exps = np.exp(additive_energies(queries, states, parameters)) * mask
    total = exps.sum(-1, keepdims=True)
    want = exps / np.where(total == 0, 1, total)
    assert (weights >= 0).all()
    assert_close(weights.sum(-1), mask.any(-1).astype(float), terms=states.shape[1])
    assert_close(weights, want, terms=terms(parameters, states))
    assert_close(context, want @ states, terms=terms(parameters, states))


@given(attended("additive"))
def test_score_weights_of_zero_give_the_mean_of_the_visible_states(case):
    queries, states, parameters, mask = case
    parameters = {**parameters, "score.weight": np.zeros_like(parameters["score.weight"])}
    context, weights = additive_attention(queries, states, parameters, mask)
    count = np.maximum(mask.sum(-1, keepdims=True), 1)
    assert_close(weights, mask / count)
    assert_close(context, mask @ states / count, terms=states.shape[1])


@given(attended("additive"))
def test_projected_states_may_be_computed_once_for_all_steps(case):
    queries, states, parameters, _ = case
    keys = states @ parameters["key.weight"].T
    once = {**parameters, "key.weight": np.eye(keys.shape[2])}
    got = additive_energies(queries, keys, once)
    assert_close(got, additive_energies(queries, states, parameters), terms=terms(parameters, states))


@given(attended("additive"))
def test_all_steps_at_once_are_the_steps_one_by_one(case):
    queries, states, parameters, mask = case
    context, weights = additive_attention(queries, states, parameters, mask)
    for t in range(queries.shape[1]):
        one = additive_attention(queries[:, [t]], states, parameters, mask[:, [t]])
        assert_close(one[0][:, 0], context[:, t], terms=terms(parameters, states))
        assert_close(one[1][:, 0], weights[:, t], terms=terms(parameters, states))


@given(attended("additive"))
def test_energies_are_bounded_by_the_score_weights(case):
    queries, states, parameters, _ = case
    limit = np.abs(parameters["score.weight"]).sum()
    energies = np.abs(additive_energies(1e6 * queries, states, parameters))
    assert_close(np.maximum(energies, limit), np.full(energies.shape, limit), terms=terms(parameters, states))


def test_padding_changes_no_row():
    rng = np.random.default_rng(0)
    parameters, lengths = weights_for("additive", 3, 5, 4, rng), np.array([4, 2])
    queries, states = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 4, 5))
    context, weights = additive_attention(queries, states, parameters, padding_mask(lengths, 4)[:, 0])
    for b, n in enumerate(lengths):
        alone = additive_attention(queries[[b]], states[[b], :n], parameters)
        assert_close(context[[b]], alone[0], terms=20)
        assert_close(weights[[b], :, :n], alone[1], terms=20)
        assert (weights[b, :, n:] == 0).all()


@given(attended("additive"), max_examples=25)
def test_gradients_agree_with_central_differences(case):
    queries, states, parameters, mask = case
    do = np.random.default_rng(7).normal(size=(*queries.shape[:2], states.shape[2]))
    gradients = additive_attention_backward(queries, states, parameters, do, mask)
    size = terms(parameters, states)
    check_gradients(lambda q, h, p: additive_attention(q, h, p, mask)[0], (queries, states), parameters, gradients, do, size)
    assert (gradients[0][~mask.any(-1)] == 0).all()
    assert (gradients[1][~mask.any(1)] == 0).all()


@given(attended("additive"), max_examples=25)
def test_gradients_of_the_energies_agree_with_central_differences(case):
    queries, states, parameters, mask = case
    de = np.random.default_rng(7).normal(size=mask.shape)
    gradients = additive_energies_backward(queries, states, parameters, de)
    check_gradients(additive_energies, (queries, states), parameters, gradients, de, terms(parameters, states))


def test_a_bias_of_the_energies_needs_no_parameter():
    # the gradient with respect to a constant added to all energies is the sum of theirs: zero
    rng = np.random.default_rng(3)
    parameters = {**weights_for("additive", 2, 3, 1, rng), "key.weight": np.zeros((1, 3))}  # all energies of a step are equal
    do = rng.normal(size=(1, 2, 3))
    _, _, gradients = additive_attention_backward(rng.normal(size=(1, 2, 2)), rng.normal(size=(1, 4, 3)), parameters, do)
    assert_close(gradients["score.weight"], [0.0], terms=10)
    assert_close(gradients["bias"], [0.0], terms=10)


@pytest.mark.parametrize("empty", range(6))
def test_sizes_of_zero(empty):
    B, T, S, N, N2, A = (0 if place == empty else size for place, size in enumerate((1, 2, 3, 4, 5, 6)))
    parameters = weights_for("additive", N, N2, A, np.random.default_rng(0))
    queries, states = np.ones((B, T, N)), np.ones((B, S, N2))
    context, weights = additive_attention(queries, states, parameters)
    assert (context.shape, weights.shape) == ((B, T, N2), (B, T, S))
    dq, dh, gradients = additive_attention_backward(queries, states, parameters, np.ones((B, T, N2)))
    assert (dq.shape, dh.shape) == (queries.shape, states.shape)
    assert {name: x.shape for name, x in gradients.items()} == {name: x.shape for name, x in parameters.items()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bias": None, "key.weight": None}, ValueError, "parameters=['query.weight', 'score.weight']: missing ['key.w"),
        ({"bias": None, "score.weight": None}, ValueError, "parameters=['key.weight', 'query.weight']: missing ['score.w"),
        ({"value.weight": np.zeros(4)}, ValueError, "parameters=['bias', 'key.weight', 'query.weight', 'score.weight', 'va"),
        ({"queries": np.zeros((2, 3))}, ShapeError, "queries.shape=(2, 3): queries has the 3 axes [B,T,N]"),
        ({"states": np.zeros((2, 3))}, ShapeError, "states.shape=(2, 3): states has the 3 axes [B,S,N]"),
        ({"states": np.zeros((3, 2, 5))}, ShapeError, "B=1 in queries and B=3 in states: B is one size"),
        ({"queries": np.zeros((1, 2, 4))}, ShapeError, "M=4 in the input of weight and M=3 in weight: M is one size"),
        ({"score.weight": np.zeros((1, 4))}, ShapeError, "score.weight.shape=(1, 4): score.weight has the 1 axes [A]"),
        ({"score.weight": np.zeros(1)}, ShapeError, "A=4 in query.weight and A=1 in score.weight: A is one size"),
        ({"key.weight": np.zeros((1, 5))}, ShapeError, "A=4 in query.weight and A=1 in key.weight: A is one size"),
        ({"bias": np.zeros(1)}, ShapeError, "bias.shape=(1,): it has one entry for each of the 4 rows of weight"),
    ],
)  # fmt: skip
def test_errors(change, error, message):
    arrays = {"queries": np.zeros((1, 2, 3)), "states": np.zeros((1, 2, 5))}
    arrays |= weights_for("additive", 3, 5, 4, np.random.default_rng(0)) | change
    parameters = {name: x for name, x in arrays.items() if x is not None and name not in ("queries", "states")}
    with pytest.raises(error) as caught:
        additive_attention(arrays["queries"], arrays["states"], parameters)
    assert str(caught.value).startswith(message)


def test_a_cotangent_of_another_shape():
    parameters, queries, states = (
        weights_for("additive", 3, 5, 4, np.random.default_rng(0)),
        np.zeros((1, 2, 3)),
        np.zeros((1, 6, 5)),
    )
    with pytest.raises(
        ShapeError, match=r"cotangent.shape=\(2, 6\): it has the shape \(1, 2, 6\) of the energies; pass the gradient"
    ):
        additive_energies_backward(queries, states, parameters, np.zeros((2, 6)))
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(1, 2, 3\): it has the shape \(.*\) of the contexts"):
        additive_attention_backward(queries, states, parameters, np.zeros((1, 2, 3)))


@pytest.mark.parametrize("name", ["query.weight", "key.weight"])
def test_weights_are_matrices(name):
    weights = {"query.weight": np.ones((2, 3)), "key.weight": np.ones((2, 3)), "score.weight": np.ones(2)}
    with pytest.raises(ShapeError, match=rf"^{name}.shape=\(\): {name} has the 2 axes \[A,N\]"):
        additive_hidden(np.ones((1, 1, 3)), np.ones((1, 1, 3)), weights | {name: np.float64(1)})
