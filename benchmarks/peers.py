"""The contenders that are not always installed: transformers, x-transformers and CTranslate2, each with the same weights."""

from __future__ import annotations

import importlib.metadata
import math
import os
import tempfile
import warnings
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from attnspec.impl.config import TransformerConfig
from attnspec.impl.positions import sinusoidal
from attnspec.impl.weight_names import MARIAN, their_name, with_channels
from benchmarks.contenders import (
    Contender,
    Ours,
    OursInBfloat16,
    TorchTransformer,
    TorchTransformerAutocast,
    TorchTransformerFast,
    grad_of,
)  # fmt: skip
from benchmarks.paper_model import END, PADDING, START, State, channels_by_wave
from benchmarks.translator_process import started, translate


class Marian(Contender):
    """transformers' MarianMTModel: channels in the order of its positions, all sines and then all cosines."""

    name = "transformers"
    notes: ClassVar[dict[str, str]] = {
        "decode": "Marian, SDPA, generate()",
        "encode": "Marian, SDPA",
        "train": "Marian, SDPA",
    }

    def __init__(self, config: TransformerConfig, state: State) -> None:
        from transformers import MarianConfig, MarianMTModel

        sizes = {
            "vocab_size": config.vocab_size, "d_model": config.width, "max_position_embeddings": config.max_length,
        }  # fmt: skip
        for side, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
            sizes |= {f"{side}_layers": depth, f"{side}_attention_heads": config.heads, f"{side}_ffn_dim": config.hidden}
        variant = {"activation_function": "relu", "scale_embedding": True, "dropout": 0.0, "num_beams": 1}
        ids = {"pad_token_id": PADDING, "eos_token_id": END, "decoder_start_token_id": START, "forced_eos_token_id": None}
        self.net = MarianMTModel(MarianConfig(**sizes, **variant, **ids))
        self.order = channels_by_wave(config.width)
        theirs = {their_name(name, MARIAN): entry for name, entry in with_channels(state, self.order).items()}
        missing, unknown = self.net.load_state_dict(theirs, strict=False)
        computed = ("embed_positions.weight", "embed_tokens.weight", "lm_head.weight", "final_logits_bias")
        assert not unknown
        assert all(name.endswith(computed) for name in missing), missing

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.net(input_ids=source, decoder_input_ids=target, use_cache=False).logits

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with torch.inference_mode():
            found = self.net.model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        return found[..., self.order.argsort()]

    def decode(self, source: Tensor, new: int) -> Tensor:
        found = self.net.generate(
            input_ids=source, attention_mask=torch.ones_like(source), max_new_tokens=new, do_sample=False
        )
        return found[:, 1:]

    def source_gradient(self) -> Tensor:
        return grad_of(self.net.model.shared)[:, self.order.argsort()]


class MarianAutocast(Marian):
    name = "transformers, autocast"
    does = frozenset({"train"})
    dtype = "bfloat16"

    def precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.net.device.type, torch.bfloat16)


class XTransformers(Contender):
    """x-transformers' XTransformer: channels in the order of its sines and cosines, and sqrt(M) inside its embedding."""

    name = "x-transformers"
    notes: ClassVar[dict[str, str]] = {
        "decode": "flash", "encode": "flash; norms and attention without biases",
        "train": "flash; without biases, output weights of its own",
    }  # fmt: skip

    def __init__(self, config: TransformerConfig, state: State) -> None:
        from x_transformers import XTransformer

        sides: dict[str, Any] = {}
        for side, depth in (("enc", config.encoder_layers), ("dec", config.decoder_layers)):
            one = {
                "num_tokens": config.vocab_size, "depth": depth, "heads": config.heads, "max_seq_len": config.max_length,
                "pre_norm": False, "scaled_sinu_pos_emb": True, "attn_flash": True, "attn_dim_head": config.channels,
                "ff_mult": config.hidden / config.width, "ff_custom_activation": nn.ReLU(),
                "norm_add_unit_offset": False,
            }  # fmt: skip
            sides |= {f"{side}_{key}": value for key, value in one.items()}
        self.net = XTransformer(dim=config.width, tie_token_emb=True, **sides)
        self.order, self.scale = channels_by_wave(config.width), math.sqrt(config.width)
        self.net.load_state_dict(x_names(with_channels(state, self.order), config), strict=True)

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.net.encoder(source, return_embeddings=True)
        return self.net.decoder.net(target, context=memory)

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with torch.inference_mode():
            found = self.net.encoder(source, mask=mask, return_embeddings=True)
        return found[..., self.order.argsort()]

    def decode(self, source: Tensor, new: int) -> Tensor:
        start = torch.full((len(source), 1), START, device=source.device)
        return self.net.generate(source, start, new, temperature=0.0, eos_token=END)

    def source_gradient(self) -> Tensor:
        """That of both uses of the words, as ours are tied: the library keeps the output's apart."""
        inside, outside = grad_of(self.net.encoder.token_emb.emb), self.net.decoder.net.to_logits.weight.grad
        return (inside * self.scale + outside)[:, self.order.argsort()]


