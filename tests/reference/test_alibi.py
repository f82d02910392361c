import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.alibi import alibi_bias, alibi_slopes
from attnspec.reference.attention import attention, attention_weights
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


@pytest.mark.parametrize(
    ("H", "exponents"),
    [
        (1, [8]),
        (2, [4, 8]),
        (4, [2, 4, 6, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),  # the paper's example: a half to 1/2^8
        (16, [0.5 * h for h in range(1, 17)]),  # the paper's other example: it starts at the root of a half
        (3, [4, 8, 2]),
        (6, [2, 4, 6, 8, 1, 3]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes(H, exponents):
    assert_close(alibi_slopes(H), 2.0 ** -np.array(exponents))


@given(st.integers(1, 100))
def test_slopes_differ_and_lie_between_zero_and_one(H):
    slopes = alibi_slopes(H)
    assert len(set(slopes.tolist())) == H
    assert 0 < slopes.min() <= slopes.max() < 1


def test_known_answer():
    # two queries at the end of three keys; slopes 1/16 and 1/256
    want = np.array([[-1.0, 0.0, -1.0], [-2.0, -1.0, 0.0]])
    assert alibi_bias(2, 2, 3).tolist() == [(want / 16).tolist(), (want / 256).tolist()]


@given(*[st.integers(1, 6)] * 3)
def test_the_last_query_is_at_the_last_key(H, T, S):
    bias = alibi_bias(H, T, S)
    assert bias.shape == (H, T, S)
    assert (bias[:, -1, -1] == 0).all()
    assert (np.diff(bias[:, -1], axis=-1) > 0).all()  # nearer keys are penalised less
    np.testing.assert_array_equal(bias, alibi_bias(H, max(T, S), max(T, S))[:, -T:, -S:])


@given(*[st.integers(1, 5)] * 3, st.integers(0, 2**32 - 1))
def test_a_bias_by_key_position_gives_the_same_weights(H, T, extra, seed):
    # slope (s - p) and slope s differ by a constant for each query, which softmax does not see
    rng, S = np.random.default_rng(seed), T + extra
    q, k = rng.normal(size=(1, H, T, 3)), rng.normal(size=(1, H, S, 3))
    by_key = alibi_slopes(H)[:, None, None] * np.arange(S)
    got = attention_weights(q, k, bias=alibi_bias(H, T, S), causal="bottom-right")
    assert_close(got, attention_weights(q, k, bias=by_key, causal="bottom-right"), terms=4 * S)


def test_it_breaks_the_symmetry_between_words():
    x, order = np.random.default_rng(0).normal(size=(1, 2, 4, 3)), np.array([2, 0, 3, 1])
    bias = alibi_bias(2, 4, 4)
    moved = bias[:, order][:, :, order]
    got = attention(x[:, :, order], x[:, :, order], x[:, :, order], bias=bias)
    assert np.max(np.abs(got - attention(x, x, x, bias=bias)[:, :, order])) > 0.01
    got = attention(x[:, :, order], x[:, :, order], x[:, :, order], bias=moved)
    assert_close(got, attention(x, x, x, bias=bias)[:, :, order], terms=16)


def test_empty_sizes():
    assert alibi_bias(2, 0, 3).shape == (2, 0, 3)
    assert alibi_bias(2, 3, 0).shape == (2, 3, 0)


@pytest.mark.parametrize("H", [0, -1])
def test_errors(H):
    for call in (alibi_slopes, lambda H: alibi_bias(H, 1, 1)):
        with pytest.raises(ValueError, match=rf"^H={H}: there is at least 1 head; pass H >= 1"):
            call(H)
