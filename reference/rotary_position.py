"""Rotary positions: each pair of channels of a query or key is turned by an angle that grows with its position."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank

Pairs: TypeAlias = Literal["half", "interleaved"]


def rotate(
    x: FloatArray, positions: IntArray, base: float = 10000.0, pairs: Pairs = "half", width: int | None = None
) -> FloatArray:
    """Turns each pair of channels by its position's angle, so that scores depend on distances only.

        (out[a], out[b]) = (x[a] cos - x[b] sin, x[b] cos + x[a] sin) of position f[i]   (1)
        f[i] = base^(-2 i / W),  i = 0 .. W/2 - 1                                        (2)
        pair i is (a, b) = (i, i + W/2) (half) or (2 i, 2 i + 1) (interleaved)           (3)

    Shapes:  x [B,H,T,D], queries or keys  positions [T] or [B,T] -> [B,H,T,D].
    Units:   angles in radians; width is W, D by default: the channels from W on are left alone.
    Empty:   every size may be zero; W = 0 changes nothing.
    Errors:  ShapeError if x or positions do not fit; ValueError if W is odd or above D, base <= 0, or pairs unknown.
    Source:  arXiv:2104.09864 eq. 15 for (2), eq. 34 for (1) with interleaved pairs; arXiv:2204.06745 sec. 2.1 for W < D.
    Differs: the paper numbers positions and pairs from 1; half is the layout of later code, a permutation of channels.
    """
    x = np.asarray(x, dtype=np.float64)
    W = x.shape[-1] if width is None else width
    cos, sin = _turn(x, positions, base, W)
    first, second = _split(x[..., :W], pairs)
    turned = _join(first * cos - second * sin, second * cos + first * sin, pairs)
    return np.concatenate([turned, x[..., W:]], axis=-1)


def rotate_backward(
    cotangent: FloatArray, positions: IntArray, base: float = 10000.0, pairs: Pairs = "half", width: int | None = None
) -> FloatArray:
    """Pulls a cotangent of the output back to the input: the inverse turn, as a turn is its transpose's inverse.

        dx = rotate(cotangent, -positions)                                               (1)

    Shapes:  cotangent [B,H,T,D]  positions [T] or [B,T] -> [B,H,T,D].
    Units:   those of the cotangent.
    Empty:   every size may be zero.
    Errors:  those of rotate, which name the cotangent x.
    Source:  arXiv:2104.09864 sec. 3.2.2: the matrix of (1) of rotate is orthogonal.
    Differs: the paper has no gradients.
    """
    return rotate(cotangent, -np.asarray(positions), base, pairs, width)


def _turn(x: FloatArray, positions: IntArray, base: float, W: int) -> tuple[FloatArray, FloatArray]:
    """The cosine and sine of each position and pair, [1,T,W/2] or [B,1,T,W/2]."""
    check_rank("x", x, "BHTD")
    B, _, T, D = x.shape
    if W % 2 or not 0 <= W <= D:
        raise ValueError(f"width={W}: channels turn in pairs, so it is even and in 0..D with D={D}; pass another width")
    if not base > 0:
        raise ValueError(f"base={base}: frequencies are its powers, so it is positive; pass 10000.0")
    places = np.asarray(positions, dtype=np.float64)
    if places.shape not in ((T,), (B, T)):
        rule = f"each of the T={T} positions of x has one, the same for the batch or not"
        raise ShapeError(f"positions.shape={places.shape}: {rule}; pass {(T,)} or {(B, T)}")
    frequencies = np.power(base, -2 * np.arange(W // 2) / max(W, 1))
    angles = places[..., None, :, None] * frequencies
    return np.cos(angles), np.sin(angles)


def _split(x: FloatArray, pairs: Pairs) -> tuple[FloatArray, FloatArray]:
    """The first and the second channels of all pairs."""
    if pairs not in get_args(Pairs):
        raise ValueError(f"pairs={pairs!r}: it is one of {', '.join(get_args(Pairs))}; pass one of these")
    half = x.shape[-1] // 2
    return (x[..., :half], x[..., half:]) if pairs == "half" else (x[..., 0::2], x[..., 1::2])


def _join(first: FloatArray, second: FloatArray, pairs: Pairs) -> FloatArray:
    """Undoes _split."""
    if pairs == "half":
        return np.concatenate([first, second], axis=-1)
    return np.reshape(np.stack([first, second], axis=-1), (*first.shape[:-1], 2 * first.shape[-1]))
