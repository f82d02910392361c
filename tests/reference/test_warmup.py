import re

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.warmup import warmup
from tests.reference.closeness import assert_close
from tests.reference.drawn import given


def test_known_answers():
    # the base model of arXiv:1706.03762: M = 512, 4000 steps of warm-up; its peak is 1 / sqrt(512 · 4000)
    assert_close(warmup(4000, 512), 2048000**-0.5)
    assert_close(warmup(np.array([1, 4, 16, 64]), 4, 16), [1 / 128, 1 / 32, 1 / 8, 1 / 16])


@given(st.integers(1, 1000), st.integers(1, 100))
def test_rises_linearly_and_falls_with_the_root(M, peak):
    rates = warmup(np.arange(1, 4 * peak + 1), M, peak)
    assert np.argmax(rates) == peak - 1
    assert_close(rates[:peak], rates[0] * np.arange(1, peak + 1))
    assert_close(rates[peak - 1 :], rates[peak - 1] * np.sqrt(peak / np.arange(peak, 4 * peak + 1)))


def test_no_steps():
    assert warmup(np.zeros(0, dtype=np.int64), 4).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 4), "step=0: it is at least 1; count step from 1"),
        ((np.array([2, -1]), 4, 4), "step=-1: it is at least 1"),
        ((1, 0, 4), "M=0: it is at least 1"),
        ((1, 4, 0), "warmup_steps=0: it is at least 1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        warmup(*arguments)
