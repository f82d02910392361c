import math

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from attnspec.reference.attention import attention, attention_weights, scores
from attnspec.reference.mask import additive_mask, causal_mask, visible_keys
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import log_sum_exp
from tests.reference.closeness import assert_close
from tests.reference.drawn import cases, given, loops

torch.set_num_threads(1)
LN2, LN3 = math.log(2), math.log(3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def terms(q, v):
    return q.shape[3] + v.shape[2] + v.shape[3]


def test_known_answer():
    # scores 0, ln 2, ln 3 give weights 1/6, 2/6, 3/6, so the output is (6·1 + 12·2 + 18·3) / 6
    q, k, v = np.array([[[[1.0]]]]), np.array([[[[0.0], [LN2], [LN3]]]]), np.array([[[[6.0], [12.0], [18.0]]]])
    assert_close(scores(q, k), [[[[0.0, LN2, LN3]]]])
    assert_close(attention_weights(q, k), [[[[1 / 6, 1 / 3, 1 / 2]]]])
    assert_close(attention(q, k, v), [[[[14.0]]]])
    assert_close(attention(q, k, v, mask=np.array([True, True, False])), [[[[10.0]]]])
    assert_close(attention(q, k, v, bias=np.array([LN3, -np.inf, 0.0])), [[[[12.0]]]])
    assert_close(attention(q, k, v, scale=0.0), [[[[12.0]]]])
    assert_close(attention(q, k, v, causal="top-left"), [[[[6.0]]]])
    assert_close(attention(q, k, v, causal="bottom-right"), [[[[14.0]]]])
    assert_close(attention(q, k, v, causal="bottom-right", window=1), [[[[18.0]]]])


def test_scale_is_one_over_the_root_of_the_head_width():
    assert scores(np.ones((1, 1, 1, 4)), np.ones((1, 1, 1, 4))).item() == 2.0
    assert scores(np.ones((1, 1, 1, 4)), np.ones((1, 1, 1, 4)), scale=3.0).item() == 12.0


def test_softcap_comes_before_bias_and_mask():
    q, k = np.ones((1, 1, 1, 1)), np.array([[[[1e9], [-1e9], [0.0], [1e9]]]])
    mask = np.array([True, True, True, False])
    assert scores(q, k, softcap=5.0, bias=np.array(7.0), mask=mask).tolist() == [[[[12.0, 2.0, 7.0, -np.inf]]]]


def test_query_heads_read_repeated_key_and_value_heads():
    q, k = np.zeros((1, 4, 1, 1)), np.zeros((1, 2, 1, 1))
    v = np.array([10.0, 20.0]).reshape(1, 2, 1, 1)
    assert attention(q, k, v).ravel().tolist() == [10.0, 10.0, 20.0, 20.0]


@given(cases())
def test_agrees_with_scalar_loops(case):
    q, k, v, options = case
    score, weights, out = loops(q, k, v, options)
    assert_close(scores(q, k, **options), score, terms=terms(q, v))
    assert_close(attention_weights(q, k, **options), weights, terms=terms(q, v))
    assert_close(attention(q, k, v, **options), out, terms=terms(q, v))


@given(cases(softcaps=False))
def test_agrees_with_torch(case):
    q, k, v, options = case
    shape = (*q.shape[:3], k.shape[2])
    band = {name: options[name] for name in ("causal", "window", "window_side")}
    visible = visible_keys(*shape[2:], mask=options.get("mask"), **band)
    bias = np.broadcast_to(additive_mask(visible) + options.get("bias", 0.0), shape).copy()
    want = scaled_dot_product_attention(
        *map(torch.tensor, (q, k, v)), torch.tensor(bias), scale=options["scale"], enable_gqa=True
    )
    assert_close(attention(q, k, v, **options), want.numpy(), terms=terms(q, v))


@pytest.mark.parametrize(("T", "S"), [(4, 4), (2, 5), (5, 2), (1, 3)])
def test_causal_is_torch_is_causal_at_top_left(T, S):
    q, k, v = normal(2, 4, T, 3), normal(2, 2, S, 3, seed=1), normal(2, 2, S, 5, seed=2)
    want = scaled_dot_product_attention(*map(torch.tensor, (q, k, v)), is_causal=True, enable_gqa=True)
    assert_close(attention(q, k, v, causal="top-left"), want.numpy(), terms=terms(q, v))


@given(cases())
def test_weights_follow_from_scores_and_lse(case):
    q, k, v, options = case
    score = scores(q, k, **options)
    lse = log_sum_exp(score)[..., None]
    weights = np.where(lse == -np.inf, 0.0, np.exp(score - np.where(lse == -np.inf, 0.0, lse)))
    assert_close(attention_weights(q, k, **options), weights, terms=terms(q, v))


@given(cases())
def test_hidden_keys_and_values_may_be_anything_finite(case):
    q, k, v, options = case
    hidden = ~(scores(q, k, **options) > -np.inf).any(axis=(0, 1, 2))  # hidden from every query of every head
    poisoned_k, poisoned_v = k.copy(), v.copy()
    poisoned_k[:, :, hidden], poisoned_v[:, :, hidden] = 1e150, -1e150
    np.testing.assert_array_equal(attention(q, poisoned_k, poisoned_v, **options), attention(q, k, v, **options))


HIDE_ALL = [
    {"mask": np.zeros((2, 3), bool)},
    {"bias": np.full((2, 3), -np.inf)},
    {"mask": np.array([True, False, False]), "bias": np.array([-np.inf, 0.5, -0.5])},
    {"mask": np.array([[False, True, True], [False, False, True]]), "causal": "top-left"},
    {"mask": np.array([[False, True, True], [True, False, True]]), "window": 1, "softcap": 2.0, "scale": 3.0},
]


@pytest.mark.parametrize("options", HIDE_ALL)
def test_empty_rows(options):
    q, k, v = normal(2, 4, 2, 3), normal(2, 2, 3, 3, seed=1), normal(2, 2, 3, 5, seed=2)
    ones = np.ones((2, 4, 2, 3))
    repeated = np.repeat(v, 2, axis=1)
    mean = np.broadcast_to(repeated.mean(axis=2, keepdims=True), (2, 4, 2, 5))
    assert (scores(q, k, **options) == -np.inf).all()
    for default in ({}, {"empty_row": "zero"}):
        assert (attention(q, k, v, **options, **default) == 0).all()
        assert (attention_weights(q, k, **options, **default) == 0).all()
    assert_close(attention(q, k, v, **options, empty_row="mean"), mean, terms=3)
    assert_close(attention_weights(q, k, **options, empty_row="mean"), ones / 3)
    assert np.isnan(attention(q, k, v, **options, empty_row="nan")).all()
    assert np.isnan(attention_weights(q, k, **options, empty_row="nan")).all()
    # a bias of -inf that hides a key counts as no bias there; a finite one stays
    bare = {name: options[name] for name in ("softcap", "scale") if name in options}
    bare["bias"] = np.where(options.get("bias", np.zeros(3)) == -np.inf, 0.0, options.get("bias", np.zeros(3)))
    assert_close(attention(q, k, v, **options, empty_row="unmasked"), loops(q, k, v, bare)[2], terms=terms(q, v))
    assert_close(attention_weights(q, k, **options, empty_row="unmasked"), loops(q, k, v, bare)[1], terms=terms(q, v))


def test_the_mean_of_a_single_hidden_value_is_that_value():
    q, k, v = normal(1, 1, 2, 3), normal(1, 1, 1, 3, seed=1), normal(1, 1, 1, 3, seed=2)
    got = attention(q, k, v, mask=np.array(False), empty_row="mean")
    np.testing.assert_array_equal(got, np.repeat(v, 2, axis=2))


@pytest.mark.parametrize("empty_row", ["mean", "unmasked", "nan"])
def test_policies_touch_empty_rows_only(empty_row):
    q, k, v = normal(1, 1, 4, 3), normal(1, 1, 2, 3, seed=1), normal(1, 1, 2, 3, seed=2)
    zero = attention(q, k, v, causal="bottom-right")  # T - S = 2 empty rows come first
    other = attention(q, k, v, causal="bottom-right", empty_row=empty_row)
    np.testing.assert_array_equal(other[:, :, 2:], zero[:, :, 2:])
    assert (zero[:, :, :2] == 0).all()
    assert (other[:, :, :2] != 0).all()


@pytest.mark.parametrize("empty_row", ["zero", "mean", "unmasked", "nan"])
def test_no_keys_give_zeros(empty_row):
    q, k, v = normal(1, 2, 3, 4), np.zeros((1, 1, 0, 4)), np.zeros((1, 1, 0, 5))
    assert attention(q, k, v, empty_row=empty_row).tolist() == np.zeros((1, 2, 3, 5)).tolist()
    assert attention_weights(q, k, empty_row=empty_row).shape == (1, 2, 3, 0)


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4)])
def test_other_sizes_of_zero(shape):
    B, H, T, D = shape
    assert attention(normal(*shape), normal(B, 1, 5, D), normal(B, 1, 5, 0)).shape == (B, H, T, 0)


