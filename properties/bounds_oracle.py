"""Softmax attention in float64 with every intermediate value that the bounds need (docs/bounds.md).

Only for `bounds.py` and `bounds_backward.py`: they size errors with it. The expected values of claims come from
`attnspec.reference`, so a slip here cannot hide the same slip there. Letters are those of docs/bounds.md.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Visible = NDArray[np.bool_]

BLOCK = 5  # the smallest block of keys an online softmax may use (Constants, declared: real kernels use 16 and more)
LOWEST = -float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Attention:
    """Softmax attention in float64, heads repeated, with all that the bounds need (Forward). Hidden keys have weight 0."""

    q: Array
    k: Array
    v: Array
    bias: Array | None
    scale: float
    softcap: float | None
    visible: Visible  # [B,H,T,S], like all arrays below unless noted
    a: Array  # |scale| sum |q||k|
    s: Array  # scale * q·k
    capped: Array
    t: Array  # capped score plus bias, -inf where hidden
    shifted: Array  # t - m
    m: Array  # [B,H,T,1] the row's maximum, 0 for an empty row
    lse: Array  # [B,H,T,1]
    log_p: Array
    p: Array
    o: Array  # [B,H,T,E]
    n: Array  # [B,H,T,1] visible keys
    blocks: Array  # [B,H,T,1] min(n, ceil(S/5)): a mask can spread n keys over more than ceil(n/5) blocks
    dense: bool  # every query sees every key
    given: tuple[Array, Array, Array]  # q, k, v with what no other may see

    def shown(self, y: Array) -> Array:
        """Zero in the place of hidden pairs."""
        return y if self.dense else np.where(self.visible, y, 0.0)

    def largest(self, y: Array) -> float:
        """The largest number of a visible pair, 0 if none is visible or larger."""
        return float(y.max(initial=0.0, where=self.visible))


def repeated(array: ArrayLike, heads: int) -> Array:
    """Key/value heads repeated, so that query head h reads head h // (H // G) (docs/notation.md)."""
    array = np.asarray(array, dtype=np.float64)
    return array if array.shape[1] == heads else np.repeat(array, heads // array.shape[1], axis=1)


def only(array: Array, seen: Visible, axis: int) -> Array:
    """Zero in the place of queries or keys that meet no other: hidden content may be anything, NaN too."""
    return np.where(np.any(seen, axis=axis)[..., None], array, 0.0)


@np.errstate(all="ignore")
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    visible: ArrayLike,
    bias: ArrayLike | None,
    scale: float | None,
    softcap: float | None,
) -> Attention:
    """The oracle: shifts by the maximum and divides, because exp(t - lse) carries u|lse| (Forward)."""
    q = np.asarray(q, dtype=np.float64)
    k, v = repeated(k, q.shape[1]), repeated(v, q.shape[1])
    seen: Visible = np.broadcast_to(np.asarray(visible, dtype=bool), (*q.shape[:3], k.shape[2]))
    dense, given = bool(seen.all()), (q, k, v)
    if not dense:
        q, k, v = only(q, seen, -1), only(k, seen, -2), only(v, seen, -2)
    c = 1 / float(np.sqrt(q.shape[3])) if scale is None else float(scale)
    b = None if bias is None else np.where(seen, np.asarray(bias, dtype=np.float64), 0.0)
    keys = k.swapaxes(-1, -2)
    s = c * (q @ keys)
    capped = s if softcap is None else softcap * np.tanh(s / softcap)
    t = np.where(seen, np.maximum(capped if b is None else capped + b, LOWEST), -np.inf)
    m = t.max(-1, keepdims=True, initial=-np.inf)
    m = np.where(np.isneginf(m), 0.0, m)
    shifted = np.where(seen, np.maximum(t - m, LOWEST), -np.inf)
    exponentials = np.exp(shifted)
    n = seen.sum(-1, keepdims=True, dtype=np.float64)
    z = np.where(n > 0, exponentials.sum(-1, keepdims=True), 1.0)
    p = exponentials / z
    blocks = np.minimum(n, -(-seen.shape[-1] // BLOCK))
    a = abs(c) * (np.abs(q) @ np.abs(keys))
    log_z = np.log(z)
    # fmt: off
    return Attention(q, k, v, b, c, softcap, seen, a, s, capped, t, shifted, m, m + log_z, shifted - log_z, p, p @ v,
                     n, blocks, dense, given)
    # fmt: on
