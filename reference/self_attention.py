"""Self-attention from first principles: words compared with each other, then the same with learned maps."""

import numpy as np

from attnspec.reference.attention import attention
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names, part
from attnspec.reference.shapes import Alignment, BoolArray, FloatArray, check_rank
from attnspec.reference.softmax import softmax


def plain_self_attention(x: FloatArray) -> FloatArray:
    """Replaces each word by a mean of all words, weighted by how alike they are. There is nothing to learn.

        out = softmax(X X^T) X,  the softmax row by row                                  (1)

    Shapes:  x [B,T,M] -> [B,T,M].
    Units:   those of x.
    Empty:   every size may be zero.
    Errors:  ShapeError if x has not three axes.
    Source:  arXiv:1706.03762 eq. 1 with Q = K = V = X.
    Differs: without the factor 1/sqrt(d_k).
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    weights = softmax(np.einsum("btm,bsm->bts", x, x))
    out: FloatArray = np.einsum("bts,bsm->btm", weights, x)
    return out


def plain_self_attention_by_rows(x: FloatArray) -> FloatArray:
    """Computes plain_self_attention one word at a time, as one would with pencil and paper.

        out[t] = sum_s softmax_s(x[t]·x[s]) x[s]                                         (1)

    Shapes:  x [B,T,M] -> [B,T,M].
    Units:   those of x.
    Empty:   every size may be zero.
    Errors:  ShapeError if x has not three axes.
    Source:  arXiv:1706.03762 eq. 1 with Q = K = V = X, one row of Q at a time.
    Differs: without the factor 1/sqrt(d_k).
    """
    x = np.asarray(x, dtype=np.float64)
    check_rank("x", x, "BTM")
    rows = [softmax(words @ word) @ words for words in x for word in words]
    return np.reshape(np.concatenate([np.zeros(0), *rows]), x.shape)


def self_attention(
    x: FloatArray, parameters: Parameters, *, mask: BoolArray | None = None, causal: Alignment | None = None
) -> FloatArray:
    """Compares words by learned queries and keys, and takes means of learned values: a single head.

        out = attention(X Wq^T + bq, X Wk^T + bk, X Wv^T + bv)                           (1)

    Shapes:  x [B,T,M]  q.weight, k.weight [D,M]  v.weight [E,M]  biases [D] [D] [E], each optional
             mask broadcasts to [B,1,T,T] -> [B,T,E].
    Units:   those of the values; scores are divided by sqrt(D).
    Empty:   a row with no visible key is zero.
    Errors:  ValueError if a weight is missing or a name unknown; ShapeError if arrays do not fit; those of attention.
    Source:  arXiv:1706.03762 sec. 3.2.1 and 3.2.3.
    Differs: the paper multiplies by matrices from the right, and has no biases.
    """
    check_names(parameters, ("q.weight", "k.weight", "v.weight"), ("q.bias", "k.bias", "v.bias"))
    check_rank("x", np.asarray(x), "BTM")
    q, k, v = (linear(x, part(parameters, name))[:, None] for name in "qkv")  # [B,1,T,D], [B,1,T,D], [B,1,T,E]
    return attention(q, k, v, mask=mask, causal=causal)[:, 0]
