import numpy as np
import pytest

from attnspec.reference.parameters import part
from attnspec.reference.recurrent import initial_state, layer_runs, recurrent
from attnspec.reference.recurrent_layer import recurrent_layer
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import CELLS, STATES, runs, stack_parameters, state_of

RNG = np.random.default_rng(0)
B, T, M, N = 3, 5, 2, 4


@given(runs())
def test_is_one_layer_after_the_other(run):
    out, final = recurrent(**run)
    x, names, start = run["x"], run["parameters"], 0
    state = run["state"] or tuple(np.zeros((99, x.shape[0], out.shape[2])) for _ in range(STATES[run["cell"]]))
    for number in range(len({name.split(".")[0] for name in names})):
        layer = part(names, str(number))
        stop = start + 1 + ("reverse.input.weight" in layer)
        begin = tuple(array[start:stop, :, : layer["hidden.weight"].shape[1]] for array in state)
        x, end = recurrent_layer(x, begin, layer, run["cell"], run["lengths"])
        np.testing.assert_array_equal([array[start:stop] for array in final], end)
        start = stop
    np.testing.assert_array_equal(out, x)
    assert {array.shape[0] for array in final} == {start}


@given(runs())
def test_without_a_state_it_starts_from_zeros(run):
    zeros = initial_state(run["parameters"], run["x"].shape[0], run["cell"])
    out, final = recurrent(**run | {"state": None})
    out_zeros, final_zeros = recurrent(**run | {"state": zeros})
    np.testing.assert_array_equal(out, out_zeros)
    np.testing.assert_array_equal(final, final_zeros)


@given(runs())
def test_a_row_does_not_see_the_others(run):
    out, final = recurrent(**run)
    for b in range(run["x"].shape[0]):
        alone = run | {"x": run["x"][b : b + 1]}
        alone["lengths"] = None if run["lengths"] is None else run["lengths"][b : b + 1]
        alone["state"] = None if run["state"] is None else tuple(array[:, b : b + 1] for array in run["state"])
        got, end = recurrent(**alone)
        assert_close(got[0], out[b], terms=2000)  # three layers of five steps, each of some twenty terms, amplified
        assert_close([array[:, 0] for array in end], [array[:, b] for array in final], terms=2000)


@given(runs())
def test_the_last_output_is_the_last_state_of_the_top_layer(run):
    out, final = recurrent(**run)
    lengths = np.full(out.shape[0], out.shape[1]) if run["lengths"] is None else run["lengths"]
    both = "0.reverse.input.weight" in run["parameters"]
    N = final[0].shape[2]
    for b, n in enumerate(lengths):
        if n > 0:
            np.testing.assert_array_equal(out[b, n - 1, :N], final[0][-2 if both else -1, b])
            if both:
                np.testing.assert_array_equal(out[b, 0, N:], final[0][-1, b])


def test_directions_may_be_mixed():
    # as in arXiv:1609.08144 sec. 3.2: only the first layer is bidirectional
    both = stack_parameters(RNG, "lstm", M, N, directions=2)
    above = stack_parameters(RNG, "lstm", 2 * N, N)
    parameters = both | {name.replace("0.", "1.", 1): array for name, array in above.items()}
    x = RNG.normal(size=(B, T, M))
    out, (h, c) = recurrent(x, parameters)
    np.testing.assert_array_equal(out, recurrent(recurrent(x, both)[0], above)[0])
    assert (h.shape, c.shape) == ((3, B, N), (3, B, N))
    assert [(runs.start, runs.stop) for _, runs in layer_runs(parameters)] == [(0, 2), (2, 3)]


def test_more_than_ten_layers_keep_their_order():
    parameters = stack_parameters(RNG, "rnn", 1, 1, layers=12)
    got = [layer["input.weight"].item() for layer, _ in layer_runs(parameters)]
    assert got == [parameters[f"{number}.input.weight"].item() for number in range(12)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("b", "t", "m", "n"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_empty_sizes(cell, b, t, m, n):
    parameters = stack_parameters(RNG, cell, m, n, layers=2, directions=2)
    out, final = recurrent(np.ones((b, t, m)), parameters, cell)
    assert (out.shape, [array.shape for array in final]) == ((b, t, 2 * n), [(4, b, n)] * STATES[cell])


def changed(**arrays):
    parameters = stack_parameters(RNG, "lstm", M, N, layers=2)
    return parameters | {f"1.{name.replace('_', '.')}": array for name, array in arrays.items()}


NAMES = "'0.hidden.bias', '0.hidden.weight', '0.input.bias', '0.input.weight'"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: recurrent(x[0], changed()), ShapeError, "x.shape=(5, 2): x has the 3 axes [B,T,M]"),
        (lambda x: recurrent(x, {}), ValueError, "parameters=[]: a stack has at least one layer; pass 0.input.weight"),
        (lambda x: recurrent(x, {f"1.{name}": x for name in ("input.weight", "hidden.weight")}), ValueError,
         "layers=['1']: layers are numbered from 0 without gaps; rename them"),
        (lambda x: recurrent(x, stack_parameters(RNG, "lstm", M, N) | {"input.weight": x}), ValueError,
         "layers=['0', 'input']: layers are numbered from 0 without gaps; rename them"),
        (lambda x: recurrent(x, {"0.input.weight": x}), ValueError,
         "parameters=['0.input.weight']: each of the 1 runs has a hidden.weight; pass all of them"),
        (lambda x: recurrent(x, changed(), state=state_of(RNG, "lstm", 1, B, N)), ShapeError,
         "h.shape=(1, 3, 4): the state is [R,B,N] = (2, 3, 4); stack one for each run"),
        (lambda x: recurrent(x, changed(), state=(np.ones((2, B, N)), np.ones((2, B)))), ShapeError,
         "c.shape=(2, 3): the state is [R,B,N] = (2, 3, 4)"),
        (lambda x: recurrent(x, changed(), state=(np.ones((2, B, N)),)), ValueError, "a state of 1 arrays: the state of"),
        (lambda x: recurrent(x, changed(), "tree"), ValueError, "cell='tree': it is one of rnn, rnn_relu, lstm, gru,"),
        (lambda x: recurrent(x, changed(), lengths=np.array([6, 1, 1])), ValueError, "lengths=[6, 1, 1]: each lies in 0..S"),
        (lambda x: recurrent(x, changed(input_weight=np.ones((16, 3)))), ShapeError, "M=4 in x and M=3 in input.weight"),
        (lambda x: recurrent(x, changed(hidden_weight=np.ones((20, 5)))), ShapeError,
         "N=4 in 0.hidden.weight and N=5 in 1.hidden.weight: N is one size"),
        (lambda x: recurrent(x, changed(hidden_weight=np.ones(20))), ShapeError,
         "1.hidden.weight.shape=(20,): 1.hidden.weight has the 2 axes [F,N]"),
        (lambda x: recurrent(x, changed() | {"0.hidden.weight": np.ones(16)}), ShapeError,
         "0.hidden.weight.shape=(16,): 0.hidden.weight has the 2 axes [F,N]"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call(np.ones((B, T, M)))
    assert str(caught.value).startswith(message)
