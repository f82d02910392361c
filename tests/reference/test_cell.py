import numpy as np
import pytest

from attnspec.reference.cell import STATE, check_state, step, step_backward
from attnspec.reference.gru import gru_cell
from attnspec.reference.gru_backward import gru_backward
from attnspec.reference.lstm import lstm_cell
from attnspec.reference.lstm_backward import lstm_backward
from attnspec.reference.rnn import rnn_cell
from attnspec.reference.rnn_backward import rnn_backward
from tests.reference.recurrent_drawn import CELLS, STATES, layer_parameters, state_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3))
DIRECT = {
    "rnn": lambda x, h, p: (rnn_cell(x, h, p, "tanh"),),
    "rnn_relu": lambda x, h, p: (rnn_cell(x, h, p, "relu"),),
    "lstm": lstm_cell,
    "gru": lambda x, h, p: (gru_cell(x, h, p, "after"),),
    "gru_reset_before": lambda x, h, p: (gru_cell(x, h, p, "before"),),
}
BACKWARD = {
    "rnn": lambda x, h, p, do: rnn_backward(x, h, p, do, "tanh"),
    "rnn_relu": lambda x, h, p, do: rnn_backward(x, h, p, do, "relu"),
    "lstm": lambda x, h, c, p, dh, dc: lstm_backward(x, h, c, p, (dh, dc)),
    "gru": lambda x, h, p, do: gru_backward(x, h, p, do, "after"),
    "gru_reset_before": lambda x, h, p, do: gru_backward(x, h, p, do, "before"),
}


def test_every_cell_has_a_state():
    assert {cell: len(names) for cell, names in STATE.items()} == STATES


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_is_the_cell_of_this_name(cell):
    state, parameters = state_of(RNG, cell, 2, 4), layer_parameters(RNG, cell, 3, 4)
    np.testing.assert_array_equal(step(X, state, parameters, cell), DIRECT[cell](X, *state, parameters))


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_the_cell_of_this_name(cell):
    state, parameters = state_of(RNG, cell, 2, 4), layer_parameters(RNG, cell, 3, 4)
    cotangent = state_of(RNG, cell, 2, 4)
    dx, dstate, gradients = step_backward(X, state, parameters, cotangent, cell)
    want = BACKWARD[cell](X, *state, parameters, *cotangent)
    for got, array in zip((dx, *dstate), want[:-1], strict=True):
        np.testing.assert_array_equal(got, array)
    assert gradients.keys() == want[-1].keys()
    for name, array in want[-1].items():
        np.testing.assert_array_equal(gradients[name], array)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_have_the_structure_of_the_inputs(cell):
    state, parameters = state_of(RNG, cell, 2, 4), layer_parameters(RNG, cell, 3, 4)
    dx, dstate, gradients = step_backward(X, state, parameters, state, cell)
    assert (dx.shape, [array.shape for array in dstate]) == ((2, 3), [(2, 4)] * STATES[cell])
    assert {name: array.shape for name, array in gradients.items()} == {k: v.shape for k, v in parameters.items()}


@pytest.mark.parametrize(
    ("state", "cell", "message"),
    [
        ((X,), "mgu", "cell='mgu': it is one of rnn, rnn_relu, lstm, gru, gru_reset_before; pass one of these"),
        ((X,), "lstm", "a state of 1 arrays: the state of lstm is (h, c); pass a tuple of 2"),
        ((X, X), "gru", "a state of 2 arrays: the state of gru is (h,); pass a tuple of 1"),
    ],
)
def test_errors(state, cell, message):
    calls = (
        check_state,
        lambda state, cell: step(X, state, {}, cell),
        lambda state, cell: step_backward(X, state, {}, state, cell),
        lambda wrong, cell: step_backward(X, (X,) * STATES.get(cell, 1), {}, wrong, cell),  # the cotangent is a state too
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"it is one of|the state of") as caught:
            call(state, cell)
        assert str(caught.value) == message
