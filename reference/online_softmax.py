"""Online softmax: attention over blocks of keys, each seen once, merged by their maxima and sums."""

from typing import TypeAlias, Unpack

import numpy as np

from attnspec.reference.attention import scores
from attnspec.reference.gqa import repeat_heads
from attnspec.reference.shapes import FloatArray, ScoreOptions, ShapeError, check_values

Partial: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


def partial(score: FloatArray, v: FloatArray) -> Partial:
    """Sums up one block of keys.

        m = max_s score[s],  z = sum_s exp(score[s] - m),  o = sum_s exp(score[s] - m) v[s]         (1)

    Shapes:  score [...,T,S]  v [...,S,E] -> m [...,T], z [...,T], o [...,T,E]; S is the size of the block.
    Units:   score and m are natural-log weights; o / z is in the units of v, and m + log z is the block's lse.
    Empty:   a block without visible keys is (-inf, 0, 0), which merge leaves out.
    Errors:  ShapeError if S or an axis before T differs.
    Source:  arXiv:1805.02867 alg. 3; arXiv:2307.08691 sec. 3.1 for o undivided.
    Differs: the first paper takes one key at a time, and no values.
    """
    score, v = np.asarray(score, dtype=np.float64), np.asarray(v, dtype=np.float64)
    if (*score.shape[:-2], *score.shape[-1:]) != v.shape[:-1]:
        rule = "they agree in S and in all axes before T"
        raise ShapeError(f"score.shape={score.shape}, v.shape={v.shape}: {rule}; pass score [...,T,S] and v [...,S,E]")
    m = np.max(score, axis=-1, initial=-np.inf)
    p = np.exp(score - _finite(m)[..., None])
    return m, np.sum(p, axis=-1), np.einsum("...ts,...se->...te", p, v)


def merge(a: Partial, b: Partial) -> Partial:
    """Joins two blocks of keys; associative and commutative up to rounding.

        m = max(ma, mb),  z = za exp(ma - m) + zb exp(mb - m),  o = oa exp(ma - m) + ob exp(mb - m)     (1)

    Shapes:  m [...,T], z [...,T], o [...,T,E] in a, in b and in the result.
    Units:   as in partial.
    Empty:   (-inf, 0, 0) is the neutral element; it merged with itself is itself.
    Errors:  ShapeError if a and b have not the same shapes.
    Source:  arXiv:1805.02867 eq. 4; arXiv:2307.08691 sec. 3.1 for o.
    Differs: the first paper has no -inf and no values.
    """
    (ma, za, oa), (mb, zb, ob) = a, b
    for one, other in zip(a, b, strict=True):
        if np.shape(one) != np.shape(other):
            rule = "both blocks belong to the same queries and values"
            raise ShapeError(f"shapes {np.shape(one)} in a, {np.shape(other)} in b: {rule}; pass two results of partial")
    m = np.maximum(ma, mb)
    wa, wb = np.exp(ma - _finite(m)), np.exp(mb - _finite(m))
    return m, za * wa + zb * wb, oa * wa[..., None] + ob * wb[..., None]


def online_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, *, block: int, **options: Unpack[ScoreOptions]
) -> FloatArray:
    """Computes attention block by block; equals attention up to rounding for every block.

        out = o / z,  (m, z, o) = merge of the partials of keys 0..w-1, w..2w-1, ...,  w = block     (1)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E] -> [B,H,T,E]; options are those of scores.
    Units:   block counts keys; the last block may be shorter. Those of v, which is finite even where hidden.
    Empty:   a row with no visible key is zero, as is every row if S = 0.
    Errors:  ValueError if block < 1; those of scores; ShapeError if v does not fit k.
    Source:  arXiv:2205.14135 alg. 1; arXiv:2307.08691 sec. 3.1 for dividing once, at the end.
    Differs: the papers also block the queries, and never hold all scores; here only the order of the sums matters.
    """
    if block < 1:
        raise ValueError(f"block={block}: it counts keys, so it is at least 1; pass S for a single block")
    v = np.asarray(v, dtype=np.float64)
    check_values(np.asarray(k), v)
    score = scores(q, k, **options)
    values = repeat_heads(v, score.shape[1])
    total = partial(score[..., :0], values[..., :0, :])
    for start in range(0, score.shape[-1], block):
        keys = slice(start, start + block)
        total = merge(total, partial(score[..., keys], values[..., keys, :]))
    _, z, o = total
    return o / np.where(z == 0, 1.0, z)[..., None]


def _finite(m: FloatArray) -> FloatArray:
    """The maximum, or 0 where no key is visible and -inf - -inf would be NaN."""
    return np.where(m == -np.inf, 0.0, m)
