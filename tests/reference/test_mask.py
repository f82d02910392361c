import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.mask import additive_mask, causal_mask, padding_mask, visible_keys, window_mask
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import softmax
from tests.reference.drawn import cases, given, sees

SIZES = st.integers(0, 7)
ALIGNMENTS = st.sampled_from(["top-left", "bottom-right"])


def rows(mask):
    return ["".join("01"[int(seen)] for seen in row) for row in mask]


@pytest.mark.parametrize(
    ("T", "S", "alignment", "want"),
    [  # the pictures in the README of Dao-AILab/flash-attention, "2.1: Change behavior of causal flag"
        (2, 5, "top-left", ["10000", "11000"]),
        (5, 2, "top-left", ["10", "11", "11", "11", "11"]),
        (2, 5, "bottom-right", ["11110", "11111"]),
        (5, 2, "bottom-right", ["00", "00", "00", "10", "11"]),
        (3, 3, "top-left", ["100", "110", "111"]),
        (3, 3, "bottom-right", ["100", "110", "111"]),
    ],
)
def test_causal_pictures(T, S, alignment, want):
    assert rows(causal_mask(T, S, alignment)) == want


@pytest.mark.parametrize(
    ("T", "S", "window", "alignment", "side", "want"),
    [  # worked by hand from docs/notation.md, "Window"
        (4, 4, 1, "top-left", "left", ["1000", "0100", "0010", "0001"]),
        (4, 4, 2, "top-left", "left", ["1000", "1100", "0110", "0011"]),
        (4, 4, 2, "top-left", "both", ["1100", "1110", "0111", "0011"]),
        (2, 4, 2, "bottom-right", "left", ["0110", "0011"]),
        (2, 4, 2, "bottom-right", "both", ["0111", "0011"]),
        (4, 2, 1, "bottom-right", "left", ["00", "00", "10", "01"]),
        (4, 2, 1, "top-left", "left", ["10", "01", "00", "00"]),
    ],
)
def test_window_pictures(T, S, window, alignment, side, want):
    assert rows(window_mask(T, S, window, alignment, side)) == want


def test_defaults():
    assert rows(causal_mask(2, 3)) == ["100", "110"]
    assert rows(window_mask(3, 4, 2)) == ["1000", "1100", "0110"]


@given(SIZES, SIZES, ALIGNMENTS)
def test_wide_left_window_is_causal(T, S, alignment):
    np.testing.assert_array_equal(window_mask(T, S, T + S + 1, alignment), causal_mask(T, S, alignment))


@given(SIZES, SIZES, st.integers(1, 9), ALIGNMENTS)
def test_a_causal_window_is_the_left_half_of_both_sides(T, S, window, alignment):
    both = window_mask(T, S, window, alignment, "both")
    np.testing.assert_array_equal(both & causal_mask(T, S, alignment), window_mask(T, S, window, alignment))


def test_padding():
    mask = padding_mask(np.array([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    assert rows(mask[:, 0, 0]) == ["000", "110", "111"]
    assert padding_mask(np.array([0]), 0).shape == (1, 1, 1, 0)


def test_additive_mask_hides_by_adding():
    bias = additive_mask(np.array([[True, False], [False, False]]))
    assert bias.dtype == np.float64
    assert bias.tolist() == [[0.0, -np.inf], [-np.inf, -np.inf]]
    assert softmax(1.5 + bias).tolist() == [[1.0, 0.0], [0.0, 0.0]]


@given(cases())
def test_visible_keys_by_loops(case):
    q, k, _, options = case
    (B, H, T, _), S = q.shape, k.shape[2]
    mask, bias = options.get("mask", True), options.get("bias", 0.0)
    band = {name: options[name] for name in ("causal", "window", "window_side")}
    want = np.array([[sees(t, s, T, S, **band) for s in range(S)] for t in range(T)])
    got = visible_keys(T, S, mask=options.get("mask"), bias=options.get("bias"), **band)
    assert got.dtype == np.bool_
    assert got.shape[-2:] == (T, S)
    np.testing.assert_array_equal(
        np.broadcast_to(got, (B, H, T, S)), np.broadcast_to(want & mask & (bias > -np.inf), (B, H, T, S))
    )


def test_window_positions_follow_causal():
    assert rows(visible_keys(2, 4, window=1)) == ["1000", "0100"]
    assert rows(visible_keys(2, 4, window=1, causal="top-left")) == ["1000", "0100"]
    assert rows(visible_keys(2, 4, window=1, causal="bottom-right")) == ["0010", "0001"]
    assert rows(visible_keys(2, 4, window=2, window_side="both")) == ["1100", "1110"]
    assert rows(visible_keys(2, 4, window=2, window_side="both", causal="top-left")) == ["1000", "1100"]


def test_nothing_hides_nothing():
    assert visible_keys(2, 3).all()
    assert visible_keys(2, 3).shape == (2, 3)
    assert visible_keys(0, 3).shape == (0, 3)


def test_bias_hides_at_minus_infinity_only():
    bias = np.array([-np.inf, np.finfo(np.float64).min, 0.0, np.nan])
    assert rows(visible_keys(1, 4, bias=bias)) == ["0111"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: causal_mask(2, 2, "lower"), ValueError,
         "causal alignment='lower': it is one of top-left, bottom-right; pass one of these"),
        (lambda: visible_keys(2, 2, causal=True), ValueError, "causal alignment=True: it is one of top-left"),
        (lambda: window_mask(2, 2, 0), ValueError, "window=0: it counts the current key, so it is at least 1"),
        (lambda: window_mask(2, 2, 1, side="right"), ValueError, "window side='right': it is one of left, both; pass"),
        (lambda: window_mask(2, 2, 1, "lower"), ValueError, "causal alignment='lower': it is one of"),
        (lambda: padding_mask(np.array([[1]]), 2), ShapeError, "lengths.shape=(1, 1): lengths has the 1 axes [B]; add"),
        (lambda: padding_mask(np.array([1, 3]), 2), ValueError, "lengths=[1, 3]: each lies in 0..S with S=2; clip"),
        (lambda: padding_mask(np.array([-1]), 2), ValueError, "lengths=[-1]: each lies in 0..S with S=2; clip"),
        (lambda: visible_keys(2, 3, mask=np.ones((2, 3))), TypeError,
         "mask.dtype=float64: it is boolean, True = may attend; pass numbers as bias, or mask.astype(bool)"),
        (lambda: visible_keys(2, 3, mask=np.ones((3, 2), bool)), ShapeError,
         "mask.shape=(3, 2): mask broadcasts to [T,S] = (2, 3); give each axis its size or 1"),
        (lambda: visible_keys(1, 3, bias=np.zeros((2, 3))), ShapeError, "bias.shape=(2, 3): bias broadcasts to [T,S]"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("lengths", [[1.0, 2.0], [np.nan, 1.0], [True, False]])
def test_lengths_are_integers(lengths):
    with pytest.raises(TypeError, match=r"^lengths.dtype=(float64|bool): lengths count keys; pass integers"):
        padding_mask(np.array(lengths), 3)


@pytest.mark.parametrize("mask", [[0.0, -np.inf], [1, 0]])
def test_an_additive_mask_is_not_taken_for_a_boolean_one(mask):
    with pytest.raises(TypeError, match=r"^mask.dtype=(float64|int64): it is boolean, True = may attend; pass"):
        additive_mask(np.array(mask))
