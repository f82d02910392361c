"""The decoder of a Transformer: its tokens see those before them, and all of the source if there is one."""

from typing import Unpack

import numpy as np

from attnspec.reference.encoder import SUBLAYERS, encoder_layer
from attnspec.reference.layers import check_parts, layers
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.residual import NormOptions, normalise
from attnspec.reference.shapes import BoolArray, FloatArray, check_rank
from attnspec.reference.sublayers import cross_attention_sublayer, feed_forward_sublayer, self_attention_sublayer
from attnspec.reference.token_position import (
    MultiHeadOptions,
    cross_attention_options,
    real_tokens,
    self_attention_options,
)
from attnspec.reference.transformer_options import StackOptions, split_options

CROSS = ("cross", "cross_norm")


def decoder_layer(
    x: FloatArray, memory: FloatArray | None, parameters: Parameters, attention: MultiHeadOptions,
    cross: MultiHeadOptions | None = None, *, activation: str = "relu", **options: Unpack[NormOptions],
) -> FloatArray:  # fmt: skip
    """Passes tokens through self-attention, attention to the memory if there is one, and a feed-forward layer.

        out = feed_forward_sublayer(cross_attention_sublayer(self_attention_sublayer(x), memory))     (1)
        out = encoder_layer(x) without a memory: only the mask in attention tells the two apart       (2)

    Shapes:  x [B,T,M]  memory [B,S,M'] -> [B,T,M]; parameters have the parts of an encoder layer, and with a memory
             cross and cross_norm.
    Units:   attention and cross have the options of multi_head_attention, the causal mask among those of attention;
             cross is given where memory is. options are those of add_and_norm.
    Empty:   a memory of no visible token adds the bias of cross.o, or nothing without one.
    Errors:  those of encoder_layer and of the sub-layers.
    Source:  arXiv:1706.03762 sec. 3.1, decoder; without a memory arXiv:1801.10198 sec. 4.2.3.
    Differs: as in encoder_layer.
    """
    if memory is None or cross is None:
        return encoder_layer(x, parameters, attention, activation=activation, **options)
    check_parts(parameters, (*SUBLAYERS, *CROSS))
    y = self_attention_sublayer(x, parameters, attention, **options)
    z = cross_attention_sublayer(y, memory, parameters, cross, **options)
    return feed_forward_sublayer(z, parameters, activation, **options)


def decoder(
    x: FloatArray, memory: FloatArray | None, parameters: Parameters, mask: BoolArray | None = None,
    memory_mask: BoolArray | None = None, **options: Unpack[StackOptions],
) -> FloatArray:  # fmt: skip
    """Passes embedded tokens through all layers of the decoder, each with the same memory.

        x_0 = x,  x_{i+1} = decoder_layer_i(x_i, memory),  out = norm(x_L)               (1)

    Shapes:  x [B,T,M]  memory [B,S,M']  mask [B,T]  memory_mask [B,S] -> [B,T,M]; parameters as in encoder.
    Units:   masks are True at real tokens; positions as in encoder, and window looks back.
    Empty:   as in encoder; a decoder without a memory is a language model.
    Errors:  those of layers, real_tokens, split_options and decoder_layer.
    Source:  arXiv:1706.03762 sec. 3.1, decoder; arXiv:2002.04745 table 1 for the norm after the last pre-norm layer.
    Differs: the first paper has neither padding nor a last norm.
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    of_layer, of_attention = split_options(**options)
    attention = self_attention_options(real_tokens(mask, "mask", x.shape), x.shape[1], causal=True, **of_attention)
    cross = None
    if memory is not None:
        cross = cross_attention_options(attention, real_tokens(memory_mask, "memory_mask", np.shape(memory)))
    for layer in layers(parameters, "norm"):
        x = decoder_layer(x, memory, layer, attention, cross, **of_layer)
    return normalise(x, part(parameters, "norm"), of_layer["norm"], of_layer["eps"])
