"""The gradients of attention, derived by hand."""

from typing import Unpack

import numpy as np

from attnspec.reference.attention import attention_weights, scores
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.gqa import repeat_heads, sum_groups
from attnspec.reference.shapes import FloatArray, ScoreOptions, check_values


def attention_backward(
    q: FloatArray, k: FloatArray, v: FloatArray, cotangent: FloatArray, **options: Unpack[ScoreOptions]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Pulls a cotangent of the output back to queries, keys, values and bias.

        dv[s] = sum_t p[t, s] do[t],  p = weights,  do = cotangent                        (1)
        dp[t, s] = do[t]·v[s]                                                             (2)
        dbias[t, s] = p[t, s] (dp[t, s] - sum_r p[t, r] dp[t, r])                         (3)
        dx[t, s] = scale * dbias[t, s] * cap'(scale * q[t]·k[s])                          (4)
        dq[t] = sum_s dx[t, s] k[s],  dk[s] = sum_t dx[t, s] q[t]                         (5)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  cotangent [B,H,T,E] -> dq, dk, dv as q, k, v; dbias [B,H,T,S].
             Sum dbias over the axes along which bias is broadcast. dk, dv are summed over the query heads of a group.
    Units:   those of cotangent times v over those of the input; v and cotangent are finite, hidden or not.
    Empty:   a row with no visible key sends exact zeros everywhere (policy "zero").
    Errors:  those of attention; ShapeError if cotangent has not the shape of the output.
    Source:  arXiv:2205.14135 appendix B.2 for (1)-(3), (5); arXiv:2408.00118 sec. 2, differentiated, for the cap.
    Differs: the paper has neither cap, bias, groups nor empty rows; its dS is dbias here.
    """
    q, k, v, do = (np.asarray(array, dtype=np.float64) for array in (q, k, v, cotangent))
    check_values(k, v)
    p = attention_weights(q, k, **options)
    check_cotangent(do, (*q.shape[:3], v.shape[3]))
    G, H, D = k.shape[1], q.shape[1], q.shape[3]
    dp = np.einsum("bhte,bhse->bhts", do, repeat_heads(v, H))
    dbias = p * (dp - np.sum(p * dp, axis=-1, keepdims=True))
    scale, softcap = options.get("scale"), options.get("softcap")
    scale = 1 / np.sqrt(D) if scale is None else scale
    dx = scale * dbias if softcap is None else scale * dbias * _squared_sech(scores(q, k, scale=scale) / softcap)
    dq = np.einsum("bhts,bhsd->bhtd", dx, repeat_heads(k, H))
    dk = sum_groups(np.einsum("bhts,bhtd->bhsd", dx, q), G)
    dv = sum_groups(np.einsum("bhts,bhte->bhse", p, do), G)
    return dq, dk, dv, dbias


def _squared_sech(x: FloatArray) -> FloatArray:
    """The derivative of tanh. Written as 1 - tanh(x)^2 it would cancel where the cap saturates."""
    e = np.exp(-2 * np.abs(x))
    slope: FloatArray = 4 * e / (1 + e) ** 2
    return slope
