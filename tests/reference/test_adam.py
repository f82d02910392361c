import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.adam import adam, adamw
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

ONE = {"w": np.array([1.0, -2.0])}
G = {"w": np.array([0.5, -0.25])}


@pytest.mark.parametrize("step", [adam, adamw])
def test_known_answers(step):
    # after one step m^ = g and v^ = g²: each weight moves by the rate against the sign of its gradient
    new, mean, square = step(ONE, G, {}, {}, 1, rate=0.125, eps=0.0, weight_decay=0.0)
    assert_close(new["w"], [0.875, -1.875])
    assert_close(mean["w"], [0.05, -0.025])
    assert_close(square["w"], [0.00025, 0.0000625])
    # gradients g then -g with betas of 1/2: m = g/4 - g/2, m^ = -g/3; v = g²/4 + g²/2, v^ = g²
    halves = {"beta1": 0.5, "beta2": 0.5, "eps": 0.0, "weight_decay": 0.0}
    _, mean, square = step(ONE, G, {}, {}, 1, rate=0.0, **halves)
    new, mean, square = step(ONE, {"w": -G["w"]}, mean, square, 2, rate=3.0, **halves)
    assert_close(new["w"], [2.0, -3.0])
    assert_close(mean["w"], -G["w"] / 4)
    assert_close(square["w"], 0.75 * G["w"] ** 2)


@pytest.mark.parametrize("step", [adam, adamw])
def test_eps_is_added_to_the_root(step):
    # of 0.5² and 0.25²; inside the root it would be added to the squares
    new, _, _ = step(ONE, G, {}, {}, 1, rate=3.0, eps=0.5, weight_decay=0.0)
    assert_close(new["w"], [1.0 - 3 * 0.5 / (0.5 + 0.5), -2.0 + 3 * 0.25 / (0.25 + 0.5)])


def test_decay_inside_and_beside_the_gradient():
    zero = {"w": np.zeros(2)}
    assert_close(adamw(ONE, zero, {}, {}, 1, rate=0.5, weight_decay=0.5)[0]["w"], [0.75, -1.5])
    # in Adam the decay is a gradient like any other: the step has the length of the rate
    assert_close(adam(ONE, zero, {}, {}, 1, rate=0.5, eps=0.0, weight_decay=0.5)[0]["w"], [0.5, -1.5])


@given(st.floats(1e-3, 1e3), st.integers(1, 6))
def test_the_size_of_the_gradient_does_not_matter(factor, steps):
    results = []
    for scale in (1.0, factor):
        rng, w, m, v = np.random.default_rng(steps), ONE, {}, {}
        for n in range(1, steps + 1):
            w, m, v = adam(w, {"w": scale * rng.normal(size=2)}, m, v, n, rate=0.1, eps=0.0)
        results.append(w["w"])
    assert_close(results[1], results[0], terms=1000 * steps)  # 1 - beta2^n is of order 1/1000


def test_no_parameters():
    assert adam({}, {}, {}, {}, 1, rate=0.1) == ({}, {}, {})
    assert adamw({}, {}, {}, {}, 1, rate=0.1) == ({}, {}, {})


@pytest.mark.parametrize("function", [adam, adamw])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ONE, {"v": 1.0}, {}, {}, 1), {}, ValueError, "names=['v'] of gradients or memory: the names are those of"),
        ((ONE, G, {"v": 1.0}, {}, 2), {}, ValueError, "names=['v'] of gradients or memory"),
        ((ONE, G, {}, {"v": 1.0}, 2), {}, ValueError, "names=['v'] of gradients or memory"),
        ((ONE, {"w": np.zeros(3)}, {}, {}, 1), {}, ShapeError, "shape=(3,) of a gradient or memory of w: it has the shape"),
        ((ONE, G, {}, {}, 0), {}, ValueError, "step=0: the first step is 1; pass the number of steps so far"),
        ((ONE, G, {}, {}, 1), {"beta1": 1.0}, ValueError, "beta1=1.0: it lies in [0, 1); choose another beta1"),
        ((ONE, G, {}, {}, 1), {"beta2": -0.1}, ValueError, "beta2=-0.1: it lies in [0, 1)"),
        ((ONE, G, {}, {}, 1), {"eps": -1.0}, ValueError, "eps=-1.0: it is at least 0"),
        ((ONE, G, {}, {}, 1), {"rate": -1.0}, ValueError, "rate=-1.0: it is at least 0"),
        ((ONE, G, {}, {}, 1), {"weight_decay": -1.0}, ValueError, "weight_decay=-1.0: it is at least 0"),
    ],
)  # fmt: skip
def test_errors(function, arguments, options, error, message):
    with pytest.raises(error) as caught:
        function(*arguments, **{"rate": 0.1, **options})
    assert str(caught.value).startswith(message)
