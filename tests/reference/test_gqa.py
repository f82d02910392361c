import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.gqa import check_groups, repeat_heads, sum_groups
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


def test_heads_are_repeated_not_tiled():
    x = np.array([[[10.0], [20.0]]])
    assert repeat_heads(x, 4).tolist() == [[[10.0], [10.0], [20.0], [20.0]]]
    assert repeat_heads(x, 2).tolist() == x.tolist()
    assert repeat_heads(x, 0).shape == (1, 0, 1)


def test_sum_over_the_group():
    x = np.array([[[1.0], [2.0], [10.0], [20.0]]])
    assert sum_groups(x, 2).tolist() == [[[3.0], [30.0]]]
    assert sum_groups(x, 1).tolist() == [[[33.0]]]
    assert sum_groups(x[:, :0], 2).tolist() == [[[0.0], [0.0]]]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_sum_is_the_transpose_of_the_repetition(G, group, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, G, 3)), rng.normal(size=(2, G * group, 3))
    assert_close(np.sum(repeat_heads(x, G * group) * y), np.sum(x * sum_groups(y, G)), terms=y.size)


@pytest.mark.parametrize(("H", "G"), [(6, 4), (2, 4), (3, 0), (0, 0)])
def test_errors(H, G):
    for call in (
        lambda: check_groups(H, G),
        lambda: repeat_heads(np.zeros((1, G, 2)), H),
        lambda: sum_groups(np.zeros((1, H, 2)), G),
    ):
        with pytest.raises(ShapeError) as caught:
            call()
        assert str(caught.value) == f"H={H} with G={G}: H is a multiple of G; repeat or drop heads of k and v"


def test_heads_are_widened_to_float64():
    assert repeat_heads(np.ones((1, 1, 2), dtype=np.float32), 2).dtype == np.float64
    tenth = np.full((1, 3, 1), 0.1, dtype=np.float32)
    assert sum_groups(tenth, 1).tolist() == [[[float(np.sum(tenth.astype(np.float64)))]]]