def test_without_head_width_all_scores_are_zero():
    q, k, v = np.zeros((1, 1, 1, 0)), np.zeros((1, 1, 2, 0)), normal(1, 1, 2, 3)
    assert_close(attention(q, k, v, scale=1.0), v.mean(axis=2, keepdims=True))


def test_nan_reaches_exactly_the_rows_that_see_it():
    q, k, v = normal(1, 1, 3, 2), normal(1, 1, 3, 2, seed=1), normal(1, 1, 3, 2, seed=2)
    k[0, 0, 1] = np.nan
    assert np.isnan(attention(q, k, v, causal="top-left")).all(-1).tolist() == [[[False, True, True]]]
    assert np.isnan(attention(q, np.zeros_like(k), v, bias=np.array([0.0, np.nan, 0.0]))).all()


def test_narrow_inputs_are_widened_and_left_alone():
    q, k, v = (normal(1, 2, 3, 4, seed=seed).astype(np.float32) for seed in range(3))
    before = [array.copy() for array in (q, k, v)]
    got = attention(q, k, v)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, attention(*(array.astype(np.float64) for array in (q, k, v))))
    np.testing.assert_array_equal([q, k, v], before)


def test_masks_and_their_additive_form_agree():
    q, k, v = normal(1, 1, 3, 2), normal(1, 1, 4, 2, seed=1), normal(1, 1, 4, 2, seed=2)
    bias = additive_mask(causal_mask(3, 4, "bottom-right"))
    np.testing.assert_array_equal(attention(q, k, v, bias=bias), attention(q, k, v, causal="bottom-right"))


