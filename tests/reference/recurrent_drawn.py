"""Drawn recurrent layers and stacks, and the torch modules that have the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from tests.reference.closeness import UNIT, assert_close

torch.set_num_threads(1)
GATES = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}
STATES = {"rnn": 1, "rnn_relu": 1, "lstm": 2, "gru": 1, "gru_reset_before": 1}
CELLS = tuple(GATES)
STEP = UNIT ** (1 / 3)
TORCH = ("rnn", "rnn_relu", "lstm", "gru")  # torch resets after the product only

Arrays = dict[str, np.ndarray]


def layer_parameters(rng: np.random.Generator, cell: str, M: int, N: int, *, biased: bool = True, scale: float = 1) -> Arrays:
    """Weights of order scale / sqrt(width), so that sums stay of order one."""
    rows = GATES[cell] * N
    found = {
        "input.weight": rng.normal(size=(rows, M)) * scale / np.sqrt(max(M, 1)),
        "hidden.weight": rng.normal(size=(rows, N)) * scale / np.sqrt(max(N, 1)),
    }
    return found | {name: rng.normal(size=rows) for name in ("input.bias", "hidden.bias") if biased}


def stack_parameters(
    rng: np.random.Generator, cell: str, M: int, N: int, *, layers: int = 1, directions: int = 1, biased: bool = True
) -> Arrays:
    found: Arrays = {}
    for layer in range(layers):
        width = M if layer == 0 else directions * N
        for start in ("", "reverse.")[:directions]:
            own = layer_parameters(rng, cell, width, N, biased=biased)
            found |= {f"{layer}.{start}{name}": array for name, array in own.items()}
    return found


def state_of(rng: np.random.Generator, cell: str, *shape: int) -> tuple[np.ndarray, ...]:
    return tuple(rng.normal(size=shape) for _ in range(STATES[cell]))


@st.composite
def runs(
    draw: Any,
    cells: tuple[str, ...] = CELLS,
    *,
    shortest: int = 0,
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5),
    most_layers: int = 3,
) -> dict[str, Any]:
    """The arguments of `recurrent`: layers, one or two directions, ragged lengths or none, a free initial state or none."""
    B, T, M, N = draw(st.permutations(sizes), label="B, T, M, N")[:4]  # different sizes: a swapped axis must not pass
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    cell = draw(st.sampled_from(cells), label="cell")
    shape = {
        "layers": draw(st.integers(1, most_layers), label="layers"),
        "directions": draw(st.integers(1, 2), label="directions"),
    }
    parameters = stack_parameters(rng, cell, M, N, **shape, biased=draw(st.booleans(), label="biased"))
    ragged, free = draw(st.booleans(), label="ragged"), draw(st.booleans(), label="free initial state")
    return {
        "x": rng.normal(size=(B, T, M)),
        "parameters": parameters,
        "cell": cell,
        "lengths": rng.integers(shortest, T + 1, size=B) if ragged else None,
        "state": state_of(rng, cell, shape["layers"] * shape["directions"], B, N) if free else None,
    }


def torch_name(name: str) -> str:
    """1.reverse.hidden.weight is weight_hh_l1_reverse."""
    layer, *backwards, side, kind = name.split(".")
    return f"{kind}_{'ih' if side == 'input' else 'hh'}_l{layer}{'_reverse' if backwards else ''}"


def torch_stack(cell: str, parameters: Arrays) -> torch.nn.RNNBase:
    """torch.nn.RNN, LSTM or GRU with these weights."""
    kind = {"rnn": torch.nn.RNN, "rnn_relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    options: dict[str, Any] = {"nonlinearity": "relu"} if cell == "rnn_relu" else {}
    module = kind(
        parameters["0.input.weight"].shape[1],
        parameters["0.hidden.weight"].shape[1],
        num_layers=len({name.split(".")[0] for name in parameters}),
        bias="0.input.bias" in parameters,
        bidirectional="0.reverse.input.weight" in parameters,
        batch_first=True,
        dtype=torch.float64,
        **options,
    )
    module.load_state_dict({torch_name(name): torch.tensor(array) for name, array in parameters.items()})
    return module


def torch_cell(cell: str, parameters: Arrays) -> torch.nn.RNNCellBase:
    """torch.nn.RNNCell, LSTMCell or GRUCell with these weights."""
    kind = {"rnn": torch.nn.RNNCell, "rnn_relu": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell]
    options: dict[str, Any] = {"nonlinearity": "relu"} if cell == "rnn_relu" else {}
    M, N = parameters["input.weight"].shape[1], parameters["hidden.weight"].shape[1]
    module = kind(M, N, bias="input.bias" in parameters, dtype=torch.float64, **options)
    names = {name: torch_name(f"0.{name}").removesuffix("_l0") for name in parameters}
    module.load_state_dict({names[name]: torch.tensor(array) for name, array in parameters.items()})
    return module


def torch_run(
    module: torch.nn.RNNBase, x: torch.Tensor, lengths: np.ndarray | None, state: tuple[torch.Tensor, ...] | None
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Outputs and final state of a module, over packed sequences where lengths are given."""
    start = None if state is None else state if isinstance(module, torch.nn.LSTM) else state[0]
    if lengths is None:
        out, final = module(x, start)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        out, final = module(packed, start)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
    return out, final if isinstance(final, tuple) else (final,)


def central_differences(loss: Callable[[np.ndarray], Any], array: np.ndarray) -> np.ndarray:
    """The gradient of a loss by steps of u^(1/3), where rounding u / h and truncation h^2 are both u^(2/3)."""
    want = np.empty_like(array)
    for index in np.ndindex(array.shape):
        ahead, behind = array.copy(), array.copy()
        ahead[index] += STEP
        behind[index] -= STEP
        want[index] = (loss(ahead) - loss(behind)) / (2 * STEP)
    return want


def assert_is_gradient(loss: Callable[..., Any], got: Sequence[Any], inputs: Sequence[Any]) -> None:
    """Compares each gradient with central differences of loss(*inputs); the last input is the parameters."""
    *arrays, parameters = inputs
    for place, array in enumerate(arrays):
        want = central_differences(lambda one, i=place: loss(*arrays[:i], one, *arrays[i + 1 :], parameters), array)
        assert_close(got[place], want, terms=100 / STEP)  # some hundred terms, each good to u^(2/3) = u / step
    assert set(got[-1]) == set(parameters)
    for name, array in parameters.items():
        want = central_differences(lambda one, name=name: loss(*arrays, parameters | {name: one}), array)
        assert_close(got[-1][name], want, terms=100 / STEP)
