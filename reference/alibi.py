"""Attention with linear biases: no positions in the vectors, but a penalty that grows with the distance."""

import numpy as np

from attnspec.reference.shapes import FloatArray


def alibi_slopes(H: int) -> FloatArray:
    """Gives each head its own penalty for a distance of one.

        slope[h] = 2^(-8 (h + 1) / H),  h = 0 .. H-1, if H is a power of two             (1)
        else the slopes of n heads, n the largest power of two up to H,
        and then each second slope of 2 n heads: 2^(-8 (2 j + 1) / 2n),  j = 0 .. H-n-1  (2)

    Shapes:  -> [H].
    Units:   natural-log weights for one position of distance.
    Empty:   n/a.
    Errors:  ValueError if H < 1.
    Source:  arXiv:2108.12409 sec. 3 for (1); (2) is get_slopes of the code published with the paper.
    Differs: the paper numbers heads from 1, and has no (2).
    """
    if H < 1:
        raise ValueError(f"H={H}: there is at least 1 head; pass H >= 1")
    n = 2 ** (H.bit_length() - 1)
    first = np.power(2.0, -8 * np.arange(1, n + 1) / n)
    between = np.power(2.0, -8 * (2 * np.arange(H - n) + 1) / (2 * n))
    return np.concatenate([first, between])


def alibi_bias(H: int, T: int, S: int) -> FloatArray:
    """Penalises each key by its distance from the query; pass it to attention as bias.

        bias[h, t, s] = -slope[h] |t + S - T - s|                                        (1)

    Shapes:  -> [H,T,S], which broadcasts to [B,H,T,S].
    Units:   natural-log weights. Queries stand at the end of the keys: the bottom-right alignment of docs/notation.md.
    Empty:   T and S may be zero.
    Errors:  ValueError if H < 1.
    Source:  arXiv:2108.12409 sec. 3.
    Differs: the paper's queries see no later key; here one in the future is as far as one in the past, unless causal
             hides it. Other code adds slope * s instead, which differs by a constant for each query: the same weights.
    """
    distances = np.abs(np.arange(T)[:, None] + (S - T) - np.arange(S))
    bias: FloatArray = -alibi_slopes(H)[:, None, None] * distances
    return bias
