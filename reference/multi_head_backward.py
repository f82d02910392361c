"""The gradients of multi-head attention, derived by hand."""

from typing import Unpack

import numpy as np

from attnspec.reference.attention import attention
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.linear import linear_backward
from attnspec.reference.multi_head import Rotary, merge_heads, multi_head_attention, project_heads, split_heads
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.rotary_position import rotate_backward
from attnspec.reference.shapes import FloatArray, ScoreOptions


def multi_head_backward(
    x: FloatArray, memory: FloatArray, parameters: Parameters, cotangent: FloatArray, heads: int, *,
    kv_heads: int | None = None, rotary: Rotary | None = None, **options: Unpack[ScoreOptions],
) -> tuple[FloatArray, FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the output back to both sequences and the parameters.

        da = cotangent Wo,  (dq, dk, dv) = attention'(q, k, v)·split(da)                 (1)
        dx = merge(dq) Wq,  dmemory = merge(dk) Wk + merge(dv) Wv                        (2)
        dWo = cotangent^T a,  dWq = merge(dq)^T x,  dWk = merge(dk)^T memory,  dWv = merge(dv)^T memory     (3)

    Shapes:  x [B,T,M]  memory [B,S,M']  cotangent [B,T,M] -> dx, dmemory, and the gradients under the parameters' names
             and shapes. In self-attention, where memory is x, the gradient of x is dx + dmemory.
    Units:   those of the cotangent times those of the other factor; a is the output of the heads, merged.
    Empty:   a row with no visible key sends exact zeros to everything but o.bias (policy "zero").
    Errors:  those of multi_head_attention; ShapeError if cotangent has not the shape of the output.
    Source:  arXiv:1706.03762 sec. 3.2.2, differentiated; attention_backward for the heads.
    Differs: the paper has no gradients. With rotary, dq and dk are turned back before (2) and (3).
    """
    x, memory, do = (np.asarray(array, dtype=np.float64) for array in (x, memory, cotangent))
    out = multi_head_attention(x, memory, parameters, heads, kv_heads=kv_heads, rotary=rotary, **options)
    check_cotangent(do, out.shape)
    G = heads if kv_heads is None else kv_heads
    q = project_heads(x, parameters, "q", heads, rotary)
    k, v = project_heads(memory, parameters, "k", G, rotary), project_heads(memory, parameters, "v", G)
    da, o = linear_backward(merge_heads(attention(q, k, v, **options)), part(parameters, "o"), do)
    dq, dk, dv, _ = attention_backward(q, k, v, split_heads(da, heads), **options)
    dx, q_gradients = project_heads_backward(x, parameters, "q", dq, rotary)
    dk_memory, k_gradients = project_heads_backward(memory, parameters, "k", dk, rotary)
    dv_memory, v_gradients = project_heads_backward(memory, parameters, "v", dv)
    return dx, dk_memory + dv_memory, {**q_gradients, **k_gradients, **v_gradients, **prefixed("o", o)}


def project_heads_backward(
    x: FloatArray, parameters: Parameters, name: str, cotangent: FloatArray, rotary: Rotary | None = None
) -> tuple[FloatArray, Gradients]:
    """Pulls a cotangent of the heads' queries, keys or values back to the tokens and the projection.

        dx = d W,  dW = d^T x,  db = sum of d over tokens,  d = merge(turn back(cotangent))     (1)

    Shapes:  x [B,T,M]  cotangent [B,H,T,D] -> dx as x, gradients under name.weight and name.bias.
    Units:   those of the cotangent times those of the other factor.
    Empty:   no tokens give gradients of zero.
    Errors:  those of linear_backward and rotate_backward.
    Source:  arXiv:1706.03762 sec. 3.2.2 and arXiv:2104.09864 eq. 14, differentiated.
    Differs: n/a.
    """
    turned = cotangent if rotary is None else rotate_backward(cotangent, **rotary)
    dx, gradients = linear_backward(x, part(parameters, name), merge_heads(turned))
    return dx, prefixed(name, gradients)
