"""Sinusoidal positions: each position is written as the phases of clock hands of many speeds."""

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray


def sinusoidal_position(positions: IntArray, M: int) -> FloatArray:
    """Encodes each position by sines and cosines of geometrically falling frequencies.

        out[..., 2 i] = sin(position f[i]),  out[..., 2 i + 1] = cos(position f[i])      (1)
        f[i] = 10000^(-2 i / M),  i = 0 .. M/2 - 1                                       (2)

    Shapes:  positions [...], as [T] -> [...,M].
    Units:   positions count tokens from 0, and may be negative; phases are in radians.
    Empty:   no positions give no rows.
    Errors:  ValueError if M is odd or less than 2.
    Source:  arXiv:1706.03762 sec. 3.5.
    Differs: n/a. Other code puts all sines before all cosines: a permutation of the channels.
    """
    if M < 2 or M % 2:
        raise ValueError(
            f"M={M}: sines and cosines come in pairs, so the width is even and positive; pass {max(M + M % 2, 2)}"
        )
    frequencies = np.power(10000.0, -2 * np.arange(M // 2) / M)
    phases = np.asarray(positions, dtype=np.float64)[..., None] * frequencies
    pairs = np.stack([np.sin(phases), np.cos(phases)], axis=-1)
    return np.reshape(pairs, (*phases.shape[:-1], M))
