"""The encoder of a Transformer: in each layer the tokens first look at each other, then each is worked on alone."""

from typing import Unpack

import numpy as np

from attnspec.reference.layers import check_parts, layers
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.residual import NormOptions, normalise
from attnspec.reference.shapes import BoolArray, FloatArray, check_rank
from attnspec.reference.sublayers import feed_forward_sublayer, self_attention_sublayer
from attnspec.reference.token_position import MultiHeadOptions, real_tokens, self_attention_options
from attnspec.reference.transformer_options import StackOptions, split_options

SUBLAYERS = ("attention", "attention_norm", "feed_forward", "feed_forward_norm")


def encoder_layer(
    x: FloatArray, parameters: Parameters, attention: MultiHeadOptions, *, activation: str = "relu",
    **options: Unpack[NormOptions],
) -> FloatArray:  # fmt: skip
    """Passes tokens through self-attention and a feed-forward layer, each with a residual connection and a norm.

        out = feed_forward_sublayer(self_attention_sublayer(x))                          (1)

    Shapes:  x [B,T,M] -> [B,T,M]; parameters have the parts attention, attention_norm, feed_forward, feed_forward_norm.
    Units:   attention has the options of multi_head_attention; options are those of add_and_norm.
    Empty:   B and T may be zero.
    Errors:  ValueError if a part is missing or unknown; those of the sub-layers.
    Source:  arXiv:1706.03762 sec. 3.1, encoder.
    Differs: the paper has order="post" and activation="relu" only, and drops out entries in training.
    """
    check_parts(parameters, SUBLAYERS)
    y = self_attention_sublayer(x, parameters, attention, **options)
    return feed_forward_sublayer(y, parameters, activation, **options)


def encoder(
    x: FloatArray, parameters: Parameters, mask: BoolArray | None = None, **options: Unpack[StackOptions]
) -> FloatArray:
    """Passes embedded tokens through all layers of the encoder.

        x_0 = x,  x_{i+1} = encoder_layer_i(x_i),  out = norm(x_L)                       (1)

    Shapes:  x [B,S,M]  mask [B,S] -> [B,S,M]; parameters have the parts 0, 1 .. L-1, and norm if it ends in one.
    Units:   mask is True at real tokens; positions matter here if they are rotary or ALiBi, and window is two-sided.
    Empty:   no layers leave x as it is; real tokens do not see padding, and what comes out at padding means nothing.
    Errors:  those of layers, real_tokens, split_options and encoder_layer.
    Source:  arXiv:1706.03762 sec. 3.1, encoder; arXiv:2002.04745 table 1 for the norm after the last pre-norm layer.
    Differs: the first paper has neither padding nor a last norm.
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BSM")
    of_layer, of_attention = split_options(**options)
    attention = self_attention_options(real_tokens(mask, "mask", x.shape), x.shape[1], causal=False, **of_attention)
    for layer in layers(parameters, "norm"):
        x = encoder_layer(x, layer, attention, **of_layer)
    return normalise(x, part(parameters, "norm"), of_layer["norm"], of_layer["eps"])
