import math

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.attention import attention
from attnspec.reference.learned_position import learned_position
from attnspec.reference.mask import causal_mask
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.self_attention import plain_self_attention, plain_self_attention_by_rows, self_attention
from attnspec.reference.shapes import ShapeError
from attnspec.reference.sinusoidal_position import sinusoidal_position
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

LN2 = math.log(2)
FORMS = [plain_self_attention, plain_self_attention_by_rows]


def maps(M, D, E, rng, biased=False):
    shapes = {"q.weight": (D, M), "k.weight": (D, M), "v.weight": (E, M)}
    shapes |= {"q.bias": (D,), "k.bias": (D,), "v.bias": (E,)} if biased else {}
    return {name: rng.normal(size=shape) / math.sqrt(M) for name, shape in shapes.items()}


@st.composite
def texts(draw):
    """Words [B,T,M] of length about one, and the parameters of a head."""
    B, T, M, D, E = (draw(st.integers(1, 5), label=name) for name in "BTMDE")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    x = rng.normal(size=(B, T, M)) / math.sqrt(M)
    return x, maps(M, D, E, rng, draw(st.booleans(), label="biased"))


def terms(x):
    return 4 * sum(x.shape[1:])


@pytest.mark.parametrize("form", FORMS)
def test_known_answer(form):
    # squares of the root of ln 2: scores are ln 2 on the diagonal and 0 beside it, so weights are 2/3 and 1/3
    root = math.sqrt(LN2)
    assert_close(form(root * np.eye(2)[None]), root * np.array([[[2 / 3, 1 / 3], [1 / 3, 2 / 3]]]))


def test_known_answer_with_maps():
    # q·k / sqrt(4) = 0 and ln 3: weights 1/4, 3/4; values 10 and 20, halved
    x, one = np.array([[[1.0, 10.0, 0.0], [1.0, 20.0, math.log(3)]]]), np.ones((4, 1))
    parameters = {
        "q.weight": one * [1.0, 0.0, 0.0],
        "k.weight": one * [0.0, 0.0, 0.5],
        "v.weight": np.array([[0.0, 0.5, 0.0]]),
    }
    assert_close(self_attention(x, parameters), [[[8.75], [8.75]]])
    assert_close(self_attention(x, parameters, causal="top-left"), [[[5.0], [8.75]]])
    assert_close(self_attention(x, parameters, mask=np.array([False, True])), [[[10.0], [10.0]]])
    assert self_attention(x, parameters, mask=np.array([False, False])).tolist() == [[[0.0], [0.0]]]


@given(texts())
def test_all_rows_at_once_are_one_row_at_a_time(case):
    x, _ = case
    assert_close(plain_self_attention(x), plain_self_attention_by_rows(x), terms=terms(x))


@given(texts())
def test_is_attention_of_the_words_to_themselves(case):
    x, _ = case
    assert_close(plain_self_attention(x), attention(x[:, None], x[:, None], x[:, None], scale=1.0)[:, 0], terms=terms(x))


@given(texts())
def test_maps_of_identity_give_the_plain_form(case):
    x, _ = case
    M = x.shape[2]
    parameters = {"q.weight": math.sqrt(M) * np.eye(M), "k.weight": np.eye(M), "v.weight": np.eye(M)}
    assert_close(self_attention(x, parameters), plain_self_attention(x), terms=terms(x))


@given(texts(), st.sampled_from([None, "top-left"]))
def test_is_multi_head_attention_with_one_head(case, causal):
    x, parameters = case
    E = len(parameters["v.weight"])
    got = multi_head_attention(x, x, parameters | {"o.weight": np.eye(E)}, 1, causal=causal)
    assert_close(self_attention(x, parameters, causal=causal), got, terms=terms(x))


