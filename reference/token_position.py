"""Where the real tokens of a padded sequence stand, and what that means for attention: masks, distances, rotations."""

from typing import Literal, Required, TypeAlias, TypedDict, get_args

import numpy as np

from attnspec.reference.alibi import alibi_slopes
from attnspec.reference.dtypes import check_booleans
from attnspec.reference.mask import causal_mask
from attnspec.reference.multi_head import Rotary
from attnspec.reference.rotary_position import Pairs
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, ShapeError, check_rank

Positions: TypeAlias = Literal["sinusoidal", "learned", "rotary", "alibi"]


class HeadOptions(TypedDict, total=False):
    """The keyword arguments of every attention of a model, whatever the tokens."""

    heads: Required[int]
    kv_heads: int | None
    scale: float | None
    softcap: float | None


class MultiHeadOptions(HeadOptions, total=False):
    """The keyword arguments of `multi_head_attention` in a layer: what the model and the tokens say together."""

    mask: BoolArray | None
    bias: FloatArray | None
    rotary: Rotary | None


def real_tokens(mask: BoolArray | None, name: str, shape: tuple[int, ...]) -> BoolArray:
    """Checks a padding mask, or makes the one without padding.

        real[b, t] = mask[b, t], or True without a mask                                  (1)

    Shapes:  mask [B,T] -> [B,T]; shape is that of the tokens, with or without a channel axis.
    Units:   booleans, True = real token.
    Empty:   B and T may be zero.
    Errors:  TypeError if mask is not boolean; ValueError if its shape is not that of the tokens.
    Source:  docs/notation.md, arrays.
    Differs: n/a.
    """
    if mask is None:
        return np.ones(shape[:2], dtype=np.bool_)
    mask = check_booleans(name, mask, "real token", "pass ids != padding_id")
    if mask.shape != shape[:2]:
        raise ValueError(f"{name}.shape={mask.shape}: it has one entry for each token; pass the shape {shape[:2]}")
    return mask


def token_positions(real: BoolArray) -> IntArray:
    """Numbers the real tokens of each sequence, so that padding on any side changes no position.

        position[b, t] = max(n[b, t] - 1, 0),  n[b, t] = number of real tokens among 0..t     (1)

    Shapes:  real [B,T] -> [B,T].
    Units:   positions start at 0; padding has that of the real token before it, or 0.
    Empty:   no tokens, no positions.
    Errors:  ShapeError if real has not two axes.
    Source:  docs/notation.md, arrays.
    Differs: the papers have no padding; there position = t.
    """
    check_rank("real", real, "BT")
    positions: IntArray = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    return positions


def self_attention_options(
    real: BoolArray, T: int, causal: bool, *, heads: int, kv_heads: int | None = None, scale: float | None = None,
    softcap: float | None = None, positions: Positions | None = "sinusoidal", rotary_base: float = 10000.0,
    rotary_pairs: Pairs = "half", rotary_width: int | None = None, window: int | None = None,
) -> MultiHeadOptions:  # fmt: skip
    """Says how the last T tokens of a sequence attend to all of it.

        mask[b, 0, t, s] = real[b, s] and s <= t + S - T if causal and |d[b, t, s]| < window if given     (1)
        bias[b, h, t, s] = -slope[h] |d[b, t, s]|  with ALiBi,  d = p[b, s] - p[b, t + S - T],  p as in token_positions  (2)

    Shapes:  real [B,S] -> the keyword arguments of multi_head_attention, with mask [B,1,T,S] and bias [B,H,T,S].
    Units:   booleans, True = may attend; window counts real tokens, the one at the query's position included.
    Empty:   a query that sees nothing but padding has an empty row.
    Errors:  ValueError if positions is unknown or window < 1; TypeError for an unknown option; ShapeError if T > S.
    Source:  arXiv:1706.03762 sec. 3.2.3; arXiv:2108.12409 sec. 3 for ALiBi; arXiv:2104.09864 eq. 14 for rotary.
    Differs: ALiBi's paper has causal attention only; here distance counts on both sides. The papers have no padding.
    """
    if positions is not None and positions not in get_args(Positions):
        raise ValueError(f"positions={positions!r}: it is one of {', '.join(get_args(Positions))} or None; pass one of these")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: it counts the current key, so it is at least 1; pass None for no window")
    p, S = token_positions(real), real.shape[1]
    if T > S:
        raise ShapeError(f"T={T} with S={S} in real: the T tokens are the last of the S; pass T <= S")
    of_queries = p[:, S - T :]
    distance = p[:, None, None, :] - of_queries[:, None, :, None]
    mask = np.broadcast_to(real[:, None, None, :], distance.shape)
    mask = mask & causal_mask(T, S, "bottom-right") if causal else mask
    mask = mask if window is None else mask & (np.abs(distance) < window)
    bias = -alibi_slopes(heads)[:, None, None] * np.abs(distance) if positions == "alibi" else None
    rotary: Rotary = {"positions": of_queries, "base": rotary_base, "pairs": rotary_pairs, "width": rotary_width}
    options: HeadOptions = {"heads": heads, "kv_heads": kv_heads, "scale": scale, "softcap": softcap}
    return {**options, "mask": mask, "bias": bias, "rotary": rotary if positions == "rotary" else None}


def cross_attention_options(attention: MultiHeadOptions, real: BoolArray) -> MultiHeadOptions:
    """Says how tokens attend to all real tokens of another sequence.

        mask[b, 0, 0, s] = real[b, s]                                                    (1)

    Shapes:  real [B,S] -> the options of attention, with mask [B,1,1,S] and without bias and rotary.
    Units:   booleans, True = may attend.
    Empty:   a sequence of nothing but padding gives empty rows.
    Errors:  ShapeError if real has not two axes.
    Source:  arXiv:1706.03762 sec. 3.2.3: every position in the decoder attends over all positions in the input sequence.
    Differs: the paper has no padding.
    """
    check_rank("real", real, "BS")
    return {**attention, "mask": real[:, None, None, :], "bias": None, "rotary": None}
