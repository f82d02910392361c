"""Multi-head attention: project, attend in each head, join, project."""

from collections.abc import Mapping
from typing import Unpack

import numpy as np

from attnspec.reference.attention import attention
from attnspec.reference.shapes import AttentionOptions, FloatArray, ShapeError, check_rank, check_size

WEIGHTS = ("q.weight", "k.weight", "v.weight", "o.weight")
BIASES = ("q.bias", "k.bias", "v.bias", "o.bias")


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
    check_rank("x", x, "BHTE")
    B, H, T, E = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * E)


def multi_head_attention(
    x: FloatArray, memory: FloatArray, parameters: Mapping[str, FloatArray], heads: int, *,
    kv_heads: int | None = None, **options: Unpack[AttentionOptions],
) -> FloatArray:  # fmt: skip
    """Lets each head attend in its own projection, and projects what they found together.

        out = concat_h(attention(q_h, k_h, v_h)) Wo^T + bo                               (1)
        q = split(x Wq^T + bq),  k = split(memory Wk^T + bk),  v = split(memory Wv^T + bv)     (2)

    Shapes:  x [B,T,M]  memory [B,S,M']  q.weight [H*D,M]  k.weight [G*D,M']  v.weight [G*E,M']  o.weight [M,H*E]
             biases [H*D] [G*D] [G*E] [M], each optional -> [B,T,M]; memory is x for self-attention.
    Units:   heads is H, kv_heads is G and defaults to H; options are those of attention.
    Empty:   a row with no visible key is o.bias under the default policy, or zero without one.
    Errors:  ValueError if a weight is missing or a name is unknown, and as in split_heads and attention; ShapeError if
             arrays do not fit.
    Source:  arXiv:1706.03762 sec. 3.2.2; arXiv:2305.13245 sec. 2.2 for kv_heads < heads.
    Differs: the paper has no biases, multiplies by W from the right, and takes D = E = M / H.
    """
    check_rank("x", np.asarray(x), "BTM")
    check_rank("memory", np.asarray(memory), "BSM")
    missing, unknown = set(WEIGHTS) - set(parameters), set(parameters) - {*WEIGHTS, *BIASES}
    if missing or unknown:
        rule = f"missing {sorted(missing)}, unknown {sorted(unknown)}"
        raise ValueError(f"parameters={sorted(parameters)}: {rule}; pass {', '.join(WEIGHTS)} and any of {BIASES}")
    kv_heads = heads if kv_heads is None else kv_heads
    q = split_heads(_project(x, parameters, "q"), heads)
    k = split_heads(_project(memory, parameters, "k"), kv_heads)
    v = split_heads(_project(memory, parameters, "v"), kv_heads)
    return _project(merge_heads(attention(q, k, v, **options)), parameters, "o")


def _project(x: FloatArray, parameters: Mapping[str, FloatArray], name: str) -> FloatArray:
    """x W^T + b."""
    x, weight = np.asarray(x, dtype=np.float64), np.asarray(parameters[f"{name}.weight"], dtype=np.float64)
    check_rank(f"{name}.weight", weight, "FM")
    check_size("M", f"the input of {name}.weight", x.shape[-1], f"{name}.weight", weight.shape[1])
    bias = np.asarray(parameters.get(f"{name}.bias", np.zeros(weight.shape[0])), dtype=np.float64)
    if bias.shape != weight.shape[:1]:
        rule = f"it has one entry for each of the {weight.shape[0]} rows of {name}.weight"
        raise ShapeError(f"{name}.bias.shape={bias.shape}: {rule}; pass {weight.shape[:1]}")
    out: FloatArray = np.einsum("btm,fm->btf", x, weight) + bias
    return out
