import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.recurrent import initial_state, recurrent
from attnspec.reference.recurrent_backward import recurrent_backward
from attnspec.reference.shapes import ShapeError
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.recurrent_drawn import CELLS, assert_is_gradient, runs, stack_parameters, state_of

SMOOTH = tuple(cell for cell in CELLS if cell != "rnn_relu")  # a difference across the kink of relu is no gradient


@given(runs(SMOOTH, sizes=(1, 2, 2, 1), most_layers=2), st.integers(0, 99), max_examples=30)
def test_gradients_agree_with_central_differences(run, seed):
    rng = np.random.default_rng(seed)
    x, parameters, cell, lengths = (run[name] for name in ("x", "parameters", "cell", "lengths"))
    state = initial_state(parameters, x.shape[0], cell, run["state"])
    out, final = recurrent(**run)
    dout, dfinal = rng.normal(size=out.shape), state_of(rng, cell, *final[0].shape)

    def loss(x, *rest):
        *state, parameters = rest
        out, final = recurrent(x, parameters, cell, lengths, tuple(state))
        return np.sum(dout * out) + sum(np.sum(d * s) for d, s in zip(dfinal, final, strict=True))

    dx, dstate, gradients = recurrent_backward(x, parameters, dout, cell, lengths, run["state"], dfinal)
    assert_is_gradient(loss, (dx, *dstate, gradients), (x, *state, parameters))


@given(runs(), st.integers(0, 99))
def test_cotangents_add_up_and_none_counts_as_zero(run, seed):
    rng = np.random.default_rng(seed)
    out, final = recurrent(**run)
    dout, dfinal = rng.normal(size=out.shape), state_of(rng, run["cell"], *final[0].shape)
    both = recurrent_backward(**run, cotangent=dout, state_cotangent=dfinal)
    of_out = recurrent_backward(**run, cotangent=dout)
    of_final = recurrent_backward(**run, cotangent=np.zeros(out.shape), state_cotangent=dfinal)
    terms = 5000  # three layers of five steps forward and back, each of some twenty terms, amplified
    assert_close(of_out[0] + of_final[0], both[0], terms=terms)
    assert_close(np.add(of_out[1], of_final[1]), both[1], terms=terms)
    assert list(both[2]) == list(run["parameters"])
    for name, gradient in both[2].items():
        assert_close(of_out[2][name] + of_final[2][name], gradient, terms=terms)


@given(runs(), st.integers(0, 99))
def test_padding_gets_no_gradient(run, seed):
    run["lengths"] = np.random.default_rng(seed).integers(0, run["x"].shape[1] + 1, size=run["x"].shape[0])
    out, _ = recurrent(**run)
    dx, _, _ = recurrent_backward(**run, cotangent=np.ones(out.shape))
    assert np.all(dx[np.arange(out.shape[1]) >= run["lengths"][:, None]] == 0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("b", "t", "m", "n"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_empty_sizes(cell, b, t, m, n):
    parameters = stack_parameters(np.random.default_rng(0), cell, m, n, layers=2, directions=2)
    dx, dstate, gradients = recurrent_backward(np.ones((b, t, m)), parameters, np.ones((b, t, 2 * n)), cell)
    assert dx.shape == (b, t, m)
    assert {array.shape for array in dstate} == {(4, b, n)}
    assert {name: array.shape for name, array in gradients.items()} == {k: v.shape for k, v in parameters.items()}


@pytest.mark.parametrize(
    ("x", "cotangent", "state_cotangent", "message"),
    [
        ((5, 2), (3, 5, 4), None, "x.shape=(5, 2): x has the 3 axes [B,T,M]"),
        ((3, 5, 2), (3, 5, 5), None, "cotangent.shape=(3, 5, 5): it has the shape (3, 5, 4) of the output; pass"),
        ((3, 5, 2), (3, 5, 4), (1, 3, 4), "h.shape=(1, 3, 4): the state is [R,B,N] = (2, 3, 4); stack one for each run"),
    ],
)
def test_errors(x, cotangent, state_cotangent, message):
    parameters = stack_parameters(np.random.default_rng(0), "gru", 2, 4, layers=2)
    end = None if state_cotangent is None else (np.ones(state_cotangent),)
    with pytest.raises(ShapeError) as caught:
        recurrent_backward(np.ones(x), parameters, np.ones(cotangent), "gru", state_cotangent=end)
    assert str(caught.value).startswith(message)