@given(texts(), st.randoms())
def test_without_positions_permuting_words_permutes_the_output(case, random):
    x, parameters = case
    order = random.sample(range(x.shape[1]), x.shape[1])
    for f in (*FORMS, lambda x: self_attention(x, parameters)):
        assert_close(f(x[:, order]), f(x)[:, order], terms=terms(x))


@given(texts(), st.randoms())
def test_a_subset_of_queries_gets_its_own_rows(case, random):
    x, p = case
    order = random.sample(range(x.shape[1]), x.shape[1])
    q, k, v = (x @ p[f"{n}.weight"].T + p.get(f"{n}.bias", 0.0) for n in "qkv")
    got = attention(q[:, None, order], k[:, None], v[:, None])[:, 0]
    assert_close(got, self_attention(x, p)[:, order], terms=terms(x))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "causal"])
def test_with_positions_the_order_of_words_matters(kind):
    rng, order = np.random.default_rng(0), np.array([3, 0, 2, 1])
    x, parameters = rng.normal(size=(1, 4, 6)), maps(6, 6, 6, rng)
    table = {"weight": rng.normal(size=(4, 6))}
    positions = {"sinusoidal": sinusoidal_position(np.arange(4), 6), "learned": learned_position(np.arange(4), table)}
    add, causal = positions.get(kind, 0.0), "top-left" if kind == "causal" else None

    def f(x):
        return self_attention(x + add, parameters, causal=causal)

    assert np.max(np.abs(f(x[:, order]) - f(x)[:, order])) > 0.01
    if kind != "causal":  # words that take their positions with them
        moved = self_attention((x + add)[:, order], parameters)
        assert_close(moved, f(x)[:, order], terms=terms(x))


@given(texts())
def test_a_causal_row_is_the_last_row_of_its_prefix(case):
    x, parameters = case
    got = self_attention(x, parameters, causal="top-left")
    np.testing.assert_array_equal(got, self_attention(x, parameters, mask=causal_mask(x.shape[1], x.shape[1])))
    for t in range(x.shape[1]):
        assert_close(got[:, t], self_attention(x[:, : t + 1], parameters)[:, t], terms=terms(x))


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_sizes(shape):
    for form in FORMS:
        assert form(np.zeros(shape)).shape == shape
        assert form(np.zeros(shape, dtype=np.float32)).dtype == np.float64
    parameters = {name: np.zeros((2, shape[2])) for name in ("q.weight", "k.weight", "v.weight")}
    assert self_attention(np.zeros(shape), parameters).shape == (*shape[:2], 2)


W = {"q.weight": np.ones((2, 3)), "k.weight": np.ones((2, 3)), "v.weight": np.ones((4, 3))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: plain_self_attention(x[0]), ShapeError, "x.shape=(2, 3): x has the 3 axes [B,T,M]"),
        (lambda x: plain_self_attention_by_rows(x[0]), ShapeError, "x.shape=(2, 3): x has the 3 axes [B,T,M]"),
        (lambda x: self_attention(x[0], W), ShapeError, "x.shape=(2, 3): x has the 3 axes [B,T,M]"),
        (lambda x: self_attention(x, {"q.weight": x}), ValueError,
         "parameters=['q.weight']: missing ['k.weight', 'v.weight'], unknown []"),
        (lambda x: self_attention(x, W | {"o.weight": x}), ValueError,
         "parameters=['k.weight', 'o.weight', 'q.weight', 'v.weight']: missing [], unknown ['o.weight']"),
        (lambda x: self_attention(x, W | {"k.weight": np.ones((1, 3))}), ShapeError, "D=2 in q and D=1 in k: D is one size"),
        (lambda x: self_attention(x, W | {"k.weight": np.ones((2, 5))}), ShapeError, "M=3 in the input of weight and M=5"),
        (lambda x: self_attention(x, W, mask=np.ones((3, 3), bool)), ShapeError, "mask.shape=(3, 3): mask broadcasts to"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(np.zeros((1, 2, 3)))
    assert str(caught.value).startswith(message)
