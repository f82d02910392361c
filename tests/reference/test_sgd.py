import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.sgd import sgd
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

ONE = {"w": np.array([1.0, -2.0])}
G = {"w": np.array([0.5, 0.25])}


def test_known_answers():
    new, velocity = sgd(ONE, G, {}, rate=2.0)
    assert new["w"].tolist() == [0.0, -2.5]
    assert velocity["w"].tolist() == [0.5, 0.25]
    new, velocity = sgd(ONE, G, velocity, rate=2.0, momentum=0.5)
    assert velocity["w"].tolist() == [0.75, 0.375]
    assert new["w"].tolist() == [-0.5, -2.75]
    new, velocity = sgd(ONE, G, {}, rate=2.0, momentum=0.5, nesterov=True)
    assert velocity["w"].tolist() == [0.5, 0.25]
    assert new["w"].tolist() == [-0.5, -2.75]
    assert sgd(ONE, G, {}, rate=1.0, weight_decay=0.5)[0]["w"].tolist() == [0.0, -1.25]


@given(st.floats(0, 0.9), st.integers(1, 8))
def test_velocity_is_the_decayed_sum_of_gradients(momentum, steps):
    parameters, velocity = {"w": np.zeros(1)}, {}
    gradients = np.random.default_rng(steps).normal(size=steps)
    for g in gradients:
        parameters, velocity = sgd(parameters, {"w": np.array([g])}, velocity, rate=0.1, momentum=momentum)
    want = sum(g * momentum ** (steps - 1 - t) for t, g in enumerate(gradients))
    assert_close(velocity["w"], [want], terms=4 * steps)


def test_goes_down_a_hill_and_leaves_its_inputs_alone():
    parameters = {"w": np.array([3.0])}
    before, velocity = parameters, {}
    for _ in range(60):
        parameters, velocity = sgd(parameters, {"w": 2 * parameters["w"]}, velocity, rate=0.05, momentum=0.5)
    assert abs(parameters["w"][0]) < 0.01
    assert before["w"].tolist() == [3.0]


def test_no_parameters():
    assert sgd({}, {}, {}, rate=0.1) == ({}, {})


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((ONE, {}, {}), {}, ValueError, "names=[] of gradients or memory: the names are those of the parameters ['w']; pass"),
        ((ONE, G, {"v": 1.0}), {}, ValueError, "names=['v'] of gradients or memory: the names are those of"),
        ((ONE, {"w": np.zeros(3)}, {}), {}, ShapeError,
         "shape=(3,) of a gradient or memory of w: it has the shape (2,) of the parameter w; pass the gradient of w"),
        ((ONE, G, {"w": np.zeros(1)}), {}, ShapeError, "shape=(1,) of a gradient or memory of w: it has the shape (2,)"),
        ((ONE, G, {}), {"rate": -1.0}, ValueError, "rate=-1.0: it is at least 0; choose another rate"),
        ((ONE, G, {}), {"rate": np.nan}, ValueError, "rate=nan: it is at least 0"),
        ((ONE, G, {}), {"weight_decay": -0.5}, ValueError, "weight_decay=-0.5: it is at least 0"),
        ((ONE, G, {}), {"momentum": 1.0}, ValueError, "momentum=1.0: it lies in [0, 1); choose another momentum"),
        ((ONE, G, {}), {"momentum": -0.1}, ValueError, "momentum=-0.1: it lies in [0, 1)"),
    ],
)  # fmt: skip
def test_errors(arguments, options, error, message):
    with pytest.raises(error) as caught:
        sgd(*arguments, **{"rate": 0.1, **options})
    assert str(caught.value).startswith(message)
