import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.cell import step
from attnspec.reference.shapes import ShapeError
from attnspec.reference.unroll import unroll, unroll_backward
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import CELLS, assert_is_gradient, layer_parameters, state_of

B, T, M, N = 3, 5, 2, 4
TERMS = 20 * T * (M + N)  # contracted at each step and carried through the others, in which slopes and weights amplify


def drawn(cell, seed=0, T=T):
    rng = np.random.default_rng(seed)
    x, state = rng.normal(size=(B, T, M)), state_of(rng, cell, B, N)
    return x, state, layer_parameters(rng, cell, M, N), rng.integers(0, T + 1, size=B)


@given(st.sampled_from(CELLS), st.integers(0, 999))
def test_each_row_is_the_cell_step_by_step_to_its_length(cell, seed):
    x, state, parameters, lengths = drawn(cell, seed)
    out, final = unroll(x, state, parameters, cell, lengths)
    for b, n in enumerate(lengths):
        own = tuple(array[b : b + 1] for array in state)
        for t in range(n):
            own = step(x[b : b + 1, t], own, parameters, cell)
            assert_close(out[b, t], own[0][0], terms=TERMS)
        assert_close([array[b] for array in final], [array[0] for array in own], terms=TERMS)
        assert np.all(out[b, n:] == 0)


@given(st.sampled_from(CELLS), st.integers(0, 999), st.integers(0, T))
def test_a_run_may_be_interrupted(cell, seed, cut):
    x, state, parameters, _ = drawn(cell, seed)
    whole, final = unroll(x, state, parameters, cell)
    first, between = unroll(x[:, :cut], state, parameters, cell)
    second, end = unroll(x[:, cut:], between, parameters, cell)
    assert_close(np.concatenate([first, second], axis=1), whole, terms=TERMS)
    assert_close(end, final, terms=TERMS)


@given(st.sampled_from(CELLS), st.integers(0, 999), st.sampled_from([np.nan, np.inf, 1e300, 0.0]))
def test_the_content_of_padding_leaves_no_trace(cell, seed, content):
    x, state, parameters, lengths = drawn(cell, seed)
    real = np.arange(T) < lengths[:, None]
    other = np.where(real[..., None], x, content)
    rng = np.random.default_rng(seed)
    cotangents = rng.normal(size=(B, T, N)), state_of(rng, cell, B, N)
    garbled = np.where(real[..., None], cotangents[0], rng.normal(size=(B, T, N)))  # nobody reads an output at padding
    for got, want in [
        (unroll(other, state, parameters, cell, lengths), unroll(x, state, parameters, cell, lengths)),
        (
            unroll_backward(other, state, parameters, garbled, cotangents[1], cell, lengths),
            unroll_backward(x, state, parameters, *cotangents, cell, lengths),
        ),
    ]:
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_array_equal(got[1], want[1])
        assert np.all(got[0][~real] == 0)
    for name, gradient in want[2].items():
        np.testing.assert_array_equal(got[2][name], gradient)


@given(st.sampled_from(CELLS), st.integers(0, 999), st.integers(1, 4))
def test_the_amount_of_padding_leaves_no_trace(cell, seed, more):
    x, state, parameters, lengths = drawn(cell, seed)
    wide = np.concatenate([x, np.ones((B, more, M))], axis=1)
    out, final = unroll(x, state, parameters, cell, lengths)
    out_wide, final_wide = unroll(wide, state, parameters, cell, lengths)
    assert_close(out_wide, np.concatenate([out, np.zeros((B, more, N))], axis=1), terms=TERMS)
    assert_close(final_wide, final, terms=TERMS)


@given(st.sampled_from([cell for cell in CELLS if cell != "rnn_relu"]), st.integers(0, 99), st.booleans())
def test_gradients_agree_with_central_differences(cell, seed, biased):
    rng = np.random.default_rng(seed)
    x, state, lengths = rng.normal(size=(2, 3, 1)), state_of(rng, cell, 2, 2), rng.integers(0, 4, size=2)
    parameters, dout, dfinal = (
        layer_parameters(rng, cell, 1, 2, biased=biased),
        rng.normal(size=(2, 3, 2)),
        state_of(rng, cell, 2, 2),
    )

    def loss(x, *rest):
        *state, parameters = rest
        out, final = unroll(x, tuple(state), parameters, cell, lengths)
        return np.sum(dout * out) + sum(np.sum(d * s) for d, s in zip(dfinal, final, strict=True))

    dx, dstate, gradients = unroll_backward(x, state, parameters, dout, dfinal, cell, lengths)
    assert_is_gradient(loss, (dx, *dstate, gradients), (x, *state, parameters))


