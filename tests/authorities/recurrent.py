"""torch and ONNX on recurrent cells, runs, stacks, both directions, and all of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch.autograd.functional import jacobian

from attnspec.reference.bidirectional import bidirectional, bidirectional_backward
from attnspec.reference.cell import step, step_backward
from attnspec.reference.gru import gru_cell
from attnspec.reference.gru_backward import gru_backward
from attnspec.reference.lstm import lstm_cell
from attnspec.reference.lstm_backward import lstm_backward
from attnspec.reference.recurrent import recurrent
from attnspec.reference.recurrent_backward import recurrent_backward
from attnspec.reference.rnn import rnn_cell
from attnspec.reference.rnn_backward import rnn_backward
from attnspec.reference.sigmoid import sigmoid
from attnspec.reference.state_jacobian import gru_jacobian, lstm_jacobian, rnn_jacobian
from attnspec.reference.unroll import unroll, unroll_backward
from attnspec.reference.vanishing_gradient import state_jacobian, vanishing_gradient
from tests.authorities.agreement import Draw, agrees, authority
from tests.reference.recurrent_drawn import (
    STATES,
    TORCH,
    layer_parameters,
    runs,
    state_of,
    torch_cell,
    torch_name,
    torch_run,
    torch_stack,
)


def numpy_of(tensors: Any) -> Any:
    """The same structure with arrays for tensors."""
    if isinstance(tensors, torch.Tensor):
        return tensors.detach().numpy()
    return tuple(numpy_of(tensor) for tensor in tensors)


def leaves(arrays: Any) -> Any:
    """The same structure with tensors that want a gradient."""
    if isinstance(arrays, np.ndarray):
        return torch.tensor(arrays, requires_grad=True)
    return tuple(leaves(array) for array in arrays)


def one_step(draw: Draw, cells: tuple[str, ...]) -> tuple[str, np.ndarray, Any, dict[str, np.ndarray]]:
    """A cell, its input, its state and its parameters."""
    B, M, N = draw(st.permutations([1, 2, 3, 4, 5]))[:3]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = draw(st.sampled_from(cells))
    parameters = layer_parameters(rng, cell, M, N, biased=draw(st.booleans()))
    return cell, rng.normal(size=(B, M)), state_of(rng, cell, B, N), parameters


def torch_step(cell: str, parameters: dict[str, np.ndarray]) -> tuple[Callable[..., tuple[torch.Tensor, ...]], Any]:
    """torch's cell from input and state to the next state, and the module."""
    module = torch_cell(cell, parameters)
    if cell == "lstm":
        return lambda x, *state: module(x, state), module
    return lambda x, h: (module(x, h),), module


@authority("I04", "torch.sigmoid", of=(sigmoid,))
def sigmoids(draw: Draw) -> None:
    """Values, far into saturation."""
    x = np.array(draw(st.lists(st.floats(-800, 800), min_size=1, max_size=5)))
    agrees(torch.sigmoid(torch.tensor(x)).numpy(), sigmoid, x)


@authority("I04", "torch.nn.RNNCell, LSTMCell, GRUCell", of=(rnn_cell, lstm_cell, gru_cell, step), examples=40)
def cells(draw: Draw) -> None:
    """One step of every cell, with biases and without."""
    cell, x, state, parameters = one_step(draw, TORCH)
    forward, _ = torch_step(cell, parameters)
    want = numpy_of(forward(torch.tensor(x), *(torch.tensor(array) for array in state)))
    agrees(want, step, x, state, parameters, cell=cell)
    if cell == "lstm":
        agrees(want, lstm_cell, x, *state, parameters)
    elif cell == "gru":
        agrees(want[0], gru_cell, x, *state, parameters, reset="after")
    else:
        agrees(want[0], rnn_cell, x, *state, parameters, activation="tanh" if cell == "rnn" else "relu")


