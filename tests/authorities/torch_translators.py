"""Recurrent encoder-decoders from torch's own layers, for the authorities to attend in; no authority by itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from attnspec.reference.shapes import FloatArray, IntArray
from tests.authorities.agreement import Draw
from tests.reference.translators import model

LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


@dataclass(frozen=True)
class Case:
    """A drawn model and its inputs."""

    source: IntArray
    inputs: IntArray
    parameters: dict[str, FloatArray]
    cell: str
    lengths: IntArray | None
    layers: int
    directions: int

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(array) for name, array in self.parameters.items()}


def case_of(draw: Draw, kind: str, feeding: bool = True) -> Case:
    """One or two layers, an encoder of one or two directions, three cells, padded sources or whole ones."""
    sizes = {name: draw(st.integers(1, 3)) for name in "NAVWMP"} | {name: draw(st.integers(1, 2)) for name in "LR"}
    B, S, T = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = draw(st.sampled_from(sorted(LAYERS)))
    parameters = model(kind, sizes, cell, rng, draw(st.booleans()), feeding)
    lengths = rng.integers(1, S + 1, size=B) if draw(st.booleans()) else None
    source, inputs = rng.integers(0, sizes["V"], size=(B, S)), rng.integers(0, sizes["W"], size=(B, T))
    return Case(source, inputs, parameters, cell, lengths, sizes["L"], sizes["R"])


def leaves(*arrays: FloatArray) -> list[torch.Tensor]:
    return [torch.tensor(array, requires_grad=True) for array in arrays]


def hidden_of(queries: torch.Tensor, states: torch.Tensor, named: dict[str, torch.Tensor]) -> torch.Tensor:
    """tanh(Wq q + Wk h + b) for every pair, [B,T,S,A]."""
    from_queries = torch.nn.functional.linear(queries, named["query.weight"], named.get("bias"))
    return torch.tanh(from_queries[:, :, None] + torch.nn.functional.linear(states, named["key.weight"])[:, None])


def stack(case: Case, part: str, directions: int) -> torch.nn.RNNBase:
    """torch's recurrent module with the parameters of encoder or decoder."""
    width = case.parameters[f"{part}.0.input.weight"].shape[1]
    units = case.parameters[f"{part}.0.hidden.weight"].shape[1]
    biased = f"{part}.0.input.bias" in case.parameters
    module = LAYERS[case.cell](
        width, units, case.layers, bias=biased, batch_first=True, bidirectional=directions == 2, dtype=torch.float64
    )
    for name, array in module.named_parameters():
        kind, side, layer, *reverse = name.split("_")  # weight_ih_l0_reverse
        side = {"ih": "input", "hh": "hidden"}[side]
        ours = ".".join([part, layer[1:], *reverse, side, kind])
        array.data = torch.tensor(case.parameters[ours])
    return module


def encoded(case: Case) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The encoder's states, and its last ones with the runs of each layer side by side."""
    x = torch.nn.functional.embedding(torch.tensor(case.source), torch.tensor(case.parameters["source.embedding.weight"]))
    module = stack(case, "encoder", case.directions)
    if case.lengths is None:
        states, last = module(x)
    else:
        lengths = torch.tensor(case.lengths)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, last = module(packed)
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
    last = last if isinstance(last, tuple) else (last,)
    joined = (array.unflatten(0, (case.layers, case.directions)).transpose(1, 2).flatten(2) for array in last)
    return states, tuple(array.contiguous() for array in joined)


def decode(case: Case, x: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The decoder's layers over inputs [B,T,.], and their last state."""
    start: Any = state if case.cell == "lstm" else state[0]
    out, last = stack(case, "decoder", 1)(x, start)
    return out, last if isinstance(last, tuple) else (last,)


def attention_mask(case: Case) -> torch.Tensor:
    """[B,1,S], True = real word."""
    S = case.source.shape[1]
    lengths = np.full(len(case.source), S) if case.lengths is None else case.lengths
    return torch.tensor(np.arange(S) < lengths[:, None])[:, None]
