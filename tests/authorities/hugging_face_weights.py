"""transformers' models with drawn weights, and their weights and gradients under the names of the reference; no authority.

A table gives each name of a model's state_dict the names of the reference. What stands in braces varies; `Cut` takes a
weight apart that transformers keeps fused, transposed, or with rows that nobody reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

from attnspec.reference.shapes import FloatArray

torch.set_num_threads(1)
# "text" is not matched: it is what the reference calls the input of that side.
WORDS = {"i": r"\d+", "n": r"\d", "w": "weight|bias", "x": "[qkv]", "y": "[qkvo]", "side": "en|de"}
TEXT = {"en": "source", "de": "target"}


@dataclass(frozen=True)
class Cut:
    """The parts of a fused weight: their names, and how they are cut out of it."""

    names: tuple[str, ...]
    cut: Callable[[FloatArray], list[FloatArray]]


Names = Mapping[str, "str | Cut | None"]  # None: the entry is no parameter of the reference


def transposed(name: str) -> Cut:
    """transformers' Conv1D is [in, out]."""
    return Cut((name,), lambda array: [array.T])


def packed(name: str) -> Cut:
    """Queries, keys and values side by side in a Conv1D."""
    return Cut(tuple(name.replace("{x}", x) for x in "qkv"), lambda array: np.split(array.T, 3))


def packed_by_head(name: str, heads: int) -> Cut:
    """The query, key and value of the first head, those of the second, ..."""

    def cut(array: FloatArray) -> list[FloatArray]:
        by_head = array.reshape(heads, 3, -1, *array.shape[1:])
        return [by_head[:, j].reshape(-1, *array.shape[1:]) for j in range(3)]

    return Cut(tuple(name.replace("{x}", x) for x in "qkv"), cut)


GPT2: Names = {
    "transformer.wte.weight": "target.embedding.weight",
    "transformer.wpe.weight": "target.position.weight",
    "transformer.h.{i}.ln_1.{w}": "decoder.{i}.attention_norm.{w}",
    "transformer.h.{i}.attn.c_attn.{w}": packed("decoder.{i}.attention.{x}.{w}"),
    "transformer.h.{i}.attn.c_proj.{w}": transposed("decoder.{i}.attention.o.{w}"),
    "transformer.h.{i}.ln_2.{w}": "decoder.{i}.feed_forward_norm.{w}",
    "transformer.h.{i}.mlp.c_fc.{w}": transposed("decoder.{i}.feed_forward.up.{w}"),
    "transformer.h.{i}.mlp.c_proj.{w}": transposed("decoder.{i}.feed_forward.down.{w}"),
    "transformer.ln_f.{w}": "decoder.norm.{w}",
    "lm_head.weight": "output.weight",
}

LLAMA: Names = {
    "model.embed_tokens.weight": "target.embedding.weight",
    "model.layers.{i}.input_layernorm.weight": "decoder.{i}.attention_norm.weight",
    "model.layers.{i}.self_attn.{y}_proj.{w}": "decoder.{i}.attention.{y}.{w}",
    "model.layers.{i}.post_attention_layernorm.weight": "decoder.{i}.feed_forward_norm.weight",
    "model.layers.{i}.mlp.gate_proj.{w}": "decoder.{i}.feed_forward.gate.{w}",
    "model.layers.{i}.mlp.up_proj.{w}": "decoder.{i}.feed_forward.up.{w}",
    "model.layers.{i}.mlp.down_proj.{w}": "decoder.{i}.feed_forward.down.{w}",
    "model.norm.weight": "decoder.norm.weight",
    "lm_head.weight": "output.weight",
}


def bloom(heads: int) -> Names:
    return {
        "transformer.word_embeddings.weight": "target.embedding.weight",
        "transformer.word_embeddings_layernorm.{w}": "target.embedding_norm.{w}",
        "transformer.h.{i}.input_layernorm.{w}": "decoder.{i}.attention_norm.{w}",
        "transformer.h.{i}.self_attention.query_key_value.{w}": packed_by_head("decoder.{i}.attention.{x}.{w}", heads),
        "transformer.h.{i}.self_attention.dense.{w}": "decoder.{i}.attention.o.{w}",
        "transformer.h.{i}.post_attention_layernorm.{w}": "decoder.{i}.feed_forward_norm.{w}",
        "transformer.h.{i}.mlp.dense_h_to_4h.{w}": "decoder.{i}.feed_forward.up.{w}",
        "transformer.h.{i}.mlp.dense_4h_to_h.{w}": "decoder.{i}.feed_forward.down.{w}",
        "transformer.ln_f.{w}": "decoder.norm.{w}",
        "lm_head.weight": "output.weight",
    }


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
    T5_LAYER + "{n}.DenseReluDense.wi.weight": "{side}coder.{i}.feed_forward.up.weight",
    T5_LAYER + "{n}.DenseReluDense.wi_0.weight": "{side}coder.{i}.feed_forward.gate.weight",
    T5_LAYER + "{n}.DenseReluDense.wi_1.weight": "{side}coder.{i}.feed_forward.up.weight",
    T5_LAYER + "{n}.DenseReluDense.wo.weight": "{side}coder.{i}.feed_forward.down.weight",
    "encoder.block.{i}.layer.1.layer_norm.weight": "encoder.{i}.feed_forward_norm.weight",
    "decoder.block.{i}.layer.2.layer_norm.weight": "decoder.{i}.feed_forward_norm.weight",
    "{side}coder.final_layer_norm.weight": "{side}coder.norm.weight",
}

