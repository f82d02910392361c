"""The encoder-decoders of transformers: T5, BART and Marian, and all gradients through Marian; see hugging_face.py.

T5's biases for distances are no option of the reference: its model is put together from the layers of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.marian import modeling_marian
from transformers.models.t5 import modeling_t5

from attnspec.reference.decoder import decoder, decoder_layer
from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.embedding import embedding
from attnspec.reference.encoder import encoder, encoder_layer
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import empty_cache, extend
from attnspec.reference.layers import layers
from attnspec.reference.mask import causal_mask
from attnspec.reference.parameters import part
from attnspec.reference.residual import normalise
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.transformer import encode, score_words, transformer
from attnspec.reference.transformer_backward import transformer_backward
from tests.authorities import hugging_face_weights as weights
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.hugging_face import (
    ACTIVATIONS,
    END,
    PLACES,
    Case,
    Sizes,
    check_steps,
    config_of,
    in_one_row,
    inputs,
    loss_and_gradients_in_one_row,
)
from tests.authorities.hugging_face_weights import double_precision, gradient, redrawn, translated

START = 1
IDS = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": 0, "decoder_start_token_id": START}


def of_target_too(target: np.ndarray, real: np.ndarray) -> dict[str, torch.Tensor]:
    return {"decoder_input_ids": torch.tensor(target), "decoder_attention_mask": torch.tensor(real).long()}


def t5_logits(
    source: Any, target: Any, p: Any, *, source_mask: Any, target_mask: Any, buckets: dict[str, Any],
    attention: dict[str, Any], factor: float, **how: Any,
) -> Any:  # fmt: skip
    """The layers of the reference with the bias of each distance, which all layers of a side share."""

    def stack(side: str, ids: Any, memory: Any, mask: Any) -> Any:
        of_side = part(p, side)
        bias = np.transpose(np.take(of_side["relative.weight"], buckets[side], axis=0), (2, 0, 1))
        own, cross = {**attention, "mask": mask, "bias": bias}, {**attention, "mask": source_mask[:, None, None]}
        x = embedding(ids, part(p, "source.embedding"))
        for layer in layers(of_side, "norm", "relative"):
            x = decoder_layer(x, memory, layer, own, cross, **how)
        return normalise(x, part(of_side, "norm"), how["norm"], how["eps"])

    memory = stack("encoder", source, None, source_mask[:, None, None])
    T = target.shape[1]
    return score_words(stack("decoder", target, memory, target_mask[:, None, None] & causal_mask(T, T)) * factor, p)


def t5_case(draw: Draw) -> Case:
    n = Sizes(draw)
    gated, scaled, D, number, far = n.either, n.either, 3, draw(st.sampled_from([4, 6, 8])), draw(st.sampled_from([5, 6]))
    n.M = 16 if scaled else n.M  # the factor M^(-1/2) is exact then
    of_config = config_of(n, M="d_model", F="d_ff", H="num_heads", eps="layer_norm_epsilon")
    config = T5Config(
        **of_config, d_kv=D, num_layers=2, num_decoder_layers=1, tie_word_embeddings=scaled, pad_token_id=0,
        feed_forward_proj=("gated-" if gated else "") + n.activation, decoder_start_token_id=0, eos_token_id=1,
        relative_attention_num_buckets=number, relative_attention_max_distance=far,
    )  # fmt: skip
    (source, real), (target, of_target) = n.tokens(n.S, left=n.either), n.tokens(n.T, left=n.either)
    with double_precision(modeling_t5):
        model = redrawn(T5ForConditionalGeneration(config).double(), n.rng)
        logits = model(**inputs(source, real, places=False), **of_target_too(target, of_target)).logits
    bucket = modeling_t5.T5Attention._relative_position_bucket  # which distances share a bias is theirs to say
    distance = {side: torch.arange(size) - torch.arange(size)[:, None] for side, size in (("en", n.S), ("de", n.T))}
    buckets = {f"{side}coder": bucket(d, side == "en", number, far).numpy() for side, d in distance.items()}
    options = {"source_mask": real, "target_mask": of_target, "buckets": buckets, "factor": n.M**-0.5 if scaled else 1.0}
    options |= {"attention": {"heads": n.H, "scale": 1.0}, "order": "pre", "norm": "rms", "eps": n.eps}
    options["activation"] = ACTIVATIONS[config.dense_act_fn]  # "gated-gelu" is gelu_new
    return Case(logits, of_target, source, target, translated(model, weights.T5), options, t5_logits)


@authority("I28", "transformers T5ForConditionalGeneration", of=(decoder_layer, encoder_layer, score_words), examples=8)
def t5(draw: Draw) -> None:
    """Pre-norm with RMS norms, no scale, biases by distance in all heads, gated or not, both sides padded on either side."""
    t5_case(draw).check()


def translator(
    n: Sizes, kind: str, encoder_layers: int = 2
) -> tuple[Any, Callable[..., dict[str, np.ndarray]], dict[str, Any]]:
    """BART or Marian; how to take its weights or their gradients; the options of the reference."""
    options: dict[str, Any] = {"heads": n.H, "scale_embeddings": n.either, "activation": ACTIVATIONS[n.activation]}
    of_config = config_of(n, M="d_model", F="encoder_ffn_dim", activation="activation_function") | IDS
    of_config |= {
        "encoder_layers": encoder_layers,
        "decoder_layers": 1,
        "decoder_ffn_dim": n.F + 2,
        "max_position_embeddings": PLACES,
    }
    of_config |= {"encoder_attention_heads": n.H, "decoder_attention_heads": n.H}
    of_config["scale_embedding"] = options["scale_embeddings"]
    if kind == "bart":
        model = redrawn(BartForConditionalGeneration(BartConfig(**of_config)).double(), n.rng)
        return model, lambda *take: translated(model, weights.BART, *take), options | {"positions": "learned"}
    shared = n.either
    more = {"share_encoder_decoder_embeddings": shared, "decoder_vocab_size": n.V if shared else n.V + 2}
    model = redrawn(MarianMTModel(MarianConfig(**of_config, **more)).double(), n.rng)
    with double_precision(modeling_marian):
        for side in (model.model.encoder, model.model.decoder):
            side.embed_positions.weight.copy_(side.embed_positions.create_weight())
    order = np.arange(n.M).reshape(2, -1).T.ravel()  # Marian has all sines before all cosines
    return model, lambda *take: weights.with_channels(translated(model, weights.MARIAN, *take), order), options


def translator_case(draw: Draw, kind: str) -> Case:
    """Padding on the right only: on the left it moves the positions of transformers' translators."""
    n = Sizes(draw)
    model, take, options = translator(n, kind)
    (source, real), (target, of_target) = n.tokens(n.S), n.tokens(n.T)
    logits = model(**inputs(source, real, places=False), **of_target_too(target, of_target)).logits
    return Case(logits, of_target, source, target, take(), options | {"source_mask": real, "target_mask": of_target})


