import mpmath
import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.sinusoidal_position import sinusoidal_position
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

WIDTHS = st.integers(1, 8).map(lambda pairs: 2 * pairs)
FAR = 1_000_000


def exact(position, M):
    """The formula in 40 digits."""
    with mpmath.workdps(40):
        phases = [position / mpmath.mpf(10000) ** (mpmath.mpf(2 * i) / M) for i in range(M // 2)]
        return [float(f(phase)) for phase in phases for f in (mpmath.sin, mpmath.cos)]


def test_known_answer():
    # four channels: frequencies 1 and 1/100
    want = [[0.0, 1.0, 0.0, 1.0], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]]
    assert_close(sinusoidal_position(np.arange(2), 4), want)


@given(st.integers(-10, FAR), WIDTHS)
def test_is_the_formula_up_to_a_million(position, M):
    # a phase of p has p roundings of the frequency and the product: the terms
    assert_close(sinusoidal_position(np.array([position]), M), [exact(position, M)], terms=max(1, abs(position)) / 8)


@given(st.integers(0, 1000), st.integers(-1000, 1000), WIDTHS)
def test_a_step_turns_each_pair_by_an_angle_that_depends_on_the_step_only(position, step, M):
    # PE(p + k) = Rot(k) PE(p), the reason that the paper gives for the choice
    here, there = sinusoidal_position(np.array([position, position + step]), M).reshape(2, M // 2, 2)
    angles = step * 10000.0 ** (-2 * np.arange(M // 2) / M)
    sin, cos = here[:, 0], here[:, 1]
    turned = [sin * np.cos(angles) + cos * np.sin(angles), cos * np.cos(angles) - sin * np.sin(angles)]
    assert_close(np.stack(turned, axis=-1), there, terms=1000)


@given(st.integers(0, FAR), WIDTHS)
def test_all_positions_have_the_same_length(position, M):
    squares = np.sum(sinusoidal_position(np.array([position]), M) ** 2)
    assert_close(squares, M / 2, terms=M)


def test_positions_of_any_shape():
    positions = np.array([[0, 5], [7, 2], [1, 1]])
    got = sinusoidal_position(positions, 6)
    assert got.shape == (3, 2, 6)
    np.testing.assert_array_equal(got[1, 0], sinusoidal_position(np.arange(8), 6)[7])
    assert sinusoidal_position(np.arange(0), 6).shape == (0, 6)


@pytest.mark.parametrize("M", [-2, 0, 1, 7])
def test_errors(M):
    with pytest.raises(
        ValueError, match=rf"^M={M}: sines and cosines come in pairs, so the width is even and positive; pass"
    ):
        sinusoidal_position(np.arange(2), M)
