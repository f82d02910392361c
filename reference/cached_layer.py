"""One layer of a decoder that keeps the keys and values of past tokens instead of computing them again."""

from typing import TypeAlias

import numpy as np

from attnspec.reference.attention import attention
from attnspec.reference.decoder import CROSS
from attnspec.reference.encoder import SUBLAYERS
from attnspec.reference.layers import check_parts
from attnspec.reference.linear import linear
from attnspec.reference.multi_head import BIASES, WEIGHTS, merge_heads, project_heads
from attnspec.reference.parameters import Parameters, check_names, part
from attnspec.reference.residual import Norm, NormOptions, Order, add_and_norm, normalise
from attnspec.reference.shapes import FloatArray, ShapeError
from attnspec.reference.sublayers import feed_forward_sublayer
from attnspec.reference.token_position import MultiHeadOptions

KeysValues: TypeAlias = tuple[FloatArray, FloatArray]


def keys_values(memory: FloatArray, parameters: Parameters, how: MultiHeadOptions) -> KeysValues:
    """Projects tokens to what later ones will look at.

        k = rotate(split(memory Wk^T + bk)),  v = split(memory Wv^T + bv)                (1)

    Shapes:  memory [B,S,M]; parameters are those of multi_head_attention -> k [B,G,S,D], v [B,G,S,E].
    Units:   how has the options of multi_head_attention, of which heads, kv_heads and rotary are read.
    Empty:   B and S may be zero.
    Errors:  ValueError if a weight is missing or a name is unknown; those of project_heads.
    Source:  arXiv:1911.02150 sec. 2.4, incremental attention.
    Differs: n/a.
    """
    check_names(parameters, WEIGHTS, BIASES)
    G = how["heads"] if how["kv_heads"] is None else how["kv_heads"]
    k = project_heads(memory, parameters, "k", G, how["rotary"])
    return k, project_heads(memory, parameters, "v", G)


def look_up(x: FloatArray, found: KeysValues, parameters: Parameters, how: MultiHeadOptions) -> FloatArray:
    """Attends to keys and values that are there already.

        out = merge(attention(rotate(split(x Wq^T + bq)), k, v)) Wo^T + bo               (1)

    Shapes:  x [B,T,M]  found = k [B,G,S,D], v [B,G,S,E] -> [B,T,M].
    Units:   how has the options of multi_head_attention.
    Empty:   as in multi_head_attention, which this is if found = keys_values(memory).
    Errors:  those of project_heads and attention.
    Source:  arXiv:1911.02150 sec. 2.4, incremental attention.
    Differs: n/a.
    """
    q = project_heads(x, parameters, "q", how["heads"], how["rotary"])
    a = attention(q, *found, mask=how["mask"], bias=how["bias"], scale=how["scale"], softcap=how["softcap"])
    return linear(merge_heads(a), part(parameters, "o"))


def cached_layer(
    x: FloatArray, past: KeysValues, memory: KeysValues | None, parameters: Parameters, how: MultiHeadOptions,
    cross: MultiHeadOptions, *, order: Order = "post", norm: Norm = "layer", eps: float = 1e-5, activation: str = "relu",
) -> tuple[FloatArray, KeysValues]:  # fmt: skip
    """Passes new tokens through a decoder layer, given the keys and values of the past ones and of the memory.

        found = past and keys_values(y), joined,  y what self-attention sees of x        (1)
        out = decoder_layer(x, memory) with look_up of found and of memory for its attentions     (2)

    Shapes:  x [B,T,M], the new tokens  past k [B,G,S-T,D], v [B,G,S-T,E]  memory k, v or None -> out [B,T,M] and found:
             k [B,G,S,D], v [B,G,S,E].
    Units:   how and cross have the options of multi_head_attention, with a mask [B,1,T,S] in how.
    Empty:   with an empty past this is decoder_layer.
    Errors:  those of keys_values, look_up, add_and_norm and feed_forward_sublayer; ValueError as in
             check_parts; ShapeError if the past has another B, G, D or E.
    Source:  arXiv:1911.02150 sec. 2.4, incremental attention.
    Differs: n/a. Nothing is written to the past: found has new arrays.
    """
    check_parts(parameters, SUBLAYERS if memory is None else (*SUBLAYERS, *CROSS))
    p, of_norm = part(parameters, "attention"), part(parameters, "attention_norm")
    y = x if order == "post" else normalise(x, of_norm, norm, eps)
    k, v = keys_values(y, p, how)
    found = _joined(past[0], k), _joined(past[1], v)
    options: NormOptions = {"order": order, "norm": norm, "eps": eps}
    x = add_and_norm(x, lambda z: look_up(z, found, p, how), of_norm, **options)
    if memory is not None:
        q = part(parameters, "cross")
        x = add_and_norm(x, lambda z: look_up(z, memory, q, cross), part(parameters, "cross_norm"), **options)
    return feed_forward_sublayer(x, parameters, activation, **options), found


def _joined(past: FloatArray, new: FloatArray) -> FloatArray:
    """Keys or values of past and new tokens, [B,G,S,D]."""
    if (*past.shape[:2], *past.shape[3:]) != (*new.shape[:2], new.shape[3]):
        rule = f"the past has B, G and D of the new tokens {new.shape}"
        raise ShapeError(f"past.shape={past.shape}: {rule}; start the cache with the same batch, weights and options")
    return np.concatenate([past, new], axis=2)
