"""The gradients of the three sub-layers of a Transformer, each with its residual connection and norm."""

from typing import Unpack

from attnspec.reference.feed_forward import feed_forward
from attnspec.reference.feed_forward_backward import feed_forward_backward
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.multi_head_backward import multi_head_backward
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.residual import NormOptions, add_and_norm_backward
from attnspec.reference.shapes import FloatArray
from attnspec.reference.token_position import MultiHeadOptions


def self_attention_sublayer_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, attention: MultiHeadOptions,
    **options: Unpack[NormOptions],
) -> tuple[FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the output back to the tokens, which are queries and memory at once, and the parameters.

        f'(y)·d = dy + dmemory of multi_head_backward(y, y, d), within add_and_norm_backward     (1)

    Shapes:  x, cotangent [B,T,M] -> dx as x, the gradients of attention.* and attention_norm.*.
    Units:   those of the cotangent times those of the other factor.
    Empty:   as in self_attention_sublayer.
    Errors:  those of add_and_norm_backward and multi_head_backward.
    Source:  the chain rule on (1) of self_attention_sublayer.
    Differs: n/a.
    """
    p, norm = part(parameters, "attention"), part(parameters, "attention_norm")

    def _attend_backward(y: FloatArray, d: FloatArray) -> tuple[FloatArray, Gradients]:
        dy, dmemory, gradients = multi_head_backward(y, y, p, d, **attention)
        return dy + dmemory, gradients

    dx, of_norm, of_attention = add_and_norm_backward(
        x, lambda y: multi_head_attention(y, y, p, **attention), _attend_backward, norm, cotangent, **options
    )
    return dx, {**prefixed("attention", of_attention), **prefixed("attention_norm", of_norm)}


def cross_attention_sublayer_backward(
    x: FloatArray, memory: FloatArray, parameters: Parameters, cotangent: FloatArray, cross: MultiHeadOptions,
    **options: Unpack[NormOptions],
) -> tuple[FloatArray, FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the output back to both sequences and the parameters.

        multi_head_backward(y, memory, d) within add_and_norm_backward                   (1)

    Shapes:  x, cotangent [B,T,M]  memory [B,S,M'] -> dx, dmemory, the gradients of cross.* and cross_norm.*.
    Units:   those of the cotangent times those of the other factor.
    Empty:   a hidden token of the memory has a gradient of exact zeros.
    Errors:  those of add_and_norm_backward and multi_head_backward.
    Source:  the chain rule on (1) of cross_attention_sublayer.
    Differs: n/a.
    """
    p, norm = part(parameters, "cross"), part(parameters, "cross_norm")

    def _look_up_backward(y: FloatArray, d: FloatArray) -> tuple[FloatArray, tuple[FloatArray, Gradients]]:
        dy, dmemory, gradients = multi_head_backward(y, memory, p, d, **cross)
        return dy, (dmemory, gradients)

    dx, of_norm, (dmemory, of_cross) = add_and_norm_backward(
        x, lambda y: multi_head_attention(y, memory, p, **cross), _look_up_backward, norm, cotangent, **options
    )
    return dx, dmemory, {**prefixed("cross", of_cross), **prefixed("cross_norm", of_norm)}


def feed_forward_sublayer_backward(
    x: FloatArray, parameters: Parameters, cotangent: FloatArray, activation: str = "relu",
    **options: Unpack[NormOptions],
) -> tuple[FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the output back to the tokens and the parameters.

        feed_forward_backward(y, d) within add_and_norm_backward                         (1)

    Shapes:  x, cotangent [B,T,M] -> dx as x, the gradients of feed_forward.* and feed_forward_norm.*.
    Units:   those of the cotangent times those of the other factor.
    Empty:   as in feed_forward_sublayer.
    Errors:  those of add_and_norm_backward and feed_forward_backward.
    Source:  the chain rule on (1) of feed_forward_sublayer.
    Differs: n/a.
    """
    p, norm = part(parameters, "feed_forward"), part(parameters, "feed_forward_norm")
    dx, of_norm, of_feed = add_and_norm_backward(
        x, lambda y: feed_forward(y, p, activation), lambda y, d: feed_forward_backward(y, p, d, activation), norm,
        cotangent, **options,
    )  # fmt: skip
    return dx, {**prefixed("feed_forward", of_feed), **prefixed("feed_forward_norm", of_norm)}
