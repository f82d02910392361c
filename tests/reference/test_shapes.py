import inspect

import numpy as np
import pytest

from attnspec.reference import attention, shapes
from attnspec.reference.shapes import ShapeError, check_broadcasts, check_rank, check_size, check_values


def test_rank():
    check_rank("x", np.zeros((1, 0)), "BT")
    with pytest.raises(ShapeError) as caught:
        check_rank("q", np.zeros((2, 3)), "BHTD")
    rule = "q has the 4 axes [B,H,T,D]; add or remove axes, as q[None] adds a first one"
    assert str(caught.value) == f"q.shape=(2, 3): {rule}"


@pytest.mark.parametrize("shape", [(), (3,), (1,), (2, 3), (1, 3), (2, 1), (5, 2, 3), (1, 1, 1)])
def test_broadcasts(shape):
    check_broadcasts("mask", shape, "BTS", (5, 2, 3))


@pytest.mark.parametrize("shape", [(2,), (0,), (3, 3), (3, 2), (2, 2, 3), (1, 5, 2, 3)])
def test_does_not_broadcast(shape):
    with pytest.raises(ShapeError) as caught:
        check_broadcasts("mask", shape, "BTS", (5, 2, 3))
    rule = "mask broadcasts to [B,T,S] = (5, 2, 3); give each axis its size or 1, in this order"
    assert str(caught.value) == f"mask.shape={shape}: {rule}"


def test_size():
    check_size("S", "k", 0, "v", 0)
    with pytest.raises(ShapeError) as caught:
        check_size("S", "k", 5, "v", 6)
    assert str(caught.value) == "S=5 in k and S=6 in v: S is one size; slice, pad or project k or v"


@pytest.mark.parametrize(
    ("k", "v", "message"),
    [
        ((2, 3, 4), (2, 3, 4, 5), "k.shape=(2, 3, 4): k has the 4 axes [B,G,S,D]"),
        ((2, 3, 4, 5), (3, 4, 5), "v.shape=(3, 4, 5): v has the 4 axes [B,G,S,E]"),
        ((2, 3, 4, 5), (1, 3, 4, 5), "B=2 in k and B=1 in v"),
        ((2, 3, 4, 5), (2, 1, 4, 5), "G=3 in k and G=1 in v"),
        ((2, 3, 4, 5), (2, 3, 5, 5), "S=4 in k and S=5 in v"),
    ],
)
def test_values(k, v, message):
    with pytest.raises(ShapeError) as caught:
        check_values(np.zeros(k), np.zeros(v))
    assert str(caught.value).startswith(message)
    check_values(np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4, 0)))


def test_a_shape_error_is_a_value_error():
    assert issubclass(ShapeError, ValueError)


@pytest.mark.parametrize(
    ("options", "function"),
    [(shapes.ScoreOptions, attention.scores), (shapes.AttentionOptions, attention.attention)],
)
def test_option_types_name_the_keywords_of_their_function(options, function):
    parameters = inspect.signature(function).parameters.values()
    keywords = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert options.__annotations__ == keywords