@given(st.sampled_from(CELLS), st.integers(0, 999), st.integers(0, T), st.booleans())
def test_back_propagation_may_be_interrupted_and_truncated(cell, seed, cut, truncated):
    """Handing dstate on at the cut gives the whole gradient; not doing so drops what crosses it, nothing more."""
    x, state, parameters, _ = drawn(cell, seed)
    rng = np.random.default_rng(seed)
    dout, dfinal = rng.normal(size=(B, T, N)), state_of(rng, cell, B, N)
    _, between = unroll(x[:, :cut], state, parameters, cell)
    dx_late, crossing, late = unroll_backward(x[:, cut:], between, parameters, dout[:, cut:], dfinal, cell)
    none = tuple(np.zeros((B, N)) for _ in state)
    handed = none if truncated else crossing
    dx_early, dstate, early = unroll_backward(x[:, :cut], state, parameters, dout[:, :cut], handed, cell)
    want = unroll_backward(x, state, parameters, dout, dfinal, cell)
    if not truncated:
        assert_close(np.concatenate([dx_early, dx_late], axis=1), want[0], terms=TERMS)
        assert_close(dstate, want[1], terms=TERMS)
        for name, gradient in want[2].items():
            assert_close(early[name] + late[name], gradient, terms=TERMS)
    else:  # linear in the cotangent: the rest is what the crossing alone sends back
        dx_rest, _, rest = unroll_backward(x[:, :cut], state, parameters, np.zeros((B, cut, N)), crossing, cell)
        assert_close(np.concatenate([dx_early + dx_rest, dx_late], axis=1), want[0], terms=TERMS)
        for name, gradient in want[2].items():
            assert_close(early[name] + late[name] + rest[name], gradient, terms=TERMS)
        if cut == 0:  # the window is as long as the run
            np.testing.assert_array_equal(dx_late, want[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("b", "t", "m", "n"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_empty_sizes(cell, b, t, m, n):
    rng = np.random.default_rng(0)
    parameters, state = layer_parameters(rng, cell, m, n), state_of(rng, cell, b, n)
    out, final = unroll(np.ones((b, t, m)), state, parameters, cell)
    assert out.shape == (b, t, n)
    if t == 0:
        np.testing.assert_array_equal(final, state)
    dx, dstate, gradients = unroll_backward(np.ones((b, t, m)), state, parameters, out, state, cell)
    assert (dx.shape, [array.shape for array in dstate]) == ((b, t, m), [array.shape for array in state])
    assert {name: array.shape for name, array in gradients.items()} == {k: v.shape for k, v in parameters.items()}


def test_narrow_inputs_are_widened():
    x, state, parameters, lengths = drawn("gru", T=0)
    narrow = tuple(array.astype(np.float32) for array in state)
    out, final = unroll(x.astype(np.float32), narrow, parameters, "gru", lengths)
    assert {out.dtype, final[0].dtype} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((B, M))}, ShapeError, "x.shape=(3, 2): x has the 3 axes [B,T,M]"),
        ({"x": np.ones((B + 1, T, M))}, ShapeError, "B=4 in x and B=3 in h: B is one size"),
        ({"lengths": np.array([1, 2])}, ShapeError, "B=3 in x and B=2 in lengths: B is one size"),
        ({"lengths": np.array([1, 2, 6])}, ValueError, "lengths=[1, 2, 6]: each lies in 0..S with S=5"),
        ({"state": (np.ones((B, N)),)}, ValueError, "a state of 1 arrays: the state of lstm is (h, c)"),
        ({"cell": "tanh"}, ValueError, "cell='tanh': it is one of rnn"),
        ({"state": (np.ones((B, N)), np.ones((B, 1)))}, ShapeError, "N=4 in h and N=1 in c: N is one size"),
        ({"state": (np.ones((B, N)), np.ones(N))}, ShapeError, "c.shape=(4,): c has the 2 axes [B,N]"),
        ({"state_cotangent": (np.ones((B, 1)),) * 2}, ShapeError, "N=4 in state and N=1 in state_cotangent: N is one size"),
        ({"state_cotangent": (np.ones((1, N)),) * 2}, ShapeError, "B=3 in x and B=1 in h: B is one size"),
        ({"cotangent": np.ones((B, T, N + 1))}, ShapeError,
         "cotangent.shape=(3, 5, 5): it has the shape (3, 5, 4) of the output; pass the gradient"),
    ],
)  # fmt: skip
def test_errors(change, error, message):
    x, state, parameters, lengths = drawn("lstm")
    call = {"x": x, "state": state, "parameters": parameters, "cell": "lstm", "lengths": lengths}
    backward = call | {"cotangent": np.ones((B, T, N)), "state_cotangent": state} | change
    backward_only = not set(change) <= set(call)
    for function, arguments in [(unroll, call | change), (unroll_backward, backward)][int(backward_only) :]:
        with pytest.raises(error) as caught:
            function(**arguments)
        assert str(caught.value).startswith(message)