def x_names(state: State, config: TransformerConfig) -> State:
    """Our weights, their channels in its order, under the names of XTransformer; sub-layers are numbered in one row."""
    out: State = {}
    parts_of = {"encoder": ("attention", "feed_forward"), "decoder": ("attention", "cross", "feed_forward")}
    for side, stack in (("encoder", "encoder"), ("decoder.net", "decoder")):
        parts = parts_of[stack]
        out[f"{side}.token_emb.emb.weight"] = state["source.embedding.weight"] * math.sqrt(config.width)
        out[f"{side}.pos_emb.scale"] = torch.ones(1)
        for name, entry in state.items():
            owner, i, *rest = name.split(".")
            if owner != stack:
                continue
            part, leaf = rest[0], rest[-1]
            to = f"{side}.attn_layers.layers.{int(i) * len(parts) + parts.index(part.removesuffix('_norm'))}."
            if part.endswith("_norm"):
                out |= {f"{to}0.2.gamma": entry} if leaf == "weight" else {}
            elif part == "feed_forward":
                out[f"{to}1.ff.{'0.0' if rest[1] == 'up' else '2'}.{leaf}"] = entry
            elif leaf == "weight":
                out[f"{to}1.to_{'out' if rest[1] == 'o' else rest[1]}.weight"] = entry
    return out | {"decoder.net.to_logits.weight": state["source.embedding.weight"]}


class CTranslate2(Contender):
    """CTranslate2's Translator, in a process of its own. It encodes only to decode: `encode` is also one word."""

    name = "CTranslate2"
    notes: ClassVar[dict[str, str]] = {"encode": "and one decoded word"}
    does = frozenset({"decode", "encode"})

    def __init__(self, config: TransformerConfig, state: State) -> None:
        with tempfile.TemporaryDirectory() as folder:
            specification(config, state).save(folder)
            self.process = started(folder, self.dtype, torch.get_num_threads())

    def translated(self, source: list[list[str]], **options: Any) -> list[tuple[list[str], list[Any]]]:
        return self.process.submit(translate, source, options).result()

    def evaluated(self) -> None:
        """It knows no training."""

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        lengths = {
            "min_decoding_length": 0,
            "max_decoding_length": target.shape[1],
        }  # a least length would hide the end symbol
        prefix = words_of(target[:, 1:])  # it starts with START by itself
        found = self.translated(words_of(source), target_prefix=prefix, return_logits_vocab=True, **lengths)
        return torch.tensor(np.array([logits for _, logits in found]))

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        self.translated(words_of(source, mask), max_decoding_length=1)
        return torch.empty(0)  # it does not show what the encoder gives

    def decode(self, source: Tensor, new: int) -> Tensor:
        found = self.translated(words_of(source), max_decoding_length=new)
        return torch.tensor([[int(word) for word in words] for words, _ in found])


class CTranslate2Int8(CTranslate2):
    name = "CTranslate2, int8"
    notes: ClassVar[dict[str, str]] = dict.fromkeys(("decode", "encode"), "for information: other weights")
    dtype = "int8"


def words_of(ids: Tensor, mask: Tensor | None = None) -> list[list[str]]:
    rows = ids.tolist() if mask is None else [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    return [[str(i) for i in row] for row in rows]


def specification(config: TransformerConfig, state: State) -> Any:
    """Our weights in the containers of CTranslate2."""
    from ctranslate2.specs import transformer_spec

    spec = transformer_spec.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers), config.heads, pre_norm=False
    )
    array = {name: entry.numpy() for name, entry in state.items()}
    positions = sinusoidal(torch.arange(config.max_length), config.width).float().numpy()
    table = array["source.embedding.weight"]
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = spec.decoder.projection.weight = table
    for stack, side in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        side.position_encodings.encodings = positions
        for i, layer in enumerate(side.layer):
            fill_layer(layer, array, f"{stack}.{i}.")
    vocabulary = [str(i) for i in range(config.vocab_size)]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.bos_token = spec.config.decoder_start_token = str(START)
    spec.config.eos_token, spec.config.unk_token = str(END), str(PADDING)
    spec.validate()
    return spec


def fill_layer(layer: Any, array: dict[str, Any], at: str) -> None:
    """One layer of `specification`."""

    def fill(linear: Any, *names: str) -> None:
        linear.weight = np.concatenate([array[f"{at}{name}.weight"] for name in names])
        linear.bias = np.concatenate([array[f"{at}{name}.bias"] for name in names])

    def fill_norm(norm: Any, name: str) -> None:
        norm.gamma, norm.beta = array[f"{at}{name}.weight"], array[f"{at}{name}.bias"]

    attentions = {"attention": layer.self_attention}
    fill(layer.self_attention.linear[0], *(f"attention.{x}" for x in "qkv"))
    if f"{at}cross.q.weight" in array:
        attentions["cross"] = layer.attention
        fill(layer.attention.linear[0], "cross.q")
        fill(layer.attention.linear[1], "cross.k", "cross.v")
    for name, one in attentions.items():
        fill(one.linear[-1], f"{name}.o")
        fill_norm(one.layer_norm, f"{name}_norm")
    fill(layer.ffn.linear_0, "feed_forward.up")
    fill(layer.ffn.linear_1, "feed_forward.down")
    fill_norm(layer.ffn.layer_norm, "feed_forward_norm")


NEEDS: dict[type[Contender], str] = {
    Marian: "transformers", MarianAutocast: "transformers", XTransformers: "x-transformers",
    CTranslate2: "ctranslate2", CTranslate2Int8: "ctranslate2",
}  # fmt: skip
ALL: tuple[type[Contender], ...] = (
    Ours, OursInBfloat16, TorchTransformer, TorchTransformerFast, TorchTransformerAutocast, Marian, MarianAutocast,
    XTransformers, CTranslate2, CTranslate2Int8,
)  # fmt: skip


def version(kind: type[Contender]) -> str | None:
    """Of the library that a contender needs: None if that is not installed."""
    try:
        return importlib.metadata.version(NEEDS.get(kind, "torch"))
    except importlib.metadata.PackageNotFoundError:
        return None


def built(config: TransformerConfig, state: State, kinds: tuple[type[Contender], ...] = ALL) -> list[Contender]:
    """Every contender that is installed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is loaded: models are built from configurations
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about each other
        return [kind(config, state) for kind in kinds if version(kind) is not None]