@authority(
    "I04", "torch.autograd through RNNCell, LSTMCell, GRUCell",
    of=(rnn_backward, lstm_backward, gru_backward, step_backward), examples=40,
)  # fmt: skip
def cell_gradients(draw: Draw) -> None:
    """One step of every cell: gradients of input, state and parameters."""
    cell, x, state, parameters = one_step(draw, TORCH)
    cotangent = tuple(np.random.default_rng(draw(st.integers(0, 99))).normal(size=(STATES[cell], *state[0].shape)))
    forward, module = torch_step(cell, parameters)
    wanted, state_leaves = leaves(x), leaves(state)
    torch.autograd.backward(forward(wanted, *state_leaves), tuple(torch.tensor(array) for array in cotangent))
    own = dict(module.named_parameters())
    of_parameters = {name: numpy_of(own[torch_name(f"0.{name}").removesuffix("_l0")].grad) for name in parameters}
    dx, dstate = numpy_of(wanted.grad), tuple(numpy_of(leaf.grad) for leaf in state_leaves)
    agrees((dx, dstate, of_parameters), step_backward, x, state, parameters, cotangent, cell=cell)
    want = (dx, *dstate, of_parameters)
    if cell == "lstm":
        agrees(want, lstm_backward, x, *state, parameters, cotangent)
    elif cell == "gru":
        agrees(want, gru_backward, x, *state, parameters, cotangent[0], reset="after")
    else:
        activation = "tanh" if cell == "rnn" else "relu"
        agrees(want, rnn_backward, x, *state, parameters, cotangent[0], activation=activation)


@authority("I04", "torch.nn.RNN, LSTM, GRU", of=(unroll, recurrent), examples=40)
def single_layers(draw: Draw) -> None:
    """One layer from left to right over ragged lengths: outputs, final state."""
    run = draw(runs(TORCH, shortest=1))
    first = {name: array for name, array in run["parameters"].items() if name.startswith("0.") and "reverse" not in name}
    run |= {"parameters": first, "state": None if run["state"] is None else tuple(array[:1] for array in run["state"])}
    state = run["state"] and tuple(torch.tensor(array) for array in run["state"])
    out, final = numpy_of(torch_run(torch_stack(run["cell"], first), torch.tensor(run["x"]), run["lengths"], state))
    agrees((out, final), recurrent, **run)
    if run["state"] is not None:
        layer = {name.removeprefix("0."): array for name, array in first.items()}
        start = tuple(array[0] for array in run["state"])
        want = out, tuple(array[0] for array in final)
        agrees(want, unroll, run["x"], start, layer, run["cell"], run["lengths"])


@authority("I10", "torch.nn.RNN, LSTM, GRU, stacked and bidirectional", of=(recurrent, bidirectional), examples=60)
def stacks(draw: Draw) -> None:
    """One to three layers, one or two directions, ragged lengths, any initial state: outputs, final states."""
    run = draw(runs(TORCH, shortest=1))
    state = run["state"] and tuple(torch.tensor(array) for array in run["state"])
    module = torch_stack(run["cell"], run["parameters"])
    want = numpy_of(torch_run(module, torch.tensor(run["x"]), run["lengths"], state))
    agrees(want, recurrent, **run)
    if module.bidirectional and module.num_layers == 1 and run["state"] is not None:
        layer = {name.removeprefix("0."): array for name, array in run["parameters"].items()}
        agrees(want, bidirectional, run["x"], run["state"], layer, run["cell"], run["lengths"])


def with_cotangents(run: dict[str, Any], seed: int) -> dict[str, Any]:
    """The arguments of `recurrent_backward`, with the initial state written out."""
    names, rng = run["parameters"], np.random.default_rng(seed)
    B, T, N = *run["x"].shape[:2], names["0.hidden.weight"].shape[1]
    shape = (sum(name.endswith("hidden.weight") for name in names), B, N)
    directions = 2 if "0.reverse.input.weight" in names else 1
    return run | {
        "state": tuple(np.zeros(shape) for _ in range(STATES[run["cell"]])) if run["state"] is None else run["state"],
        "cotangent": rng.normal(size=(B, T, directions * N)),
        "state_cotangent": state_of(rng, run["cell"], *shape),
    }


