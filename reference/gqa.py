"""Grouped-query attention: how query heads share key/value heads."""

import numpy as np

from attnspec.reference.shapes import FloatArray, ShapeError


def repeat_heads(x: FloatArray, H: int) -> FloatArray:
    """Gives each query head the key/value head that it reads.

        out[b, h] = x[b, h // (H // G)]                                                  (1)

    Shapes:  x [B,G,...] -> [B,H,...].
    Units:   those of x.
    Empty:   H = 0 returns no heads.
    Errors:  ShapeError if H % G != 0.
    Source:  arXiv:2305.13245 sec. 2.2.
    Differs: the paper does not number the heads; each is repeated, not tiled (docs/notation.md).
    """
    x = np.asarray(x, dtype=np.float64)
    check_groups(H, x.shape[1])
    return np.repeat(x, H // x.shape[1], axis=1)


def sum_groups(x: FloatArray, G: int) -> FloatArray:
    """Adds up what the query heads of a group send back to their key/value head; the transpose of repeat_heads.

        out[b, g] = sum of x[b, h] over h // (H // G) = g                                (1)

    Shapes:  x [B,H,...] -> [B,G,...].
    Units:   those of x.
    Empty:   H = 0 returns zeros.
    Errors:  ShapeError if H % G != 0.
    Source:  arXiv:2305.13245 sec. 2.2, differentiated.
    Differs: the paper has no gradients.
    """
    x = np.asarray(x, dtype=np.float64)
    B, H = x.shape[:2]
    check_groups(H, G)
    out: FloatArray = np.sum(x.reshape(B, G, H // G, *x.shape[2:]), axis=2)
    return out


def check_groups(H: int, G: int) -> None:
    """Refuses a number of query heads that the key/value heads cannot share evenly.

        H % G = 0                                                                        (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   H may be zero; G may not, as no head could be read.
    Errors:  ShapeError if H % G != 0.
    Source:  arXiv:2305.13245 sec. 2.2.
    Differs: n/a.
    """
    if G == 0 or H % G:
        raise ShapeError(f"H={H} with G={G}: H is a multiple of G; repeat or drop heads of k and v")
