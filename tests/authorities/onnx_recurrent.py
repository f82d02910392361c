"""The recurrent operators of ONNX, translated to the reference.

ONNX stacks the gates of LSTM as i, o, f, c and those of GRU as z, r, h; the reference as i, f, g, o and r, z, n, as torch.
ONNX' GRU resets before the product unless linear_before_reset. One node is one layer, in one direction or both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.reference.bidirectional import bidirectional
from attnspec.reference.gru import gru_cell
from attnspec.reference.lstm import lstm_cell
from attnspec.reference.recurrent import recurrent
from attnspec.reference.rnn import rnn_cell
from attnspec.reference.unroll import unroll
from tests.authorities.agreement import Draw, authority
from tests.authorities.onnx_vectors import Call, NotInReference, Vector, check_all, translates

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # where ONNX has the reference's first, second, ... gate


def results(
    names: tuple[str, ...], x: Any, parameters: Any, cell: Any, lengths: Any = None, state: Any = None
) -> dict[str, Any]:
    """recurrent, with the results that a node has, under their names in ONNX."""
    out, final = recurrent(x, parameters, cell, lengths, state)
    return {name: array for name, array in (("Y", out), *zip(("Y_h", "Y_c"), final, strict=False)) if name in names}


@translates("LSTM")
@translates("GRU")
@translates("RNN")
def recurrent_calls(vector: Vector) -> list[Call]:
    """Outputs and final states."""
    given, attributes = vector.inputs, vector.attributes
    if "P" in given:
        raise NotInReference("peephole weights P: the LSTM of the notes has none")
    known = {"hidden_size", "direction", "layout", "linear_before_reset"}
    assert set(attributes) <= known, f"{vector.name}: {set(attributes) - known}"
    direction, batch_first = attributes.get("direction", b"forward"), attributes.get("layout", 0) == 1
    backward = direction == b"reverse"
    assert not (backward and "sequence_lens" in given), "a reversed run of padded sequences: no vector has it"
    cell = {"LSTM": "lstm", "RNN": "rnn", "GRU": "gru" if attributes.get("linear_before_reset") else "gru_reset_before"}
    x = given["X"] if batch_first else given["X"].swapaxes(0, 1)
    state = tuple(_runs_first(given[name], batch_first) for name in ("initial_h", "initial_c") if name in given) or None
    got = {}
    for name, array in vector.outputs.items():
        got[name] = _features_last(array, batch_first, backward) if name == "Y" else _runs_first(array, batch_first)
    arguments = (tuple(got), x[:, ::-1] if backward else x, _parameters(vector), cell[vector.operator])
    return [Call(got, results, (*arguments, given.get("sequence_lens"), state))]


def _parameters(vector: Vector) -> dict[str, Any]:
    """Names and order of gates of the reference, for each direction."""
    parameters, gates = {}, GATES[vector.operator]
    for run, prefix in zip(range(len(vector.inputs["W"])), ("0.", "0.reverse."), strict=False):
        parameters[f"{prefix}input.weight"] = _reordered(vector.inputs["W"][run], gates)
        parameters[f"{prefix}hidden.weight"] = _reordered(vector.inputs["R"][run], gates)
        if "B" in vector.inputs:
            both = np.split(vector.inputs["B"][run], 2)
            parameters[f"{prefix}input.bias"], parameters[f"{prefix}hidden.bias"] = (_reordered(b, gates) for b in both)
    return parameters


def _reordered(stacked: Any, gates: tuple[int, ...]) -> Any:
    parts = np.split(stacked, len(gates))
    return np.concatenate([parts[gate] for gate in gates])


def _runs_first(state: Any, batch_first: bool) -> Any:
    """[B,R,N] or [R,B,N] -> [R,B,N]."""
    return state.swapaxes(0, 1) if batch_first else state


def _features_last(y: Any, batch_first: bool, backward: bool) -> Any:
    """[B,T,R,N] or [T,R,B,N] -> [B,T,R*N], the steps in the order in which they were taken."""
    y = y if batch_first else y.transpose(2, 0, 1, 3)
    y = y.reshape(*y.shape[:2], -1)
    return y[:, ::-1] if backward else y


@authority("I04", "ONNX LSTM, node vectors", of=(recurrent, bidirectional, unroll, lstm_cell), examples=1)
def onnx_lstm(_: Draw) -> None:
    """One layer in one direction or both, with and without bias: outputs and final states."""
    check_all("LSTM")


@authority("I04", "ONNX GRU, node vectors", of=(recurrent, bidirectional, unroll, gru_cell), examples=1)
def onnx_gru(_: Draw) -> None:
    """One layer in one direction or both, with and without bias, reset before the product: outputs and final states."""
    check_all("GRU")


@authority("I04", "ONNX RNN, node vectors", of=(recurrent, bidirectional, unroll, rnn_cell), examples=1)
def onnx_rnn(_: Draw) -> None:
    """One layer in one direction or both, with and without bias: outputs and final states."""
    check_all("RNN")
