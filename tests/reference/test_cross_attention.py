import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.attention import attention_weights
from attnspec.reference.cross_attention import cross_attention
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

HEADS = 2


@st.composite
def pairs(draw):
    """x [B,T,M], memory [B,S,M'], its mask [B,S] with at least one real word, and parameters."""
    B, T, S, M, M2 = (draw(st.integers(1, 5), label=name) for name in ("B", "T", "S", "M", "M'"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    shapes = {"q.weight": (4, M), "k.weight": (4, M2), "v.weight": (6, M2), "o.weight": (M, 6)}
    parameters = {name: rng.normal(size=shape) / np.sqrt(shape[1]) for name, shape in shapes.items()}
    if draw(st.booleans(), label="biased"):
        parameters |= {"q.bias": rng.normal(size=4), "v.bias": rng.normal(size=6), "o.bias": rng.normal(size=M)}
    mask = (rng.random((B, S)) < 0.7) | (np.arange(S) == 0)
    return rng.normal(size=(B, T, M)), rng.normal(size=(B, S, M2)), mask, parameters


def test_known_answer():
    # one head of width one: the query 1 scores the keys 0 and ln 3, so the weights are 1/4 and 3/4
    x, memory = np.array([[[1.0], [0.0]]]), np.array([[[0.0, 8.0], [np.log(3), 16.0]]])
    parameters = {"q.weight": np.ones((1, 1)), "k.weight": np.array([[1.0, 0.0]]), "v.weight": np.array([[0.0, 1.0]])}
    parameters["o.weight"] = np.ones((1, 1))
    assert_close(cross_attention(x, memory, parameters, 1), [[[14.0], [12.0]]])
    assert_close(cross_attention(x, memory, parameters, 1, memory_mask=np.array([[True, False]])), [[[8.0], [8.0]]])
    assert cross_attention(x, memory[:, :0], parameters, 1).tolist() == [[[0.0], [0.0]]]


def test_the_table_of_weights_has_a_row_for_each_query_and_a_column_for_each_key():
    assert attention_weights(np.zeros((1, 1, 3, 2)), np.zeros((1, 1, 5, 2))).shape == (1, 1, 3, 5)


@given(pairs())
def test_is_self_attention_where_both_sequences_are_the_same(case):
    x, _, _, parameters = case
    rng, M = np.random.default_rng(0), x.shape[2]
    parameters |= {"k.weight": rng.normal(size=(4, M)), "v.weight": rng.normal(size=(6, M))}
    np.testing.assert_array_equal(cross_attention(x, x, parameters, HEADS), multi_head_attention(x, x, parameters, HEADS))


@given(pairs(), st.randoms())
def test_permuting_the_memory_changes_nothing(case, random):
    x, memory, mask, parameters = case
    order = random.sample(range(memory.shape[1]), memory.shape[1])
    want = cross_attention(x, memory, parameters, HEADS, memory_mask=mask)
    got = cross_attention(x, memory[:, order], parameters, HEADS, memory_mask=mask[:, order])
    assert_close(got, want, terms=8 * sum(memory.shape) + x.shape[2])


@given(pairs(), st.randoms())
def test_each_query_is_on_its_own(case, random):
    x, memory, mask, parameters = case
    order = random.sample(range(x.shape[1]), x.shape[1])
    want = cross_attention(x, memory, parameters, HEADS, memory_mask=mask)[:, order]
    got = cross_attention(x[:, order], memory, parameters, HEADS, memory_mask=mask)
    assert_close(got, want, terms=8 * sum(memory.shape) + x.shape[2])


@given(pairs())
def test_padding_of_the_memory_is_never_read(case):
    x, memory, mask, parameters = case
    want = cross_attention(x, memory, parameters, HEADS, memory_mask=mask)
    poisoned = np.where(mask[:, :, None], memory, 1e100)
    np.testing.assert_array_equal(cross_attention(x, poisoned, parameters, HEADS, memory_mask=mask), want)
    whole = cross_attention(x, memory, parameters, HEADS, memory_mask=np.ones_like(mask))
    np.testing.assert_array_equal(whole, cross_attention(x, memory, parameters, HEADS))


@given(pairs())
def test_each_sequence_reads_its_own_memory_cut_to_the_real_words(case):
    x, memory, mask, parameters = case
    got = cross_attention(x, memory, parameters, HEADS, memory_mask=mask)
    for b, real in enumerate(mask):
        want = cross_attention(x[b : b + 1], memory[b : b + 1, real], parameters, HEADS)
        assert_close(got[b : b + 1], want, terms=8 * sum(memory.shape) + x.shape[2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, m, p: cross_attention(x, m, p, HEADS, memory_mask=np.ones((2, 3), bool)), ShapeError,
         "memory_mask.shape=(2, 3): it says of each word of memory whether it is real, [B,S] = (2, 5); pass one entry"),
        (lambda x, m, p: cross_attention(x, m, p, HEADS, memory_mask=np.ones((2, 5))), TypeError,
         "mask.dtype=float64: it is boolean"),
        (lambda x, m, p: cross_attention(x, m[0], p, HEADS), ShapeError, "memory.shape=(5, 4): memory has the 3 axes"),
        (lambda x, m, p: cross_attention(x, m[:1], p, HEADS), ShapeError, "B=2 in q and B=1 in k"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    parameters = {f"{name}.weight": np.ones((4, 4)) for name in "qkvo"}
    with pytest.raises(error) as caught:
        call(np.zeros((2, 3, 4)), np.zeros((2, 5, 4)), parameters)
    assert str(caught.value).startswith(message)