def torch_gradients(run: dict[str, Any]) -> tuple[np.ndarray, tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """Gradients of input, initial state and parameters by autograd through a module of torch."""
    module = torch_stack(run["cell"], run["parameters"])
    x, state = leaves(run["x"]), leaves(run["state"])
    out, final = torch_run(module, x, run["lengths"], state)
    cotangents = (run["cotangent"], *run["state_cotangent"])
    torch.autograd.backward((out, *final), tuple(torch.tensor(array) for array in cotangents))
    own = dict(module.named_parameters())
    gradients = {name: numpy_of(own[torch_name(name)].grad) for name in run["parameters"]}
    return numpy_of(x.grad), tuple(numpy_of(leaf.grad) for leaf in state), gradients


@authority("I08", "torch.autograd through RNN, LSTM, GRU", of=(recurrent_backward,), examples=30)
def back_propagation_through_time(draw: Draw) -> None:
    """Layers, directions, ragged lengths, states: gradients of input, initial state and parameters."""
    run = with_cotangents(draw(runs(TORCH, shortest=1, sizes=(1, 2, 3, 4))), draw(st.integers(0, 99)))
    agrees(torch_gradients(run), recurrent_backward, **run)


@authority("I08", "torch.autograd through RNN, LSTM, GRU of one layer", of=(unroll_backward, bidirectional_backward))
def back_propagation_through_a_layer(draw: Draw) -> None:
    """One direction or two, ragged lengths, states: gradients of input, initial state and parameters."""
    run = with_cotangents(draw(runs(TORCH, shortest=1, most_layers=1)), draw(st.integers(0, 99)))
    dx, dstate, gradients = torch_gradients(run)
    layer, own = ({name.removeprefix("0."): array for name, array in all_.items()} for all_ in (run["parameters"], gradients))
    state, end = run["state"], run["state_cotangent"]
    if "reverse.input.weight" in layer:
        call = run["x"], state, layer, run["cotangent"], end, run["cell"], run["lengths"]
        agrees((dx, dstate, own), bidirectional_backward, *call)
    else:
        start, end, dstate = (tuple(array[0] for array in arrays) for arrays in (state, end, dstate))
        call = run["x"], start, layer, run["cotangent"], end, run["cell"], run["lengths"]
        agrees((dx, dstate, own), unroll_backward, *call)


@authority(
    "I04", "torch.autograd.functional.jacobian through RNNCell, LSTMCell, GRUCell",
    of=(rnn_jacobian, lstm_jacobian, gru_jacobian, state_jacobian, vanishing_gradient), examples=30,
)  # fmt: skip
def jacobians(draw: Draw) -> None:
    """How the next, and the last, state depends on each state before it."""
    cell, x, state, parameters = one_step(draw, TORCH)
    forward, _ = torch_step(cell, parameters)
    T, (B, M), N = draw(st.integers(1, 3)), x.shape, state[0].shape[1]
    steps = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(B, T, M))
    want = np.empty((B, T + 1, STATES[cell] * N, STATES[cell] * N))
    for b in range(B):
        joined = torch.tensor(np.concatenate([array[b] for array in state]))

        def last(joined: torch.Tensor, start: int, b: int = b) -> torch.Tensor:
            for t in range(start, T):
                joined = torch.cat(forward(torch.tensor(steps[b, t]), *joined.split(N)))
            return joined

        for t in range(T + 1):
            want[b, t] = jacobian(lambda joined, t=t: last(joined, t), joined).numpy()
            joined = joined if t == T else torch.cat(forward(torch.tensor(steps[b, t]), *joined.split(N))).detach()
    agrees(want, vanishing_gradient, steps, state, parameters, cell=cell)
    if T == 1:
        agrees(want[:, 0], state_jacobian, steps[:, 0], state, parameters, cell=cell)


