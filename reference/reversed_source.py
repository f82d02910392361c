"""Reading a sentence from its last word to its first."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from attnspec.reference.mask import padding_mask
from attnspec.reference.shapes import IntArray, ShapeError, check_size

Entry = TypeVar("Entry", bound=np.generic)


def reverse_source(source: npt.NDArray[Entry], lengths: IntArray | None = None) -> npt.NDArray[Entry]:
    """Reverses the real part of each sequence, and leaves its padding behind it; done twice it undoes itself.

        out[b, t] = source[b, n - 1 - t] if t < n else source[b, t],  n = lengths[b]     (1)

    Shapes:  source [B,T] or [B,T,...]  lengths [B], T each unless given -> the shape of source.
    Units:   those of source, which may be ids, embeddings or states.
    Empty:   a sequence of length zero is all padding; T may be zero.
    Errors:  ShapeError if B differs or source has fewer than two axes; those of padding_mask for lengths.
    Source:  arXiv:1409.3215 sec. 3.3.
    Differs: the paper says nothing of padding; it does not move here.
    """
    source = np.asarray(source)
    if source.ndim < 2:
        raise ShapeError(f"source.shape={source.shape}: source has the axes [B,T,...]; add axes, as source[None] for one row")
    B, T = source.shape[:2]
    real = padding_mask(np.full(B, T) if lengths is None else lengths, T)[:, 0, 0]
    check_size("B", "source", B, "lengths", real.shape[0])
    index = np.where(real, np.sum(real, axis=1, keepdims=True) - 1 - np.arange(T), np.arange(T))
    return np.take_along_axis(source, index.reshape(B, T, *[1] * (source.ndim - 2)), axis=1)
