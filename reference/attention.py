"""Scaled dot-product attention: scores, their weights, and the weighted means of the values."""

from typing import Unpack

import numpy as np

from attnspec.reference.gqa import repeat_heads
from attnspec.reference.mask import visible_keys
from attnspec.reference.shapes import (
    Alignment,
    BoolArray,
    EmptyRow,
    FloatArray,
    ScoreOptions,
    ShapeError,
    Side,
    check_broadcasts,
    check_rank,
    check_size,
    check_values,
)
from attnspec.reference.softmax import softmax


# `fmt: skip` keeps the options, the same everywhere, on three lines.
def scores(
    q: FloatArray, k: FloatArray, *, mask: BoolArray | None = None, bias: FloatArray | None = None,
    causal: Alignment | None = None, scale: float | None = None, window: int | None = None,
    window_side: Side = "left", softcap: float | None = None,
) -> FloatArray:  # fmt: skip
    """Scores each key for each query, and hides with -inf.

        score[t, s] = cap(scale * q[t]·k[s]) + bias[t, s] if visible, else -inf          (1)
        cap(x) = softcap * tanh(x / softcap), or x without a softcap                     (2)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  mask, bias broadcast to [B,H,T,S] -> [B,H,T,S].
    Units:   natural-log weights; scale defaults to 1/sqrt(D). Inputs are widened to float64.
    Empty:   a row with no visible key is all -inf.
    Errors:  ShapeError if arrays do not fit, H % G != 0, or D = 0 without a scale; ValueError if softcap <= 0 and as
             in visible_keys; TypeError if mask is not boolean.
    Source:  arXiv:1706.03762 eq. 1; arXiv:2305.13245 sec. 2.2 for G < H; arXiv:2408.00118 sec. 2 for softcap.
    Differs: the first paper writes d_k for D and has neither bias nor cap.
    """
    q, k = np.asarray(q, dtype=np.float64), np.asarray(k, dtype=np.float64)
    check_rank("q", q, "BHTD")
    check_rank("k", k, "BGSD")
    (B, H, T, D), S = q.shape, k.shape[2]
    check_size("B", "q", B, "k", k.shape[0])
    check_size("D", "q", D, "k", k.shape[3])
    if scale is None and D == 0:
        raise ShapeError("D=0 in q and k: the default scale 1/sqrt(D) needs D > 0; pass scale")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap={softcap}: a soft cap is positive; pass None for no cap")
    for name, array in (("mask", mask), ("bias", bias)):
        if array is not None:
            check_broadcasts(name, np.shape(array), "BHTS", (B, H, T, S))
    score = np.einsum("bhtd,bhsd->bhts", q, repeat_heads(k, H)) * (1 / np.sqrt(D) if scale is None else scale)
    if softcap is not None:
        score = softcap * np.tanh(score / softcap)
    visible = visible_keys(T, S, mask=mask, bias=bias, causal=causal, window=window, window_side=window_side)
    return np.where(visible, score if bias is None else score + bias, -np.inf)


def attention_weights(
    q: FloatArray, k: FloatArray, *, empty_row: EmptyRow = "zero", **options: Unpack[ScoreOptions]
) -> FloatArray:
    """Takes the softmax of each query's scores.

        weights[t] = softmax_s(score[t, s])                                              (1)

    Shapes:  q [B,H,T,D]  k [B,G,S,D] -> [B,H,T,S]; options are those of scores.
    Units:   weights are shares: a row sums to one.
    Empty:   a row with no visible key is 0 (zero), 1/S (mean), NaN (nan), or the softmax of the scores without mask,
             causal, window and bias of -inf (unmasked).
    Errors:  those of scores; ValueError if empty_row is not one of the four.
    Source:  arXiv:1706.03762 eq. 1.
    Differs: the paper has no empty rows.
    """
    score = scores(q, k, **options)
    empty = np.all(score == -np.inf, axis=-1, keepdims=True)
    if empty_row == "unmasked":
        return np.where(empty, softmax(_unmasked_scores(q, k, options)), softmax(score))
    fill = {"zero": 0.0, "mean": 1 / max(score.shape[-1], 1), "nan": np.nan}
    if empty_row not in fill:
        rule = f"it is one of {', '.join([*fill, 'unmasked'])}"
        raise ValueError(f"empty_row={empty_row!r}: {rule}; pass one of these (docs/notation.md, empty row)")
    return np.where(empty, fill[empty_row], softmax(score))


def attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, mask: BoolArray | None = None, bias: FloatArray | None = None,
    causal: Alignment | None = None, scale: float | None = None, window: int | None = None,
    window_side: Side = "left", softcap: float | None = None, empty_row: EmptyRow = "zero",
) -> FloatArray:  # fmt: skip
    """Weights each value by the softmax of its score.

        out[t] = sum_s softmax_s(score[t, s]) v[s],  score as in scores                  (1)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  mask, bias broadcast to [B,H,T,S] -> [B,H,T,E].
    Units:   those of v, which is finite even where hidden: zero times infinity is NaN here.
    Empty:   a row with no visible key follows empty_row, zeros by default; with S = 0 every row is zero.
    Errors:  those of attention_weights; ShapeError if v does not fit k.
    Source:  arXiv:1706.03762 eq. 1; arXiv:2305.13245 sec. 2.2 for G < H.
    Differs: the paper has no empty rows; it writes d_v for E.
    """
    v = np.asarray(v, dtype=np.float64)
    check_values(np.asarray(k), v)
    weights = attention_weights(
        q, k, mask=mask, bias=bias, causal=causal, scale=scale, window=window,
        window_side=window_side, softcap=softcap, empty_row=empty_row,
    )  # fmt: skip
    out: FloatArray = np.einsum("bhts,bhse->bhte", weights, repeat_heads(v, weights.shape[1]))
    return out


def _unmasked_scores(q: FloatArray, k: FloatArray, options: ScoreOptions) -> FloatArray:
    """The scores as if nothing were hidden: a bias of -inf counts as none."""
    bias = options.get("bias")
    bias = None if bias is None else np.where(np.asarray(bias) == -np.inf, 0.0, bias)
    return scores(q, k, bias=bias, scale=options.get("scale"), softcap=options.get("softcap"))