@authority("I28", "transformers BartForConditionalGeneration", of=(transformer, encoder, decoder, embed_tokens), examples=8)
def bart(draw: Draw) -> None:
    """Post-norm, learned positions, norms on the embeddings, a bias on the logits, both sides padded on the right: logits."""
    translator_case(draw, "bart").check()


@authority("I28", "transformers MarianMTModel", of=(transformer, encoder, decoder, embed_tokens), examples=8)
def marian(draw: Draw) -> None:
    """Post-norm, sinusoids, one table for both languages or two, both sides padded on the right: logits."""
    translator_case(draw, "marian").check()


@authority("I28", "torch.autograd through MarianMTModel", of=(transformer_backward, loss_and_gradients), examples=8)
def marian_gradients(draw: Draw) -> None:
    """The loss of a padded batch as transformers has it, and its gradient for every parameter."""
    n = Sizes(draw, widths=((8, 2), (8, 4)), lengths=(2, 3, 4))
    model, take, options = translator(n, "marian", encoder_layers=1)
    (source, real), (target, of_target), words = n.tokens(n.S), n.tokens(n.T), n.tokens(n.T)[0]
    words, p = np.where(of_target, words, -100), take()
    model.final_logits_bias.requires_grad_()
    both = inputs(source, real, places=False) | of_target_too(target, of_target)
    loss = model(**both, labels=torch.tensor(words)).loss
    loss.backward()
    options |= {"source_mask": real, "target_mask": of_target, "padding_id": -100}
    got = in_one_row(loss, take(gradient))
    agrees(got, loss_and_gradients_in_one_row, source, target, words, p, **options)


@authority("I26", "transformers generate, greedy, on MarianMTModel", of=(extend, empty_cache, greedy_search), examples=8)
def marian_generates(draw: Draw) -> None:
    """Translations of padded sources, chosen with caches of the words so far and of the source; the logits of these steps."""
    n, limit = Sizes(draw), 4
    model, take, options = translator(n, "marian")
    source, real = n.tokens(n.S)
    how = {"max_new_tokens": limit, "do_sample": False, "num_beams": 1, "pad_token_id": END, "forced_eos_token_id": None}
    out = model.generate(**inputs(source, real, places=False), **how)
    logits = model(**inputs(source, real, places=False), decoder_input_ids=out[:, :-1]).logits

    def cache_of(p: Any) -> Any:
        return empty_cache(n.B, encode(source, p, real, **options), p, real, **options)

    check_steps(out[:, 1:].numpy(), logits, np.full(n.B, START), limit, cache_of, take(), options)
