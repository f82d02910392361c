"""The gradients of the decoder, which go to the tokens, the parameters and, from every layer, to the memory."""

from typing import Unpack

import numpy as np

from attnspec.reference.decoder import decoder_layer
from attnspec.reference.encoder_backward import encoder_layer_backward
from attnspec.reference.layers import layers
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.residual import NormOptions, normalise_backward
from attnspec.reference.shapes import BoolArray, FloatArray
from attnspec.reference.sublayers import cross_attention_sublayer, self_attention_sublayer
from attnspec.reference.sublayers_backward import (
    cross_attention_sublayer_backward,
    feed_forward_sublayer_backward,
    self_attention_sublayer_backward,
)
from attnspec.reference.token_position import (
    MultiHeadOptions,
    cross_attention_options,
    real_tokens,
    self_attention_options,
)
from attnspec.reference.transformer_options import StackOptions, split_options


def decoder_layer_backward(
    x: FloatArray, memory: FloatArray | None, parameters: Parameters, cotangent: FloatArray, attention: MultiHeadOptions,
    cross: MultiHeadOptions | None = None, *, activation: str = "relu", **options: Unpack[NormOptions],
) -> tuple[FloatArray, FloatArray | None, Gradients]:  # fmt: skip
    """Pulls a cotangent of a layer's output back to its input, the memory and the parameters.

        dz = feed_forward_sublayer'(z)·cotangent,  (dy, dmemory) = cross_attention_sublayer'(y, memory)·dz     (1)
        dx = self_attention_sublayer'(x)·dy                                              (2)

    Shapes:  x, cotangent [B,T,M]  memory [B,S,M'] -> dx, dmemory (None without a memory), and the gradients under the
             parameters' names and shapes.
    Units:   as in encoder_layer_backward.
    Empty:   as in decoder_layer.
    Errors:  those of the sub-layers.
    Source:  the chain rule on (1) of decoder_layer.
    Differs: n/a.
    """
    if memory is None or cross is None:
        dx, gradients = encoder_layer_backward(x, parameters, cotangent, attention, activation=activation, **options)
        return dx, None, gradients
    y = self_attention_sublayer(x, parameters, attention, **options)
    z = cross_attention_sublayer(y, memory, parameters, cross, **options)
    dz, of_feed = feed_forward_sublayer_backward(z, parameters, cotangent, activation, **options)
    dy, dmemory, of_cross = cross_attention_sublayer_backward(y, memory, parameters, dz, cross, **options)
    dx, of_attention = self_attention_sublayer_backward(x, parameters, dy, attention, **options)
    return dx, dmemory, {**of_attention, **of_cross, **of_feed}


def decoder_backward(
    x: FloatArray, memory: FloatArray | None, parameters: Parameters, cotangent: FloatArray,
    mask: BoolArray | None = None, memory_mask: BoolArray | None = None, **options: Unpack[StackOptions],
) -> tuple[FloatArray, FloatArray | None, Gradients]:  # fmt: skip
    """Pulls a cotangent of the decoder's output back to its input, the memory and the parameters.

        dx_L = norm'(x_L)·cotangent,  (dx_i, dmemory_i) = decoder_layer_i'(x_i, memory)·dx_{i+1}     (1)
        dx = dx_0,  dmemory = sum_i dmemory_i                                            (2)

    Shapes:  x, cotangent [B,T,M]  memory [B,S,M']  masks as in decoder -> dx, dmemory (None without a memory), and the
             gradients under the parameters' names and shapes.
    Units:   as in encoder_layer_backward.
    Empty:   without layers dmemory is zero.
    Errors:  those of decoder; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1) of decoder.
    Differs: n/a.
    """
    of_layer, of_attention = split_options(**options)
    attention = self_attention_options(real_tokens(mask, "mask", np.shape(x)), np.shape(x)[1], causal=True, **of_attention)
    cross = None
    if memory is not None:
        cross = cross_attention_options(attention, real_tokens(memory_mask, "memory_mask", np.shape(memory)))
    inputs, stack = [np.asarray(x, dtype=np.float64)], layers(parameters, "norm")
    for layer in stack:
        inputs = [*inputs, decoder_layer(inputs[-1], memory, layer, attention, cross, **of_layer)]
    dx, of_norm = normalise_backward(inputs[-1], part(parameters, "norm"), cotangent, of_layer["norm"], of_layer["eps"])
    gradients = prefixed("norm", of_norm)
    dmemory = None if memory is None else np.zeros(np.shape(memory))
    for i in reversed(range(len(stack))):
        dx, of_memory, of_this = decoder_layer_backward(inputs[i], memory, stack[i], dx, attention, cross, **of_layer)
        dmemory = dmemory if dmemory is None or of_memory is None else dmemory + of_memory
        gradients |= prefixed(str(i), of_this)
    return dx, dmemory, gradients
