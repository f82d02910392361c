import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.attention import attention, scores
from attnspec.reference.rotary_position import rotate, rotate_backward
from attnspec.reference.shapes import ShapeError
from attnspec.reference.sinusoidal_position import sinusoidal_position
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

PAIRS = ["half", "interleaved"]


@st.composite
def turned(draw):
    """x, positions, one row for all or one for each sequence, and options."""
    B, H, T, half = (draw(st.integers(1, 3), label=name) for name in ("B", "H", "T", "D / 2"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    shape = (B, T) if draw(st.booleans(), label="positions of their own") else (T,)
    options = {
        "base": draw(st.sampled_from([10000.0, 500000.0, 3.0]), label="base"),
        "pairs": draw(st.sampled_from(PAIRS), label="pairs"),
        "width": 2 * draw(st.integers(0, half), label="W / 2"),
    }
    D = 2 * half + draw(st.integers(0, 1), label="odd")
    return rng.normal(size=(B, H, T, D)), rng.integers(0, 200, size=shape), options


def test_known_answer():
    # a quarter turn of the pair (1, 2) is (-2, 1); the second frequency is 1/100
    x, quarter = np.array([[[[1.0, 2.0, 10.0, 20.0]]]]), np.array([np.pi / 2])
    s, c = np.sin(np.pi / 200), np.cos(np.pi / 200)
    assert_close(rotate(x, quarter, pairs="interleaved"), [[[[-2.0, 1.0, 10 * c - 20 * s, 20 * c + 10 * s]]]])
    assert_close(rotate(x, quarter), [[[[-10.0, 2 * c - 20 * s, 1.0, 20 * c + 2 * s]]]])
    assert_close(rotate(x, quarter, width=2), [[[[-2.0, 1.0, 10.0, 20.0]]]])
    assert_close(rotate(x, quarter, base=1.0, pairs="interleaved"), [[[[-2.0, 1.0, -20.0, 10.0]]]])
    np.testing.assert_array_equal(rotate(x, np.zeros(1)), x)


@given(turned())
def test_each_pair_is_a_complex_number_times_a_phase(case):
    x, positions, options = case
    W = options["width"]
    first, second = (
        (slice(0, W, 2), slice(1, W, 2)) if options["pairs"] == "interleaved" else (slice(W // 2), slice(W // 2, W))
    )
    angles = np.broadcast_to(positions, (len(x), x.shape[2]))[:, None, :, None]
    angles = angles * options["base"] ** (-np.arange(0, W, 2) / max(W, 1))
    product, want = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles), x.copy()
    want[..., first], want[..., second] = product.real, product.imag
    assert_close(rotate(x, positions, **options), want, terms=200)


@given(turned())
def test_half_and_interleaved_pairs_are_a_permutation_of_channels(case):
    x, positions, options = case
    W, D = options["width"], x.shape[3]
    order = np.concatenate([np.arange(0, W, 2), np.arange(1, W, 2), np.arange(W, D)])  # interleaved -> half
    half, interleaved = ({**options, "pairs": pairs} for pairs in PAIRS)
    np.testing.assert_array_equal(rotate(x[..., order], positions, **half), rotate(x, positions, **interleaved)[..., order])


@given(turned(), st.integers(-100, 100))
def test_scores_depend_on_distances_only(case, shift):
    x, positions, options = case
    q, k = x, np.random.default_rng(1).normal(size=x.shape)

    def score(positions):
        return scores(rotate(q, positions, **options), rotate(k, positions, **options))

    assert_close(score(positions + shift), score(positions), terms=400 * x.shape[3])


def test_scores_depend_on_distances():
    x, k = np.random.default_rng(0).normal(size=(2, 1, 1, 4, 6))
    near, far = (scores(rotate(x, np.arange(4) * step), rotate(k, np.arange(4) * step)) for step in (1, 2))
    off_diagonal = ~np.eye(4, dtype=bool)
    assert (np.abs(near - far)[0, 0][off_diagonal] > 1e-3).all()
    assert_close(np.diagonal(near[0, 0]), np.diagonal(far[0, 0]), terms=6)


@given(turned())
def test_lengths_are_kept(case):
    x, positions, options = case
    got = np.sum(rotate(x, positions, **options) ** 2, axis=-1)
    assert_close(got, np.sum(x**2, axis=-1), terms=4 * x.shape[3])


@given(turned())
def test_the_gradient_is_the_transpose_and_the_inverse(case):
    x, positions, options = case
    do = np.random.default_rng(2).normal(size=x.shape)
    got = np.sum(rotate_backward(do, positions, **options) * x)
    assert_close(got, np.sum(do * rotate(x, positions, **options)), terms=4 * x.size)
    assert_close(rotate_backward(rotate(x, positions, **options), positions, **options), x, terms=4)


def test_turns_ones_into_the_sinusoidal_table():
    table = sinusoidal_position(np.arange(5), 6)
    start = np.zeros((1, 1, 5, 6))
    start[..., 0::2] = 1.0  # (cos, sin) of the angle, against the table's (sin, cos)
    got = rotate(start, np.arange(5), pairs="interleaved")[0, 0]
    np.testing.assert_array_equal(got.reshape(5, 3, 2)[..., ::-1].reshape(5, 6), table)


def test_permuting_words_with_their_positions_changes_nothing():
    x, order, positions = np.random.default_rng(0).normal(size=(1, 2, 4, 6)), np.array([2, 0, 3, 1]), np.arange(4)

    def attend(x, positions):
        turned = rotate(x, positions)
        return attention(turned, turned, x)

    assert_close(attend(x[:, :, order], positions[order]), attend(x, positions)[:, :, order], terms=16)
    assert np.max(np.abs(attend(x[:, :, order], positions) - attend(x, positions)[:, :, order])) > 0.01


def test_empty_sizes():
    for shape in ((0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)):
        assert rotate(np.zeros(shape), np.arange(shape[2])).shape == shape
        assert rotate(np.zeros(shape), np.arange(shape[2]), pairs="interleaved").shape == shape
    assert rotate(np.ones((1, 1, 1, 2), dtype=np.float32), np.arange(1)).dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "positions", "options", "error", "message"),
    [
        ((2, 3, 4), 3, {}, ShapeError, "x.shape=(2, 3, 4): x has the 4 axes [B,H,T,D]"),
        ((1, 2, 3, 4), 4, {}, ShapeError,
         "positions.shape=(4,): each of the T=3 positions of x has one, the same for the batch or not; pass (3,) or (1, 3)"),
        ((1, 2, 3, 5), 3, {}, ValueError, "width=5: channels turn in pairs, so it is even and in 0..D with D=5; pass"),
        ((1, 2, 3, 4), 3, {"width": 6}, ValueError, "width=6: channels turn in pairs, so it is even and in 0..D with D=4"),
        ((1, 2, 3, 4), 3, {"width": -2}, ValueError, "width=-2: channels turn"),
        ((1, 2, 3, 4), 3, {"pairs": "neox"}, ValueError, "pairs='neox': it is one of half, interleaved; pass one of these"),
    ],
)  # fmt: skip
def test_errors(shape, positions, options, error, message):
    for call in (rotate, rotate_backward):
        with pytest.raises(error) as caught:
            call(np.zeros(shape), np.arange(positions), **options)
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("base", [0.0, -2.0, np.nan])
def test_a_base_without_powers_is_refused(base):
    with pytest.raises(ValueError, match=rf"^base={base}: frequencies are its powers, so it is positive; pass 10000.0"):
        rotate(np.ones((1, 1, 2, 4)), np.arange(2), base)
