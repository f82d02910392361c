"""The gradients of the encoder, one layer after the other from the last to the first."""

from typing import Unpack

import numpy as np

from attnspec.reference.encoder import encoder_layer
from attnspec.reference.layers import layers
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.residual import NormOptions, normalise_backward
from attnspec.reference.shapes import BoolArray, FloatArray
from attnspec.reference.sublayers import self_attention_sublayer
from attnspec.reference.sublayers_backward import feed_forward_sublayer_backward, self_attention_sublayer_backward
from attnspec.reference.token_position import MultiHeadOptions, real_tokens, self_attention_options
from attnspec.reference.transformer_options import StackOptions, split_options


def encoder_layer_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, attention: MultiHeadOptions, *,
    activation: str = "relu", **options: Unpack[NormOptions],
) -> tuple[FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of a layer's output back to its input and parameters.

        dy = feed_forward_sublayer'(y)·cotangent,  y = self_attention_sublayer(x)        (1)
        dx = self_attention_sublayer'(x)·dy                                              (2)

    Shapes:  x, cotangent [B,T,M] -> dx as x, and the gradients under the parameters' names and shapes.
    Units:   those of the cotangent times those of the other factor; f'(x)·c is the cotangent c of f(x), pulled back to x.
    Empty:   as in encoder_layer.
    Errors:  those of the sub-layers.
    Source:  the chain rule on (1) of encoder_layer.
    Differs: n/a.
    """
    y = self_attention_sublayer(x, parameters, attention, **options)
    dy, of_feed = feed_forward_sublayer_backward(y, parameters, cotangent, activation, **options)
    dx, of_attention = self_attention_sublayer_backward(x, parameters, dy, attention, **options)
    return dx, {**of_attention, **of_feed}


def encoder_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, mask: BoolArray | None = None,
    **options: Unpack[StackOptions],
) -> tuple[FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the encoder's output back to its input and parameters.

        dx_L = norm'(x_L)·cotangent,  dx_i = encoder_layer_i'(x_i)·dx_{i+1},  dx = dx_0  (1)

    Shapes:  x, cotangent [B,S,M]  mask [B,S] -> dx as x, and the gradients under the parameters' names and shapes.
    Units:   as in encoder_layer_backward.
    Empty:   where the cotangent is zero at padding, so is dx.
    Errors:  those of encoder; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1) of encoder.
    Differs: n/a.
    """
    of_layer, of_attention = split_options(**options)
    attention = self_attention_options(real_tokens(mask, "mask", np.shape(x)), np.shape(x)[1], causal=False, **of_attention)
    inputs, stack = [np.asarray(x, dtype=np.float64)], layers(parameters, "norm")
    for layer in stack:
        inputs = [*inputs, encoder_layer(inputs[-1], layer, attention, **of_layer)]
    dx, of_norm = normalise_backward(inputs[-1], part(parameters, "norm"), cotangent, of_layer["norm"], of_layer["eps"])
    gradients = prefixed("norm", of_norm)
    for i in reversed(range(len(stack))):
        dx, of_this = encoder_layer_backward(inputs[i], stack[i], dx, attention, **of_layer)
        gradients |= prefixed(str(i), of_this)
    return dx, gradients
