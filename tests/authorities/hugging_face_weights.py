"""transformers' models with drawn weights, and their weights and gradients under the names of the reference; no authority.

The tables of names are those by which impl/ loads such models. BERT and T5, which it cannot express, have theirs here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from attnspec.impl.weight_names import BART, GPT2, LLAMA, MARIAN, Names, bloom, renamed, with_channels
from attnspec.reference.shapes import FloatArray

__all__ = ["BART", "BERT", "GPT2", "LLAMA", "MARIAN", "T5", "bloom", "translated", "with_channels"]

torch.set_num_threads(1)

BERT_LAYER = "bert.encoder.layer.{i}."
BERT: Names = {
    "bert.embeddings.word_embeddings.weight": "source.embedding.weight",
    "bert.embeddings.position_embeddings.weight": "source.position.weight",
    "bert.embeddings.token_type_embeddings.weight": "types.weight",
    "bert.embeddings.LayerNorm.{w}": "source.embedding_norm.{w}",
    BERT_LAYER + "attention.self.query.{w}": "encoder.{i}.attention.q.{w}",
    BERT_LAYER + "attention.self.key.{w}": "encoder.{i}.attention.k.{w}",
    BERT_LAYER + "attention.self.value.{w}": "encoder.{i}.attention.v.{w}",
    BERT_LAYER + "attention.output.dense.{w}": "encoder.{i}.attention.o.{w}",
    BERT_LAYER + "attention.output.LayerNorm.{w}": "encoder.{i}.attention_norm.{w}",
    BERT_LAYER + "intermediate.dense.{w}": "encoder.{i}.feed_forward.up.{w}",
    BERT_LAYER + "output.dense.{w}": "encoder.{i}.feed_forward.down.{w}",
    BERT_LAYER + "output.LayerNorm.{w}": "encoder.{i}.feed_forward_norm.{w}",
    "cls.predictions.transform.dense.{w}": "head.dense.{w}",
    "cls.predictions.transform.LayerNorm.{w}": "head.norm.{w}",
    "cls.predictions.decoder.weight": "output.weight",
    "cls.predictions.bias": "output.bias",
}

T5_LAYER = "{side}coder.block.{i}.layer."
T5: Names = {
    "shared.weight": "source.embedding.weight",
    T5_LAYER + "0.SelfAttention.relative_attention_bias.weight": "{side}coder.relative.weight",
    T5_LAYER + "0.SelfAttention.{y}.weight": "{side}coder.{i}.attention.{y}.weight",
    T5_LAYER + "0.layer_norm.weight": "{side}coder.{i}.attention_norm.weight",
    "decoder.block.{i}.layer.1.EncDecAttention.{y}.weight": "decoder.{i}.cross.{y}.weight",
    "decoder.block.{i}.layer.1.layer_norm.weight": "decoder.{i}.cross_norm.weight",
    "{side}coder.final_layer_norm.weight": "{side}coder.norm.weight",
} | {
    f"{layer}.{theirs}.weight": f"{layer[:7]}.{{i}}.{ours}.weight"
    for layer in ("encoder.block.{i}.layer.1", "decoder.block.{i}.layer.2")
    for theirs, ours in {
        "DenseReluDense.wi": "feed_forward.up", "DenseReluDense.wi_0": "feed_forward.gate",
        "DenseReluDense.wi_1": "feed_forward.up", "DenseReluDense.wo": "feed_forward.down", "layer_norm": "feed_forward_norm",
    }.items()
}  # fmt: skip


def value(entry: torch.Tensor) -> torch.Tensor:
    return entry.detach().double()


def gradient(entry: torch.Tensor) -> torch.Tensor:
    assert entry.grad is not None
    return entry.grad


def left_out(model: torch.nn.Module, names: Names) -> dict[str, str]:
    """The entries of the state_dict that have no name in the reference, each with its reason."""
    kept: dict[int, str] = {}
    out = {}
    for name, entry in model.state_dict(keep_vars=True).items():
        if id(entry) in kept:
            out[name] = f"the same tensor as {kept[id(entry)]}"
        elif renamed({name: entry}, names) == ({}, [], []):
            out[name] = "computed, not learned"
        kept.setdefault(id(entry), name)
    return out


def translated(
    model: torch.nn.Module, names: Names, take: Callable[[torch.Tensor], torch.Tensor] = value
) -> dict[str, FloatArray]:
    """The weights, or what else `take` takes of them, under the names of the reference: each entry once."""
    without, state = left_out(model, names), model.state_dict(keep_vars=True)
    found = renamed({name: take(entry) for name, entry in state.items() if name not in without}, names)
    assert not found.surplus + found.misshapen, f"{found.surplus + found.misshapen}: 0 names in the table, want one"
    return {name: x.numpy().copy() for name, x in found.weights.items()}


def redrawn(model: Any, rng: np.random.Generator) -> Any:
    """The model with weights of order 1 / sqrt(width), no bias 0 and no norm 1; of float32 values, so that sums are exact."""
    learned = {name: one for name, one in model.named_parameters() if one.requires_grad}
    learned |= {name: one for name, one in model.named_buffers() if name == "final_logits_bias"}
    for name, entry in learned.items():
        size = tuple(entry.shape)
        drawn = rng.normal(size=size) / np.sqrt(size[1]) if len(size) == 2 else 0.3 * rng.normal(size=size)
        drawn = drawn + (len(size) == 1 and name.endswith("weight"))
        entry.data = torch.tensor(drawn.astype(np.float32)).to(entry.dtype)
    return model.eval()


class _Wide:
    """torch, but what asks for single precision gets double precision."""

    float32 = float = torch.float64
    FloatTensor = torch.DoubleTensor

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def double_precision(module: Any) -> Iterator[None]:
    """A modeling_* file of transformers in double precision throughout.

    Norms, softmax, angles or sinusoids of some models are cast to float32 whatever the model is in: that is their precision,
    not their formula. Without the cast they can be held to the bound of float64.
    """
    with mock.patch.object(module, "torch", _Wide()):
        yield
