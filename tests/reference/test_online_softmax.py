import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.attention import attention, scores
from attnspec.reference.online_softmax import merge, online_attention, partial
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import log_sum_exp
from tests.reference.closeness import assert_close
from tests.reference.drawn import cases, given

NOTHING = (np.array([-np.inf]), np.array([0.0]), np.array([[0.0, 0.0]]))


def terms(q, v):
    return q.shape[3] + v.shape[2] + v.shape[3]


def block_of(score, seed):
    return partial(np.array([score]), np.random.default_rng(seed).normal(size=(len(score), 2)))


def assert_same_partial(a, b, terms):
    for x, y in zip(a, b, strict=True):
        assert_close(x, y, terms=terms)


def test_known_answer():
    m, z, o = partial(np.log([[1.0, 4.0, 2.0]]), np.array([[1.0], [2.0], [3.0]]))
    assert_close(m, [math.log(4)])
    assert_close(z, [7 / 4])
    assert_close(o, [[15 / 4]])
    # keys of weights 1 and 4 first, then 2: m stays ln 4, z = 5/4 + (1/2) 1
    first = partial(np.log([[1.0, 4.0]]), np.array([[1.0], [2.0]]))
    second = partial(np.log([[2.0]]), np.array([[3.0]]))
    assert_same_partial(merge(first, second), (m, z, o), terms=3)
    assert_same_partial(merge(second, first), (m, z, o), terms=3)


@pytest.mark.parametrize("score", [[], [-np.inf], [-np.inf, -np.inf]])
def test_a_block_without_visible_keys_is_neutral(score):
    empty = block_of(score, 0)
    for got, want in zip(empty, NOTHING, strict=True):
        assert got.tolist() == want.tolist()
    for got, want in zip(merge(empty, NOTHING), NOTHING, strict=True):
        assert got.tolist() == want.tolist()
    full = block_of([1.0, -np.inf, 2.0], 1)
    for merged in (merge(empty, full), merge(full, empty)):
        for got, want in zip(merged, full, strict=True):
            assert got.tolist() == want.tolist()


ROW = st.lists(st.one_of(st.floats(-800, 800), st.just(-np.inf)), max_size=4)  # far beyond the range of exp


@given(ROW, ROW, ROW)
def test_merge_is_associative_and_commutative(a, b, c):
    x, y, z = block_of(a, 0), block_of(b, 1), block_of(c, 2)
    # exp(a - b) exp(b - c) for exp(a - c): arguments up to 1600 carry that many roundings
    assert_same_partial(merge(merge(x, y), z), merge(x, merge(y, z)), terms=1600 + 12)
    assert_same_partial(merge(x, y), merge(y, x), terms=8)


@given(ROW, ROW)
def test_merge_gives_the_lse_of_both(a, b):
    m, z, _ = merge(block_of(a, 0), block_of(b, 1))
    lse = m + np.log(z, out=np.full_like(z, -np.inf), where=z > 0)
    assert_close(lse, log_sum_exp(np.array([a + b])), terms=1600 + 8)


@given(cases(), st.integers(1, 6))
def test_every_block_gives_attention(case, block):
    q, k, v, options = case
    assert_close(online_attention(q, k, v, block=block, **options), attention(q, k, v, **options), terms=terms(q, v))


@given(cases(), st.integers(0, 5))
def test_every_cut_gives_attention(case, cut):
    q, k, v, options = case
    score, values = scores(q, k, **options), np.repeat(v, q.shape[1] // v.shape[1], axis=1)
    head, tail = (partial(score[..., part], values[..., part, :]) for part in (slice(cut), slice(cut, None)))
    _, z, o = merge(head, tail)
    assert_close(o / np.where(z == 0, 1, z)[..., None], attention(q, k, v, **options), terms=terms(q, v))


def test_large_scores_do_not_overflow():
    q, k, v = np.full((1, 1, 1, 1), 1000.0), np.array([[[[1.0], [-1.0], [1.0]]]]), np.array([[[[1.0], [5.0], [2.0]]]])
    assert online_attention(q, k, v, block=1).item() == 1.5


def test_empty_rows_and_no_keys_give_zeros():
    q, k, v = np.ones((1, 2, 3, 4)), np.ones((1, 1, 2, 4)), np.ones((1, 1, 2, 5))
    out = online_attention(q, k, v, block=1, causal="bottom-right")
    assert (out[:, :, 0] == 0).all()
    assert (out[:, :, 1:] == 1).all()
    assert (online_attention(q, k[:, :, :0], v[:, :, :0], block=3) == np.zeros((1, 2, 3, 5))).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: online_attention(x, x, x, block=0), ValueError,
         "block=0: it counts keys, so it is at least 1; pass S for a single block"),
        (lambda x: online_attention(x, x, x[:, :, :1], block=1), ShapeError, "S=2 in k and S=1 in v"),
        (lambda x: online_attention(x, x[:1], x[:1], block=1), ShapeError, "B=2 in q and B=1 in k"),
        (lambda x: partial(x, x[..., :1, :]), ShapeError,
         "score.shape=(2, 2, 2, 3), v.shape=(2, 2, 1, 3): they agree in S and in all axes before T; pass score [...,T,S]"),
        (lambda x: partial(x[..., :2], x[:1]), ShapeError, "score.shape=(2, 2, 2, 2), v.shape=(1, 2, 2, 3): they agree"),
        (lambda x: merge(partial(x[..., :2], x), partial(x[:1, ..., :2], x[:1])), ShapeError,
         "shapes (2, 2, 2) in a, (1, 2, 2) in b: both blocks belong to the same queries and values; pass two results"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(np.ones((2, 2, 2, 3)))
    assert str(caught.value).startswith(message)
