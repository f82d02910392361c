"""Drawn models of transformers beside those of impl/ that have their weights, and what both read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import transformers
from hypothesis import strategies as st
from transformers.models.bart import modeling_bart
from transformers.models.bloom import modeling_bloom
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama
from transformers.models.marian import modeling_marian
from transformers.models.mistral import modeling_mistral

from attnspec.impl.weights import from_transformers
from tests.authorities.agreement import Draw
from tests.authorities.hugging_face import END, PLACES, Case, Sizes, config_of, inputs
from tests.authorities.hugging_face_translators import IDS, START, of_target_too
from tests.authorities.hugging_face_weights import double_precision, redrawn
from tests.impl.impl_models import always

OPTIONS = (
    "order", "norm", "eps", "activation", "positions", "rotary_base", "rotary_pairs", "rotary_width", "window", "softcap",
    "scale", "scale_embeddings", "heads", "kv_heads",
)  # fmt: skip
Configure = Callable[[Sizes], Any]


def gpt2(n: Sizes) -> Any:
    sizes = config_of(n, M="n_embd", H="n_head", F="n_inner", activation="activation_function", eps="layer_norm_epsilon")
    sizes["n_inner"] = n.draw(st.sampled_from([n.F, None]))
    return transformers.GPT2Config(
        **sizes, n_layer=2, n_positions=PLACES, tie_word_embeddings=n.either, scale_attn_weights=n.either,
        bos_token_id=START, eos_token_id=END,
    )  # fmt: skip


def of_llama(n: Sizes) -> dict[str, Any]:
    n.H = 4
    names = {"M": "hidden_size", "H": "num_attention_heads", "F": "intermediate_size", "eps": "rms_norm_eps"}
    return config_of(n, activation="hidden_act", **names) | {
        "num_hidden_layers": 2, "num_key_value_heads": n.draw(st.sampled_from([1, 2, 4])), "eos_token_id": END,
        "head_dim": n.draw(st.sampled_from([4, 6])), "tie_word_embeddings": n.either, "max_position_embeddings": PLACES,
        "rope_parameters": {"rope_type": "default", "rope_theta": n.draw(st.sampled_from([10000.0, 50.0]))},
    }  # fmt: skip


def llama(n: Sizes) -> Any:
    return transformers.LlamaConfig(**of_llama(n), attention_bias=n.either, mlp_bias=n.either)


def mistral(n: Sizes) -> Any:
    window = n.draw(st.sampled_from([1, 2, 2, None]))
    return transformers.MistralConfig(**of_llama(n), sliding_window=window)


def bloom(n: Sizes) -> Any:
    sizes = config_of(n, M="hidden_size", H="n_head", eps="layer_norm_epsilon")
    return transformers.BloomConfig(**sizes, n_layer=2, tie_word_embeddings=n.either, eos_token_id=END)


def of_translator(n: Sizes) -> dict[str, Any]:
    sizes = config_of(n, M="d_model", F="encoder_ffn_dim", activation="activation_function") | IDS
    return sizes | {
        "encoder_layers": 2, "decoder_layers": 1, "decoder_ffn_dim": n.F, "max_position_embeddings": PLACES,
        "encoder_attention_heads": n.H, "decoder_attention_heads": n.H, "scale_embedding": n.either,
        "tie_word_embeddings": n.either,
    }  # fmt: skip


def bart(n: Sizes) -> Any:
    return transformers.BartConfig(**of_translator(n))


def marian(n: Sizes) -> Any:
    one = n.either
    return transformers.MarianConfig(
        **of_translator(n), share_encoder_decoder_embeddings=one, decoder_vocab_size=n.V if one else n.V + 2
    )


MODELS: dict[str, tuple[Configure, Any, Any]] = {
    "gpt2": (gpt2, transformers.GPT2LMHeadModel, modeling_gpt2),
    "llama": (llama, transformers.LlamaForCausalLM, modeling_llama),
    "mistral": (mistral, transformers.MistralForCausalLM, modeling_mistral),
    "bloom": (bloom, transformers.BloomForCausalLM, modeling_bloom),
    "bart": (bart, transformers.BartForConditionalGeneration, modeling_bart),
    "marian": (marian, transformers.MarianMTModel, modeling_marian),
}
TRANSLATORS = ("bart", "marian")
AS_FLOAT32 = ("bloom",)  # it has sqrt(2 / pi) to eight digits only


@dataclass
class Pair:
    """A model of transformers, the one of impl/ with its weights, and what both read."""

    family: str
    theirs: Any
    ours: Any
    unit: str
    source: np.ndarray | None
    target: np.ndarray
    source_mask: np.ndarray | None
    target_mask: np.ndarray

    def check(self, logits: torch.Tensor) -> None:
        """The logits are those of the reference with the options and the flat names of the model of impl/."""
        options = {name: getattr(self.ours.config, name) for name in OPTIONS}
        masks = {"target_mask": self.target_mask} | ({} if self.source is None else {"source_mask": self.source_mask})
        p = {name: x.double().numpy() for name, x in self.ours.state_dict().items()}
        Case(logits, self.target_mask, self.source, self.target, p, options | masks, unit=self.unit).check()

    @property
    def their_logits(self) -> torch.Tensor:
        if self.source is None:
            places = self.family != "bloom"
            return self.theirs(**inputs(self.target, self.target_mask, places)).logits
        both = inputs(self.source, self.source_mask, places=False) | of_target_too(self.target, self.target_mask)
        return self.theirs(**both).logits

    @property
    def our_logits(self) -> torch.Tensor:
        target, mask = torch.tensor(self.target), torch.tensor(self.target_mask)
        if self.source is None:
            return self.ours.logits(target, mask)
        return self.ours.logits(torch.tensor(self.source), target, torch.tensor(self.source_mask), mask)

    def started(self) -> Any:
        if self.source is None:
            return self.ours.start(len(self.target))
        real = torch.tensor(self.source_mask)
        return self.ours.start(self.ours.encode(torch.tensor(self.source), real), real)


def in_unit(family: str, unit: str) -> AbstractContextManager[None]:
    """Some models cast to float32 whatever they are in: where they must not, they do not."""
    return double_precision(MODELS[family][2]) if unit == "float64" and family not in AS_FLOAT32 else nullcontext()


def pair(draw: Draw, family: str, unit: str = "float64", left: bool | None = None) -> Pair:
    """Drawn options, weights and words. Translators of transformers count padding on the left as positions: not theirs."""
    n = Sizes(draw)
    configure, kind, _ = MODELS[family]
    unit = "float32" if family in AS_FLOAT32 else unit
    n.eps = 0.3 if unit == "float32" and family not in AS_FLOAT32 else n.eps
    theirs = redrawn(kind(configure(n)).to(getattr(torch, unit)), n.rng)
    if unit == "float32" and family not in AS_FLOAT32:  # norms that keep the bounds sharp
        for entry in theirs.parameters():
            entry.data *= 0.25 if entry.ndim == 2 else 1.0
    if family == "marian":
        for side in (theirs.model.encoder, theirs.model.decoder):
            side.embed_positions.weight.copy_(side.embed_positions.create_weight())
    left = False if family in TRANSLATORS else n.either if left is None else left
    source = n.tokens(n.S) if family in TRANSLATORS else (None, None)
    target = n.tokens(n.T, left)
    ours = from_transformers(theirs.config, theirs.state_dict())
    return Pair(family, theirs, ours, unit, source[0], target[0], source[1], target[1])


@cache
def tiny(family: str) -> Pair:
    """The first model that is drawn."""
    found: list[Pair] = []
    always(st.data(), max_examples=1)(lambda data: found.append(pair(data.draw, family)))()
    return found[0]