SIDE, LAYER = "model.{side}coder.", "model.{side}coder.layers.{i}."
TRANSLATOR: Names = {
    "model.shared.weight": "source.embedding.weight",
    SIDE + "embed_tokens.weight": "{text}.embedding.weight",
    LAYER + "self_attn.{x}_proj.{w}": "{side}coder.{i}.attention.{x}.{w}",
    LAYER + "self_attn.out_proj.{w}": "{side}coder.{i}.attention.o.{w}",
    LAYER + "self_attn_layer_norm.{w}": "{side}coder.{i}.attention_norm.{w}",
    LAYER + "encoder_attn.{x}_proj.{w}": "{side}coder.{i}.cross.{x}.{w}",
    LAYER + "encoder_attn.out_proj.{w}": "{side}coder.{i}.cross.o.{w}",
    LAYER + "encoder_attn_layer_norm.{w}": "{side}coder.{i}.cross_norm.{w}",
    LAYER + "fc1.{w}": "{side}coder.{i}.feed_forward.up.{w}",
    LAYER + "fc2.{w}": "{side}coder.{i}.feed_forward.down.{w}",
    LAYER + "final_layer_norm.{w}": "{side}coder.{i}.feed_forward_norm.{w}",
    "final_logits_bias": Cut(("output.bias",), lambda array: [array[0]]),
    "lm_head.weight": "output.weight",
}
# The first two positions of BART are never read: position t is row t + 2.
BART: Names = TRANSLATOR | {
    SIDE + "embed_positions.weight": Cut(("{text}.position.weight",), lambda array: [array[2:]]),
    SIDE + "layernorm_embedding.{w}": "{text}.embedding_norm.{w}",
}
MARIAN: Names = TRANSLATOR | {SIDE + "embed_positions.weight": None}


def value(entry: torch.Tensor) -> FloatArray:
    return entry.detach().double().numpy().copy()


def gradient(entry: torch.Tensor) -> FloatArray:
    assert entry.grad is not None
    return entry.grad.numpy().copy()


def left_out(model: torch.nn.Module, names: Names) -> dict[str, str]:
    """The entries of the state_dict that have no name in the reference, each with its reason."""
    kept: dict[int, str] = {}
    out = {}
    for name, entry in model.state_dict(keep_vars=True).items():
        if id(entry) in kept:
            out[name] = f"the same tensor as {kept[id(entry)]}"
        elif rule(name, names)[0] is None:
            out[name] = "computed, not learned"
        kept.setdefault(id(entry), name)
    return out


def rule(name: str, names: Names) -> tuple[str | Cut | None, dict[str, str]]:
    """What the table says of an entry, and the words in the braces."""
    found = []
    for pattern, ours in names.items():
        theirs = re.escape(pattern)
        for word, may_be in WORDS.items():
            theirs = theirs.replace(rf"\{{{word}\}}", f"(?P<{word}>{may_be})")
        if match := re.fullmatch(theirs, name):
            found.append((ours, match.groupdict()))
    assert len(found) == 1, f"{name}: {len(found)} names in the table, want one"
    ours, words = found[0]
    return ours, words | ({"text": TEXT[words["side"]]} if "side" in words else {})


def translated(
    model: torch.nn.Module, names: Names, take: Callable[[torch.Tensor], FloatArray] = value
) -> dict[str, FloatArray]:
    """The weights, or what else `take` takes of them, under the names of the reference: each entry once."""
    without, out = left_out(model, names), {}
    for name, entry in model.state_dict(keep_vars=True).items():
        if name in without:
            continue
        ours, words = rule(name, names)
        assert ours is not None
        parts = {ours: take(entry)} if isinstance(ours, str) else dict(zip(ours.names, ours.cut(take(entry)), strict=True))
        for part, array in parts.items():
            assert part.format(**words) not in out, f"{name}: {part.format(**words)} has a weight already"
            out[part.format(**words)] = array
    return out


def with_channels(parameters: Mapping[str, FloatArray], order: np.ndarray[Any, Any]) -> dict[str, FloatArray]:
    """The same model, or its gradients, with the channels between its layers in another order."""
    out = {}
    for name, array in parameters.items():
        part, leaf = name.split(".")[-2:]
        writes = part.endswith("norm") or part in ("o", "down")
        out[name] = array[order] if writes else array[:, order] if leaf == "weight" else array
    return out


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
