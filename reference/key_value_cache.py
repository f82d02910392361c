"""Decoding step by step with a key/value cache: a step computes what is new, and gives the logits of the whole forward."""

from typing import TypedDict, Unpack

import numpy as np

from attnspec.reference.cached_layer import KeysValues, cached_layer, keys_values
from attnspec.reference.dtypes import check_indices
from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.layers import check_parts, layers
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.residual import normalise
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, check_rank, check_size
from attnspec.reference.tied_weights import tied_part
from attnspec.reference.token_position import (
    cross_attention_options,
    real_tokens,
    self_attention_options,
    token_positions,
)
from attnspec.reference.transformer import score_words
from attnspec.reference.transformer_options import TransformerOptions, split_embedding_options, split_options


class Cache(TypedDict):
    """What a decoder remembers: which tokens are real, and keys and values by layer; of its past, and of the memory."""

    real: BoolArray
    past: list[KeysValues]
    memory_real: BoolArray
    memory: list[KeysValues]


def empty_cache(
    B: int, memory: FloatArray | None, parameters: Parameters, memory_mask: BoolArray | None = None,
    **options: Unpack[TransformerOptions],
) -> Cache:  # fmt: skip
    """Starts a cache without a past, with the keys and values of the memory, computed once.

        past_i = keys_values of no tokens,  memory_i = keys_values(memory),  i = 0..L-1  (1)

    Shapes:  memory [B,S,M], or None without a source  memory_mask [B,S]; parameters are those of transformer.
    Units:   memory_mask is True at real tokens.
    Empty:   B may be zero.
    Errors:  those of layers, embed_tokens, real_tokens and keys_values.
    Source:  arXiv:1911.02150 sec. 2.4, incremental attention.
    Differs: n/a.
    """
    of_embedding, of_stack = split_embedding_options(**options)
    _, of_attention = split_options(**of_stack)
    real, stack = np.ones((B, 0), dtype=np.bool_), layers(part(parameters, "decoder"), "norm")
    none = np.zeros((B, 0), dtype=np.int64)
    x = embed_tokens(none, none, tied_part(parameters, "target", "embedding.weight"), **of_embedding)
    how = self_attention_options(real, 0, causal=True, **of_attention)
    cross = cross_attention_options(how, real)
    past = [keys_values(x, part(layer, "attention"), how) for layer in stack]
    if memory is None:
        return {"real": real, "past": past, "memory_real": real, "memory": []}
    memory_real = real_tokens(memory_mask, "memory_mask", np.shape(memory))
    of_memory = [keys_values(memory, part(layer, "cross"), cross) for layer in stack]
    return {"real": real, "past": past, "memory_real": memory_real, "memory": of_memory}


def extend(
    tokens: IntArray, cache: Cache, parameters: Parameters, mask: BoolArray | None = None,
    **options: Unpack[TransformerOptions],
) -> tuple[FloatArray, Cache]:  # fmt: skip
    """Reads any number of further tokens: a prompt, one word, or a chunk.

        logits = the last T of transformer(source, past tokens and tokens)               (1)

    Shapes:  tokens, mask [B,T] -> logits [B,T,V], and a cache whose past is longer by T.
    Units:   as in transformer; options are the ones that the cache was started with.
    Empty:   no tokens give no logits.
    Errors:  those of decode; ShapeError if B differs from the cache's; ValueError if a part is unknown.
    Source:  arXiv:1911.02150 sec. 2.4, incremental attention.
    Differs: n/a. The cache passed in is left as it is: steps from it can be taken again, or in another way.
    """
    check_rank("tokens", np.asarray(tokens), "BT")
    check_parts(parameters, (), ("source", "encoder", "target", "decoder", "output"))
    (B, T), real = np.shape(tokens), cache["real"]
    check_size("B", "tokens", B, "the cache", real.shape[0])
    real = np.concatenate([real, real_tokens(mask, "mask", (B, T))], axis=1)
    of_embedding, of_stack = split_embedding_options(**options)
    of_layer, of_attention = split_options(**of_stack)
    how = self_attention_options(real, T, causal=True, **of_attention)
    cross = cross_attention_options(how, cache["memory_real"])
    places = token_positions(real)[:, real.shape[1] - T :]
    x = embed_tokens(tokens, places, tied_part(parameters, "target", "embedding.weight"), **of_embedding)
    past: list[KeysValues] = []
    for i, layer in enumerate(layers(part(parameters, "decoder"), "norm")):
        memory = cache["memory"][i] if cache["memory"] else None
        x, found = cached_layer(x, cache["past"][i], memory, layer, how, cross, **of_layer)
        past = [*past, found]
    x = normalise(x, part(parameters, "decoder.norm"), of_layer["norm"], of_layer["eps"])
    return score_words(x, parameters), {**cache, "real": real, "past": past}


def reorder(cache: Cache, index: IntArray) -> Cache:
    """Takes other rows of the batch, as a beam search does when it drops some hypotheses and doubles others.

        reordered[b] = cache[index[b]]                                                   (1)

    Shapes:  index [B'] -> a cache of B' rows.
    Units:   index counts rows from 0.
    Empty:   an empty index leaves no row.
    Errors:  ValueError if a row does not exist; TypeError if index does not hold integers.
    Source:  arXiv:1609.08144 sec. 7, beam search.
    Differs: n/a.
    """
    index = check_indices("index", index, "rows", "B", cache["real"].shape[0], "pass rows of the cache")
    real, memory_real = np.take(cache["real"], index, axis=0), np.take(cache["memory_real"], index, axis=0)
    past, memory = _rows(cache["past"], index), _rows(cache["memory"], index)
    return {"real": real, "past": past, "memory_real": memory_real, "memory": memory}


def _rows(layers: list[KeysValues], index: IntArray) -> list[KeysValues]:
    return [(np.take(k, index, axis=0), np.take(v, index, axis=0)) for k, v in layers]