class ByHand(torch.autograd.Function):
    """The reference as a function of torch, whose backward is the hand-written one."""

    @staticmethod
    def forward(ctx: Any, run: dict[str, Any], x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states, names = rest[: STATES[run["cell"]]], list(run["parameters"])
        parameters = dict(zip(names, (array.detach().numpy() for array in rest[len(states) :]), strict=True))
        ctx.call = {**run, "x": x.detach().numpy(), "parameters": parameters, "state": numpy_of(states)}
        out, final = recurrent(**ctx.call)
        return tuple(torch.tensor(array) for array in (out, *final))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dout, *dfinal = (cotangent.numpy() for cotangent in cotangents)
        dx, dstate, gradients = recurrent_backward(**ctx.call, cotangent=dout, state_cotangent=tuple(dfinal))
        arrays = (dx, *dstate, *(gradients[name] for name in ctx.call["parameters"]))
        return None, *(torch.tensor(array) for array in arrays)


def reset_before(parameters: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The equations of arXiv:1406.1078 sec. 2.3, which torch has no module for."""
    gates = [parameters[f"{side}.weight"].chunk(3) for side in ("input", "hidden")]
    if "input.bias" in parameters:
        gates += [parameters[f"{side}.bias"].chunk(3) for side in ("input", "hidden")]
    (w_r, u_r, *b_r), (w_z, u_z, *b_z), (w_n, u_n, *b_n) = zip(*gates, strict=True)
    r, z = torch.sigmoid(x @ w_r.T + h @ u_r.T + sum(b_r)), torch.sigmoid(x @ w_z.T + h @ u_z.T + sum(b_z))
    return z * h + (1 - z) * torch.tanh(x @ w_n.T + (r * h) @ u_n.T + sum(b_n))


@authority("I04", "torch.autograd through the equations of reset before", of=(gru_cell, gru_backward, gru_jacobian))
def reset_before_gradients(draw: Draw) -> None:
    """Forward, gradients of input, state and parameters, and the Jacobian of the state."""
    _, x, (h,), parameters = one_step(draw, ("gru_reset_before",))
    cotangent = np.random.default_rng(draw(st.integers(0, 99))).normal(size=h.shape)
    x_leaf, h_leaf, own = leaves(x), leaves(h), {name: leaves(array) for name, array in parameters.items()}
    new = reset_before(own, x_leaf, h_leaf)
    new.backward(torch.tensor(cotangent))
    agrees(numpy_of(new), gru_cell, x, h, parameters, reset="before")
    want = (x_leaf.grad.numpy(), h_leaf.grad.numpy(), {name: leaf.grad.numpy() for name, leaf in own.items()})
    agrees(want, gru_backward, x, h, parameters, cotangent, reset="before")
    rows = jacobian(lambda h: reset_before(own, x_leaf, h).sum(0), torch.tensor(h))  # the sum keeps batch entries apart
    agrees(rows.detach().numpy().swapaxes(0, 1), gru_jacobian, x, h, parameters, reset="before")


@authority("I08", "torch.autograd.gradcheck", of=(recurrent_backward,), examples=10)
def gradients_that_torch_checks(draw: Draw) -> None:
    """Gradients of rnn, LSTM and both GRUs as a torch.autograd.Function, by finite differences, then by autograd."""
    run = draw(
        runs(("rnn", "lstm", "gru", "gru_reset_before"), shortest=1, sizes=(1, 2, 3, 2), most_layers=2)
    )  # relu has a kink
    run = with_cotangents(run, draw(st.integers(0, 99)))
    arrays = (run["x"], *run["state"], *run["parameters"].values())
    forward = {name: run[name] for name in ("cell", "lengths", "parameters")}
    assert torch.autograd.gradcheck(lambda *tensors: ByHand.apply(forward, *tensors), leaves(arrays))
    if run["cell"] in TORCH:
        agrees(torch_gradients(run), recurrent_backward, **run)


@authority("I04", "onnx.reference, GRU with linear_before_reset = 0 and 1", of=(gru_cell, recurrent))
def onnx_gru(draw: Draw) -> None:
    """Reset before and after the product, one direction or two, any initial state: outputs, final state."""
    run = draw(runs(("gru", "gru_reset_before")))
    first = {name: array for name, array in run["parameters"].items() if name.startswith("0.")}
    starts = ("0.", "0.reverse.") if "0.reverse.input.weight" in first else ("0.",)
    N = first["0.hidden.weight"].shape[1]

    def stacked(*names: str) -> np.ndarray:
        """ONNX has its gates in the order z, r, n."""
        z_r_n = np.r_[N : 2 * N, :N, 2 * N : 3 * N]
        return np.stack([np.concatenate([first[start + name][z_r_n] for name in names]) for start in starts])

    feeds = {"X": run["x"].swapaxes(0, 1), "W": stacked("input.weight"), "R": stacked("hidden.weight")}
    if "0.input.bias" in first:
        feeds["B"] = stacked("input.bias", "hidden.bias")
    if run["state"] is not None:
        feeds["initial_h"] = run["state"][0][: len(starts)]
    inputs = [name if name in feeds else "" for name in ("X", "W", "R", "B", "", "initial_h")]
    node = onnx.helper.make_node(
        "GRU", inputs, ["Y", "Y_h"], hidden_size=N, linear_before_reset=int(run["cell"] == "gru"),
        direction="bidirectional" if len(starts) == 2 else "forward",
    )  # fmt: skip
    y, final = ReferenceEvaluator(node).run(None, feeds)
    out = np.concatenate(list(np.moveaxis(y, 1, 0)), axis=-1).swapaxes(0, 1)
    state = None if run["state"] is None else (feeds["initial_h"],)
    agrees((out, (final,)), recurrent, run["x"], first, cell=run["cell"], state=state)
