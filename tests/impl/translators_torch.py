"""The models of impl with the drawn weights of tests/reference, and what both give; no tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnspec.impl.recurrent import Recurrent
from attnspec.impl.recurrent_translator import RecurrentTranslator
from attnspec.reference.bahdanau_decoder import bahdanau_logits, bahdanau_start, bahdanau_step
from attnspec.reference.encoder_decoder import encoder_decoder_logits, encoder_decoder_start, encoder_decoder_step
from attnspec.reference.luong_decoder import luong_logits, luong_start, luong_step
from tests.reference.translators import model

torch.set_num_threads(1)
KINDS = ("none", "additive", "dot", "general", "concat")
SIZES = {"V": 4, "W": 5, "M": 3, "P": 2, "N": 2, "A": 3, "L": 2, "R": 2}
SOURCE, TARGET, LENGTHS = np.array([[0, 1, 2, 3], [3, 1, 0, 0]]), np.array([[0, 4, 2], [1, 3, 0]]), np.array([4, 2])
# Kinds with their options of input feeding: those without a choice take whichever.
MODELS = [("none", True), ("additive", True), *((kind, feeding) for kind in KINDS[2:] for feeding in (True, False))]


def tensors(arrays: Any, dtype: torch.dtype = torch.float64) -> Any:
    """The same structure with tensors for arrays."""
    if isinstance(arrays, dict):
        return {name: tensors(array, dtype) for name, array in arrays.items()}
    if isinstance(arrays, tuple):
        return tuple(tensors(array, dtype) for array in arrays)
    tensor = torch.tensor(arrays)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def arrays(tensors_: Any) -> Any:
    """The same structure with arrays for tensors."""
    if isinstance(tensors_, dict):
        return {name: arrays(tensor) for name, tensor in tensors_.items()}
    if isinstance(tensors_, (tuple, list)):
        return tuple(map(arrays, tensors_))
    return tensors_.detach().numpy() if isinstance(tensors_, Tensor) else tensors_


def rounded(arrays_: Any) -> Any:
    """The same structure with numbers that float32 holds."""
    if isinstance(arrays_, dict):
        return {name: rounded(array) for name, array in arrays_.items()}
    if isinstance(arrays_, tuple):
        return tuple(map(rounded, arrays_))
    floats = isinstance(arrays_, np.ndarray) and arrays_.dtype == np.float64
    return arrays_.astype(np.float32).astype(np.float64) if floats else arrays_


def stack_of(parameters: dict[str, np.ndarray], cell: str, dtype: torch.dtype = torch.float64) -> Recurrent:
    """A stack with these weights, under these names."""
    layers = 1 + max(int(name.partition(".")[0]) for name in parameters)
    M, N = parameters["0.input.weight"].shape[1], parameters["0.hidden.weight"].shape[1]
    options = {"bidirectional": "0.reverse.input.weight" in parameters, "bias": "0.input.bias" in parameters}
    stack = Recurrent(M, N, layers, cell, **options)
    stack.to(dtype).load_state_dict(tensors(parameters, dtype))
    return stack


def translator_of(
    parameters: dict[str, np.ndarray], cell: str, kind: str, feeding: bool = True, dtype: torch.dtype = torch.float64,
    **options: Any,
) -> RecurrentTranslator:  # fmt: skip
    """A translator with these weights, under these names."""
    V, M = parameters["source.embedding.weight"].shape
    W, P = parameters["target.embedding.weight"].shape
    layers = sum(name.startswith("decoder.") and name.endswith("hidden.weight") for name in parameters)
    A = parameters.get("attention.score.weight", np.zeros(1)).shape[0]
    options |= {"bidirectional": "encoder.0.reverse.input.weight" in parameters, "bias": "output.bias" in parameters}
    N = parameters["output.weight"].shape[1]
    model = RecurrentTranslator(V, M, N, layers, cell, kind, target_V=W, target_M=P, A=A, input_feeding=feeding, **options)
    model.to(dtype).load_state_dict(tensors(parameters, dtype))
    return model


def mask_of(lengths: np.ndarray | None, S: int) -> Tensor | None:
    return None if lengths is None else torch.tensor(np.arange(S) < lengths[:, None])


def reference_of(kind: str, feeding: bool, cell: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Logits and table of a model of the reference, and its logits alone, from source, inputs, parameters, lengths."""

    def both(source: Any, inputs: Any, parameters: Any, lengths: Any) -> Any:
        if kind == "none":
            return (encoder_decoder_logits(source, inputs, parameters, cell, lengths),)
        if kind == "additive":
            return bahdanau_logits(source, inputs, parameters, cell, lengths)
        return luong_logits(source, inputs, parameters, cell, kind, lengths, feeding)

    return both, lambda *args: both(*args)[0]


def reference_step(
    kind: str, feeding: bool, cell: str, source: np.ndarray, parameters: Any, lengths: Any
) -> tuple[Callable[..., Any], Any]:
    """step and first state of a model of the reference, for its searches; a state is (state, states, lengths)."""
    if kind == "none":
        states, state = None, encoder_decoder_start(source, parameters, cell, lengths)
    else:
        states, state = (bahdanau_start if kind == "additive" else luong_start)(source, parameters, cell, lengths)

    def step(token: Any, given: Any) -> Any:
        state, states, lengths = given
        if kind == "none":
            logits, state = encoder_decoder_step(token, state, parameters, cell)
        elif kind == "additive":
            logits, state, _ = bahdanau_step(token, state, states, parameters, cell, lengths)
        else:
            logits, state, _ = luong_step(token, state, states, parameters, cell, kind, lengths, feeding)
        return logits, (state, states, lengths)

    return step, (state, states, lengths)


def reference_reorder(given: Any, index: np.ndarray) -> Any:
    state, states, lengths = given
    state = tuple(array[:, index] for array in state)
    return state, None if states is None else states[index], None if lengths is None else lengths[index]


def a_model(
    kind: str, feeding: bool = True, cell: str = "lstm", **options: Any
) -> tuple[dict[str, np.ndarray], RecurrentTranslator]:
    """One model of each kind, with two layers and an encoder of two directions, for SOURCE and TARGET."""
    parameters = model(kind, SIZES, cell, np.random.default_rng(0), True, feeding)
    return parameters, translator_of(parameters, cell, kind, feeding, **options)


def logits_and_table(
    translator: RecurrentTranslator,
    source: np.ndarray,
    target: np.ndarray,
    lengths: np.ndarray | None,
    target_mask: Any = None,
) -> Any:
    """(logits,) without attention, else (logits, table)."""
    given_ = tensors(source), tensors(target), mask_of(lengths, source.shape[1]), target_mask
    if translator.attention is None:
        return (arrays(translator.logits(*given_)),)
    got = arrays(translator.logits_with_table(*given_))
    np.testing.assert_array_equal(got[0], arrays(translator.logits(*given_)))
    return got
