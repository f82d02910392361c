"""Which keys a query may attend to: causality, windows, padding, and their intersection."""

from typing import get_args

import numpy as np

from attnspec.reference.dtypes import check_booleans, check_integers
from attnspec.reference.shapes import Alignment, BoolArray, FloatArray, IntArray, Side, check_broadcasts, check_rank


def causal_mask(T: int, S: int, alignment: Alignment = "top-left") -> BoolArray:
    """Lets each query see the keys up to its own position.

        mask[t, s] = s <= p(t),  p(t) = t (top-left) or t + S - T (bottom-right)         (1)

    Shapes:  -> [T,S].
    Units:   booleans, True = may attend.
    Empty:   with bottom-right and T > S the first T - S rows are all False.
    Errors:  ValueError if alignment is not one of the two.
    Source:  arXiv:1706.03762 sec. 3.2.3.
    Differs: the paper has T = S only, where both alignments agree.
    """
    return np.arange(S) <= _positions(T, S, alignment)


def window_mask(T: int, S: int, window: int, alignment: Alignment = "top-left", side: Side = "left") -> BoolArray:
    """Lets each query see the keys nearest to its position.

        mask[t, s] = p - w < s <= p (left) or p - w < s < p + w (both),  p = p(t) as in causal_mask     (1)

    Shapes:  -> [T,S].
    Units:   window w counts keys, the one at the query's position included; booleans, True = may attend.
    Empty:   a query whose window lies wholly outside 0..S-1 has a row of False.
    Errors:  ValueError if window < 1, or if alignment or side is not one of its two.
    Source:  arXiv:2004.05150 sec. 3.1; arXiv:2310.06825 sec. 2 for "left".
    Differs: Longformer's w is the width of both sides together; Mistral's text has i - W..i, which are W + 1 keys.
    """
    if window < 1:
        raise ValueError(f"window={window}: it counts the current key, so it is at least 1; pass None for no window")
    _check_choice("window side", side, get_args(Side))
    distance = np.arange(S) - _positions(T, S, alignment)
    return (-window < distance) & (distance < (1 if side == "left" else window))


def padding_mask(lengths: IntArray, S: int) -> BoolArray:
    """Hides the padding after the last real key of each sequence.

        mask[b, 0, 0, s] = s < lengths[b]                                                (1)

    Shapes:  lengths [B] -> [B,1,1,S].
    Units:   lengths count keys; booleans, True = may attend.
    Empty:   a sequence of length zero has a row of False.
    Errors:  ShapeError if lengths has not one axis; ValueError if a length is not in 0..S; TypeError if it is no integer.
    Source:  docs/notation.md, arrays.
    Differs: n/a.
    """
    lengths = check_integers("lengths", lengths, "lengths count keys")
    check_rank("lengths", lengths, "B")
    if np.any((lengths < 0) | (lengths > S)):
        raise ValueError(f"lengths={lengths.tolist()}: each lies in 0..S with S={S}; clip them or pass a larger S")
    return np.arange(S) < lengths[:, None, None, None]


def visible_keys(
    T: int, S: int, *, mask: BoolArray | None = None, bias: FloatArray | None = None,
    causal: Alignment | None = None, window: int | None = None, window_side: Side = "left",
) -> BoolArray:  # fmt: skip
    """Intersects everything that can hide a key.

        visible = mask and (bias > -inf) and causal_mask and window_mask                 (1)

    Shapes:  mask, bias broadcast to [B,H,T,S] -> broadcasts to [B,H,T,S]; its last two axes are T,S.
    Units:   booleans, True = may attend. A window takes positions from causal, and top-left ones without it.
    Empty:   an empty row is a row of False.
    Errors:  TypeError if mask is not boolean; ShapeError if mask or bias does not broadcast to T,S;
             ValueError as in causal_mask and window_mask.
    Source:  docs/notation.md, the order of operations (3), (4).
    Differs: n/a.
    """
    visible = np.ones((T, S), dtype=np.bool_)
    for name, array in (("mask", mask), ("bias", bias)):
        if array is not None:
            check_broadcasts(name, np.shape(array)[-2:], "TS", (T, S))
    if mask is not None:
        visible = visible & check_booleans("mask", mask, "may attend", "pass numbers as bias, or mask.astype(bool)")
    if bias is not None:
        visible = visible & (np.asarray(bias) != -np.inf)  # not `>`: a NaN must show up in the result, not hide a key
    if causal is not None:
        visible = visible & causal_mask(T, S, causal)
    if window is not None:
        visible = visible & window_mask(T, S, window, "top-left" if causal is None else causal, window_side)
    return visible


def additive_mask(mask: BoolArray) -> FloatArray:
    """Writes a boolean mask as a bias.

        bias = 0 where mask, else -inf                                                   (1)

    Shapes:  mask [...] -> the same shape.
    Units:   natural-log weights: exp(0) = 1 keeps a key, exp(-inf) = 0 hides it.
    Empty:   an empty row is a row of -inf.
    Errors:  TypeError if mask is not boolean.
    Source:  arXiv:1706.03762 sec. 3.2.3.
    Differs: n/a.
    """
    return np.where(check_booleans("mask", mask, "may attend", "pass mask.astype(bool)"), 0.0, -np.inf)


def _positions(T: int, S: int, alignment: Alignment) -> IntArray:
    """The position p(t) of each query among the keys, [T,1]."""
    _check_choice("causal alignment", alignment, get_args(Alignment))
    return np.arange(T)[:, None] + (S - T if alignment == "bottom-right" else 0)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: it is one of {', '.join(choices)}; pass one of these")
