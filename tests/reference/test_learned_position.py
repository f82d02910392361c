import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.learned_position import learned_position, learned_position_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

TABLE = {"weight": np.arange(6.0).reshape(3, 2)}


def test_known_answer():
    assert learned_position(np.array([2, 0, 2]), TABLE).tolist() == [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]
    assert learned_position(np.array([[1], [0]]), TABLE).tolist() == [[[2.0, 3.0]], [[0.0, 1.0]]]
    do = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    got = learned_position_backward(np.array([2, 0, 2]), TABLE, do)
    assert {name: array.tolist() for name, array in got.items()} == {"weight": [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0]]}


@given(*[st.integers(1, 4)] * 4, st.integers(0, 2**32 - 1))
def test_the_gradient_is_the_transpose_of_the_look_up(B, T, P, M, seed):
    rng = np.random.default_rng(seed)
    positions, weight, do = rng.integers(P, size=(B, T)), rng.normal(size=(P, M)), rng.normal(size=(B, T, M))
    want = np.sum(learned_position(positions, {"weight": weight}) * do)
    got = np.sum(learned_position_backward(positions, {"weight": weight}, do)["weight"] * weight)
    assert_close(got, want, terms=4 * B * T * M)


def test_empty_sizes_and_narrow_inputs():
    assert learned_position(np.zeros((2, 0), dtype=int), TABLE).shape == (2, 0, 2)
    assert learned_position_backward(np.zeros(0, dtype=int), TABLE, np.zeros((0, 2)))["weight"].tolist() == [[0.0, 0.0]] * 3
    assert learned_position(np.arange(2, dtype=np.uint8), {"weight": np.ones((3, 2), dtype=np.float32)}).dtype == np.float64


@pytest.mark.parametrize(
    ("positions", "parameters", "error", "message"),
    [
        ([0, 3], TABLE, ValueError, "positions=3 at (1,): positions lie in 0..P-1 with P=3; shorten the text"),
        ([[0, 1], [-1, 7]], TABLE, ValueError, "positions=-1 at (1, 0): positions lie in 0..P-1 with P=3"),
        ([0.0, 1.0], TABLE, TypeError, "positions.dtype=float64: positions are integers; pass integers"),
        ([0], {"weight": np.zeros(3)}, ShapeError, "weight.shape=(3,): weight has the 2 axes [P,M]"),
        ([0], {"table": np.zeros((3, 2))}, ValueError, "parameters=['table']: missing ['weight'], unknown ['table']"),
        ([0], {"weight": np.zeros((0, 2))}, ValueError, "positions=0 at (0,): positions lie in 0..P-1 with P=0"),
    ],
)
def test_errors(positions, parameters, error, message):
    positions = np.array(positions)
    for call in (learned_position, lambda x, p: learned_position_backward(x, p, np.zeros((*positions.shape, 2)))):
        with pytest.raises(error) as caught:
            call(positions, parameters)
        assert str(caught.value).startswith(message)


def test_errors_of_the_cotangent():
    with pytest.raises(ShapeError, match=r"^cotangent.shape=\(2, 3\): it has the shape \(2, 2\) of the output"):
        learned_position_backward(np.arange(2), TABLE, np.zeros((2, 3)))
