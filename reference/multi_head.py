"""Multi-head attention: project, attend in each head, join, project."""

from typing import Required, TypedDict, Unpack

import numpy as np

from attnspec.reference.attention import attention
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names, part
from attnspec.reference.rotary_position import Pairs, rotate
from attnspec.reference.shapes import AttentionOptions, FloatArray, IntArray, ShapeError, check_rank

WEIGHTS = ("q.weight", "k.weight", "v.weight", "o.weight")
BIASES = ("q.bias", "k.bias", "v.bias", "o.bias")


class Rotary(TypedDict, total=False):
    """The keyword arguments of `rotary_position.rotate`: the positions of the tokens of x, and how to turn by them."""

    positions: Required[IntArray]
    base: float
    pairs: Pairs
    width: int | None


def split_heads(x: FloatArray, heads: int) -> FloatArray:
    """Cuts the last axis into consecutive heads.

        out[b, h, t, d] = x[b, t, h D + d]                                               (1)

    Shapes:  x [B,T,H*D] -> [B,H,T,D].
    Units:   those of x.
    Empty:   B, T and D may be zero.
    Errors:  ShapeError if x has not three axes or its last one is no multiple of heads; ValueError if heads < 1.
    Source:  arXiv:1706.03762 sec. 3.2.2.
    Differs: the paper has one matrix per head; here they are stacked in order of heads.
    """
    if heads < 1:
        raise ValueError(f"heads={heads}: there is at least 1 head; pass heads >= 1")
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    B, T, M = x.shape
    if M % heads:
        raise ShapeError(f"heads={heads}: the projected width {M} is a multiple of it; change heads or the projection")
    return x.reshape(B, T, heads, M // heads).swapaxes(1, 2)


def merge_heads(x: FloatArray) -> FloatArray:
    """Joins the heads along the last axis; the inverse of split_heads.

        out[b, t, h E + e] = x[b, h, t, e]                                               (1)

    Shapes:  x [B,H,T,E] -> [B,T,H*E].
    Units:   those of x.
    Empty:   every size may be zero.
    Errors:  ShapeError if x has not four axes.
    Source:  arXiv:1706.03762 sec. 3.2.2, Concat.
    Differs: n/a.
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BHTE")
    B, H, T, E = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * E)


def project_heads(x: FloatArray, parameters: Parameters, name: str, heads: int, rotary: Rotary | None = None) -> FloatArray:
    """Projects tokens to the queries, keys or values of all heads, and turns them by their positions if they are rotary.

        out = rotate(split(x W^T + b))                                                   (1)

    Shapes:  x [B,T,M]  name.weight [H*D,M]  name.bias [H*D], optional -> [B,H,T,D].
    Units:   name is q, k, v; rotary is None for values.
    Empty:   B and T may be zero.
    Errors:  those of linear, split_heads and rotate.
    Source:  arXiv:1706.03762 sec. 3.2.2; arXiv:2104.09864 eq. 14 for rotary.
    Differs: n/a.
    """
    projected = split_heads(_linear(x, parameters, name), heads)
    return projected if rotary is None else rotate(projected, **rotary)


def multi_head_attention(
    x: FloatArray, memory: FloatArray, parameters: Parameters, heads: int, *,
    kv_heads: int | None = None, rotary: Rotary | None = None, **options: Unpack[AttentionOptions],
) -> FloatArray:  # fmt: skip
    """Lets each head attend in its own projection, and projects what they found together.

        out = concat_h(attention(q_h, k_h, v_h)) Wo^T + bo                               (1)
        q = split(x Wq^T + bq),  k = split(memory Wk^T + bk),  v = split(memory Wv^T + bv)     (2)

    Shapes:  x [B,T,M]  memory [B,S,M']  q.weight [H*D,M]  k.weight [G*D,M']  v.weight [G*E,M']  o.weight [M,H*E]
             biases [H*D] [G*D] [G*E] [M], each optional -> [B,T,M]; memory is x for self-attention.
    Units:   heads is H, kv_heads is G and defaults to H; options are those of attention. rotary turns q and k by the
             positions of the tokens, for self-attention.
    Empty:   a row with no visible key is o.bias under the default policy, or zero without one.
    Errors:  ValueError if a weight is missing or a name is unknown, and as in split_heads and attention; ShapeError if
             arrays do not fit.
    Source:  arXiv:1706.03762 sec. 3.2.2; arXiv:2305.13245 sec. 2.2 for kv_heads < heads; arXiv:2104.09864 eq. 14.
    Differs: the paper has no biases, multiplies by W from the right, and takes D = E = M / H.
    """
    check_rank("x", np.asarray(x), "BTM")
    check_rank("memory", np.asarray(memory), "BSM")
    check_names(parameters, WEIGHTS, BIASES)
    kv_heads = heads if kv_heads is None else kv_heads
    q = project_heads(x, parameters, "q", heads, rotary)
    k = project_heads(memory, parameters, "k", kv_heads, rotary)
    v = project_heads(memory, parameters, "v", kv_heads)
    return _linear(merge_heads(attention(q, k, v, **options)), parameters, "o")


def _linear(x: FloatArray, parameters: Parameters, name: str) -> FloatArray:
    """The linear map of that name, whose errors say which one it is."""
    try:
        return linear(x, part(parameters, name))
    except ShapeError as error:
        raise ShapeError(f"{name}: {error}") from None
