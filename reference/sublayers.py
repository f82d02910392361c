"""The three sub-layers of a Transformer, each with its residual connection and norm, under its name in a layer."""

from typing import Unpack

from attnspec.reference.feed_forward import feed_forward
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.residual import NormOptions, add_and_norm
from attnspec.reference.shapes import FloatArray
from attnspec.reference.token_position import MultiHeadOptions


def self_attention_sublayer(
    x: FloatArray, parameters: Parameters, attention: MultiHeadOptions, **options: Unpack[NormOptions]
) -> FloatArray:
    """Lets the tokens of a sequence look at each other.

        out = add_and_norm(x, f),  f(y) = multi_head_attention(y, y)                     (1)

    Shapes:  x [B,T,M] -> [B,T,M]; parameters are those of the layer, of which attention and attention_norm are read.
    Units:   attention has the options of multi_head_attention, a causal mask in a decoder; options are those of
             add_and_norm.
    Empty:   B and T may be zero.
    Errors:  those of add_and_norm and multi_head_attention.
    Source:  arXiv:1706.03762 sec. 3.1.
    Differs: as in add_and_norm.
    """
    p, norm = part(parameters, "attention"), part(parameters, "attention_norm")
    return add_and_norm(x, lambda y: multi_head_attention(y, y, p, **attention), norm, **options)


def cross_attention_sublayer(
    x: FloatArray, memory: FloatArray, parameters: Parameters, cross: MultiHeadOptions, **options: Unpack[NormOptions]
) -> FloatArray:
    """Lets the tokens of one sequence look at those of another.

        out = add_and_norm(x, f),  f(y) = multi_head_attention(y, memory)                (1)

    Shapes:  x [B,T,M]  memory [B,S,M'] -> [B,T,M]; parameters are those of the layer, of which cross and cross_norm are
             read.
    Units:   as in self_attention_sublayer; the memory is not normalised here.
    Empty:   a memory without a visible token adds the bias of cross.o, or nothing without one.
    Errors:  those of add_and_norm and multi_head_attention.
    Source:  arXiv:1706.03762 sec. 3.1 and 3.2.3.
    Differs: as in add_and_norm.
    """
    p, norm = part(parameters, "cross"), part(parameters, "cross_norm")
    return add_and_norm(x, lambda y: multi_head_attention(y, memory, p, **cross), norm, **options)


def feed_forward_sublayer(
    x: FloatArray, parameters: Parameters, activation: str = "relu", **options: Unpack[NormOptions]
) -> FloatArray:
    """Works on each token alone.

        out = add_and_norm(x, f),  f(y) = feed_forward(y)                                (1)

    Shapes:  x [B,T,M] -> [B,T,M]; parameters are those of the layer, of which feed_forward and feed_forward_norm are read.
    Units:   activation is that of feed_forward; options are those of add_and_norm.
    Empty:   B and T may be zero.
    Errors:  those of add_and_norm and feed_forward.
    Source:  arXiv:1706.03762 sec. 3.1 and 3.3.
    Differs: as in add_and_norm.
    """
    p, norm = part(parameters, "feed_forward"), part(parameters, "feed_forward_norm")
    return add_and_norm(x, lambda y: feed_forward(y, p, activation), norm, **options)
