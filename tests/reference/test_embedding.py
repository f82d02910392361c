import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.embedding import average_embedding, embedding, embedding_backward
from attnspec.reference.one_hot import one_hot
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

TABLE = {"weight": np.arange(8.0).reshape(4, 2)}


@st.composite
def cases(draw):
    """ids [B,T], a table [V,M] and a cotangent [B,T,M]."""
    B, T, V, M = (draw(st.integers(1, 4), label=name) for name in "BTVM")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    return rng.integers(0, V, (B, T)), {"weight": rng.normal(size=(V, M))}, rng.normal(size=(B, T, M))


def test_known_answers():
    assert embedding(np.array([[2, 0], [2, 3]]), TABLE).tolist() == [[[4.0, 5.0], [0.0, 1.0]], [[4.0, 5.0], [6.0, 7.0]]]
    cotangent = np.array([[[1.0, 10.0], [2.0, 20.0]], [[4.0, 40.0], [8.0, 80.0]]])
    got = embedding_backward(np.array([[2, 0], [2, 3]]), TABLE, cotangent)
    assert got["weight"].tolist() == [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0], [8.0, 80.0]]
    got = embedding_backward(np.array([[2, 0], [2, 3]]), TABLE, cotangent, padding_id=2)
    assert got["weight"].tolist() == [[2.0, 20.0], [0.0, 0.0], [0.0, 0.0], [8.0, 80.0]]


@given(cases())
def test_lookup_is_one_hot_times_table(case):  # TX1
    ids, table, _ = case
    np.testing.assert_array_equal(embedding(ids, table), one_hot(ids, len(table["weight"])) @ table["weight"])


@given(cases(), st.data())
def test_gradient_is_the_sum_over_uses(case, data):  # TX6
    ids, table, cotangent = case
    V = len(table["weight"])
    padding_id = data.draw(st.none() | st.integers(0, V - 1))
    got = embedding_backward(ids, table, cotangent, padding_id)["weight"]
    absent = ~np.isin(np.arange(V), ids) | (np.arange(V) == padding_id)
    assert (got[absent] == 0).all()
    want = np.einsum("btv,btm->vm", one_hot(ids, V), cotangent)
    assert_close(got, np.where(absent[:, None], 0.0, want), terms=ids.size)


@given(cases())
def test_gradient_by_central_differences(case):
    ids, table, cotangent = case
    got = embedding_backward(ids, table, cotangent)["weight"]
    for place in np.ndindex(got.shape):
        step = np.zeros(got.shape)
        step[place] = 0.5  # the map is linear: any step will do
        up, down = (np.sum(cotangent * embedding(ids, {"weight": table["weight"] + sign * step})) for sign in (1, -1))
        assert_close(got[place], up - down, terms=10 * cotangent.size)


def test_infinite_cotangents_stay_with_their_word():
    got = embedding_backward(np.array([0, 1]), {"weight": np.zeros((2, 1))}, np.array([[np.inf], [1.0]]))["weight"]
    assert got.tolist() == [[np.inf], [1.0]]


def test_average_of_the_notes():
    # "apple" in four sentences, with the notes' uses [taste, technology]; "orange" in one
    uses = np.array([[0.6, 0.0], [0.7, 0.0], [0.8, 0.0], [0.8, 0.2], [1.0, 0.0]])
    got = average_embedding(np.array([0, 0, 0, 0, 1]), uses, 3)
    assert_close(got, [[0.725, 0.05], [1.0, 0.0], [0.0, 0.0]])


@given(cases())
def test_the_average_is_the_best_static_vector(case):
    # the squared distance to all uses is least where its gradient, the sum of the differences, is zero
    ids, table, uses = case
    average = average_embedding(ids, uses, len(table["weight"]))
    rest = embedding_backward(ids, table, embedding(ids, {"weight": average}) - uses)["weight"]
    assert_close(rest, np.zeros_like(rest), terms=10 * ids.size)


def test_empty_sizes():
    assert embedding(np.zeros((2, 0)), TABLE).shape == (2, 0, 2)
    assert embedding_backward(np.zeros((2, 0)), TABLE, np.zeros((2, 0, 2)))["weight"].tolist() == np.zeros((4, 2)).tolist()
    assert embedding_backward(np.zeros(0), {"weight": np.zeros((0, 2))}, np.zeros((0, 2)))["weight"].shape == (0, 2)
    assert embedding_backward(np.array([1]), {"weight": np.zeros((2, 0))}, np.zeros((1, 0)))["weight"].shape == (2, 0)
    assert average_embedding(np.zeros(0), np.zeros((0, 3)), 2).tolist() == np.zeros((2, 3)).tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: embedding(np.array([[0, 4]]), TABLE), ValueError, "ids=4 at (0, 1): ids lie in 0..V-1 with V=4; map"),
        (lambda: embedding(np.array([-1]), TABLE), ValueError, "ids=-1 at (0,): ids lie in 0..V-1 with V=4"),
        (lambda: embedding(np.array([1.0]), TABLE), TypeError, "ids.dtype=float64: ids are integers"),
        (lambda: embedding(np.array([0]), {"weight": np.zeros(3)}), ShapeError, "weight.shape=(3,): weight has the 2 axes"),
        (lambda: embedding(np.array([0]), {}), ValueError, "parameters=[]: missing ['weight']"),
        (lambda: embedding_backward(np.array([[0]]), TABLE, np.zeros((1, 2))), ShapeError,
         "cotangent.shape=(1, 2): it has the shape (1, 1, 2) of the output; pass the gradient"),
        (lambda: embedding_backward(np.array([0]), TABLE, np.zeros((1, 2)), 4), ValueError,
         "padding_id=4 at (): ids lie in 0..V-1 with V=4"),
        (lambda: average_embedding(np.array([0, 1]), np.zeros((1, 2)), 2), ShapeError,
         "uses.shape=(1, 2): it has one vector for each of the ids, whose shape is (2,); pass one vector"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
