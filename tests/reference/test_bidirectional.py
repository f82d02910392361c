import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.bidirectional import bidirectional, bidirectional_backward
from attnspec.reference.parameters import prefixed
from attnspec.reference.recurrent_layer import directions, recurrent_layer, recurrent_layer_backward
from attnspec.reference.shapes import ShapeError
from attnspec.reference.unroll import unroll
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import CELLS, assert_is_gradient, layer_parameters, state_of

B, T, M, N = 3, 5, 2, 4
TERMS = 20 * T * (M + N)


def drawn(cell, seed=0):
    rng = np.random.default_rng(seed)
    ahead, back = layer_parameters(rng, cell, M, N), layer_parameters(rng, cell, M, N)
    return rng.normal(size=(B, T, M)), state_of(rng, cell, 2, B, N), ahead, back, rng.integers(0, T + 1, size=B)


@given(st.sampled_from(CELLS), st.integers(0, 999))
def test_is_a_run_and_a_reversed_run_on_the_reversed_valid_prefix(cell, seed):
    x, state, ahead, back, lengths = drawn(cell, seed)
    out, final = bidirectional(x, state, ahead | prefixed("reverse", back), cell, lengths)
    for b, n in enumerate(lengths):
        row = x[b : b + 1, :n]
        one, end_one = unroll(row, tuple(array[0, b : b + 1] for array in state), ahead, cell)
        other, end_other = unroll(row[:, ::-1], tuple(array[1, b : b + 1] for array in state), back, cell)
        assert_close(out[b, :n], np.concatenate([one[0], other[0, ::-1]], axis=-1), terms=TERMS)
        ends = [np.stack(pair)[:, 0] for pair in zip(end_one, end_other, strict=True)]
        assert_close([array[:, b] for array in final], ends, terms=TERMS)
        assert np.all(out[b, n:] == 0)


@given(st.sampled_from(CELLS), st.integers(0, 999))
def test_reversing_the_input_and_exchanging_the_runs_reverses_the_output(cell, seed):
    x, state, ahead, back, _ = drawn(cell, seed)
    out, final = bidirectional(x, state, ahead | prefixed("reverse", back), cell)
    exchanged = back | prefixed("reverse", ahead)
    mirrored, ends = bidirectional(x[:, ::-1], tuple(array[::-1] for array in state), exchanged, cell)
    assert_close(mirrored, np.concatenate([out[:, ::-1, N:], out[:, ::-1, :N]], axis=-1), terms=TERMS)
    assert_close([array[::-1] for array in ends], final, terms=TERMS)


@given(st.sampled_from([cell for cell in CELLS if cell != "rnn_relu"]), st.integers(0, 99), max_examples=40)
def test_gradients_agree_with_central_differences(cell, seed):
    rng = np.random.default_rng(seed)
    x, state, lengths = rng.normal(size=(2, 3, 1)), state_of(rng, cell, 2, 2, 1), rng.integers(0, 4, size=2)
    parameters = layer_parameters(rng, cell, 1, 1) | prefixed("reverse", layer_parameters(rng, cell, 1, 1))
    dout, dfinal = rng.normal(size=(2, 3, 2)), state_of(rng, cell, 2, 2, 1)

    def loss(x, *rest):
        *state, parameters = rest
        out, final = bidirectional(x, tuple(state), parameters, cell, lengths)
        return np.sum(dout * out) + sum(np.sum(d * s) for d, s in zip(dfinal, final, strict=True))

    dx, dstate, gradients = bidirectional_backward(x, state, parameters, dout, dfinal, cell, lengths)
    assert_is_gradient(loss, (dx, *dstate, gradients), (x, *state, parameters))


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_has_the_directions_that_it_has_parameters_for(cell):
    x, state, ahead, back, lengths = drawn(cell)
    both = ahead | prefixed("reverse", back)
    assert (directions({}), directions(ahead), directions(both)) == (1, 1, 2)
    want, final = bidirectional(x, state, both, cell, lengths)
    np.testing.assert_array_equal(recurrent_layer(x, state, both, cell, lengths)[0], want)
    dx, dstate, _ = bidirectional_backward(x, state, both, want, final, cell, lengths)
    got = recurrent_layer_backward(x, state, both, want, final, cell, lengths)
    np.testing.assert_array_equal(got[0], dx)
    np.testing.assert_array_equal(got[1], dstate)
    alone, end = recurrent_layer(x, tuple(array[:1] for array in state), ahead, cell, lengths)
    np.testing.assert_array_equal(alone, want[..., :N])
    np.testing.assert_array_equal(end, [array[:1] for array in final])
    start = tuple(array[:1] for array in state)
    dx_alone, dstart, own = recurrent_layer_backward(x, start, ahead, want[..., :N], end, cell, lengths)
    assert (dx_alone.shape, [array.shape for array in dstart], set(own)) == (x.shape, [(1, B, N)] * len(state), set(ahead))


def test_errors():
    x, state, ahead, back, _ = drawn("lstm")
    for width in (N, 3 * N):
        with pytest.raises(ShapeError) as caught:
            bidirectional_backward(x, state, ahead | prefixed("reverse", back), np.ones((B, T, width)), state)
        rule = "it has the shape (3, 5, 8) of the output; pass the gradient of the output"
        assert str(caught.value) == f"cotangent.shape=(3, 5, {width}): {rule}"


@pytest.mark.parametrize(("directions", "runs"), [(1, 0), (1, 2), (2, 1), (2, 3)])
def test_a_layer_has_a_state_for_each_of_its_runs(directions, runs):
    x, state, ahead, back, _ = drawn("gru")
    parameters = ahead | (prefixed("reverse", back) if directions == 2 else {})
    wrong, right = (tuple(np.resize(array, (n, *array.shape[1:])) for array in state) for n in (runs, directions))
    cotangent = np.ones((B, T, N * directions))
    message = rf"^R={runs} in state and R={directions} in the layer: R is one size"
    with pytest.raises(ShapeError, match=message):
        recurrent_layer(x, wrong, parameters, "gru")
    for start, end in ((wrong, right), (right, wrong)):
        with pytest.raises(ShapeError, match=message):
            recurrent_layer_backward(x, start, parameters, cotangent, end, "gru")
    with pytest.raises(ShapeError, match=rf"^state.shape=\({B}, {N}\): state has the 3 axes \[R,B,N\]"):
        recurrent_layer(x, (right[0][0],), parameters, "gru")