@pytest.mark.parametrize(
    ("shapes", "options", "error", "message"),
    [
        (((2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), {}, ShapeError,
         "q.shape=(2, 3, 4): q has the 4 axes [B,H,T,D]; add or remove axes"),
        (((1, 2, 3, 4), (2, 3, 4), (1, 2, 3, 4)), {}, ShapeError, "k.shape=(2, 3, 4): k has the 4 axes [B,G,S,D]"),
        (((1, 2, 3, 4), (1, 2, 3, 4), (2, 3, 4)), {}, ShapeError, "v.shape=(2, 3, 4): v has the 4 axes [B,G,S,E]"),
        (((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 6, 4)), {}, ShapeError, "S=5 in k and S=6 in v: S is one size; slice"),
        (((1, 2, 3, 4), (1, 2, 5, 3), (1, 2, 5, 4)), {}, ShapeError, "D=4 in q and D=3 in k: D is one size; slice"),
        (((1, 2, 3, 4), (3, 2, 5, 4), (3, 2, 5, 4)), {}, ShapeError, "B=1 in q and B=3 in k: B is one size; slice"),
        (((1, 2, 3, 4), (1, 1, 5, 4), (1, 2, 5, 4)), {}, ShapeError, "G=1 in k and G=2 in v: G is one size; slice"),
        (((1, 6, 3, 4), (1, 4, 5, 4), (1, 4, 5, 4)), {}, ShapeError, "H=6 with G=4: H is a multiple of G; repeat"),
        (((1, 1, 3, 0), (1, 1, 5, 0), (1, 1, 5, 4)), {}, ShapeError,
         "D=0 in q and k: the default scale 1/sqrt(D) needs D > 0; pass scale"),
        (((1, 1, 1, 1),) * 3, {"softcap": 0.0}, ValueError, "softcap=0.0: a soft cap is positive; pass None"),
        (((1, 1, 1, 1),) * 3, {"window": 0}, ValueError, "window=0: it counts the current key"),
        (((1, 1, 1, 1),) * 3, {"causal": "lower"}, ValueError, "causal alignment='lower': it is one of"),
        (((1, 1, 1, 1),) * 3, {"mask": np.ones((2, 1), bool)}, ShapeError,
         "mask.shape=(2, 1): mask broadcasts to [B,H,T,S] = (1, 1, 1, 1); give each axis its size or 1"),
        (((2, 2, 1, 1),) * 3, {"bias": np.ones((3, 1, 1, 1))}, ShapeError, "bias.shape=(3, 1, 1, 1): bias broadcasts"),
        (((1, 1, 1, 1),) * 3, {"mask": np.ones((1, 1))}, TypeError, "mask.dtype=float64: it is boolean"),
        (((1, 1, 1, 1),) * 3, {"empty_row": "raises"}, ValueError,
         "empty_row='raises': it is one of zero, mean, nan, unmasked; pass one of these"),
    ],
)  # fmt: skip
def test_errors(shapes, options, error, message):
    with pytest.raises(error) as caught:
        attention(*(np.zeros(shape) for shape in shapes), **options)
    assert str(caught.value).startswith(message)


def test_errors_without_values():
    with pytest.raises(ShapeError) as caught:
        scores(np.zeros((1, 2, 3, 4)), np.zeros((2, 3, 4)))
    assert str(caught.value).startswith("k.shape=(2, 3, 4): k has the 4 axes [B,G,S,D]")
