"""Attention in PyTorch: one function, computed on one of three paths, and the layer around it."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from attnspec.impl.attention_paths import check_path, chosen_path, explicit, flex, one_mask, sdpa, weights_of
from attnspec.impl.errors import require
from attnspec.impl.kv_cache import KeyValueCache

__all__ = ["KeyValueCache", "MultiHeadAttention", "attention", "attention_weights"]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    path: str | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Weights each value by the softmax of its scaled score.

        score[t, s] = softcap * tanh(scale * q[t]·k[s] / softcap) + bias[t, s]        (1)
        out[t] = sum_s softmax_s(score[t, s]) v[s] over the keys that t may see       (2)

    Query t has position p = t+S-T (bottom-right): causal shows it keys 0..p, window keys p-window+1..p. For training, dropout
    sets this share of the weights to zero, and divides the others by 1 - dropout. The path is how all this is computed:
    sdpa, explicit or flex; None leaves it to the rule of docs/attention-paths.md. Paths differ by rounding.

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  mask, bias broadcast to [B,H,T,S] -> [B,H,T,E]
    Units:   scores are natural-log weights; scale defaults to 1/sqrt(D); mask True = may attend; bias -inf hides a key.
    Empty:   a row with no visible key is exactly zero and sends back zero gradients, also for T > S and S = 0.
    Errors:  ValueError for sizes, dtypes, options or a path that do not fit. NaN, infinity and a q·k beyond the dtype's range
             spread even from hidden keys; smaller content of hidden keys changes nothing.
    Source:  arXiv:1706.03762 eq. 1; arXiv:2305.13245 sec. 2 (G < H); arXiv:2310.06825 sec. 2 (window);
             arXiv:2408.00118 sec. 2 (softcap).
    Differs: the papers have no empty rows and no T != S under causal; the first writes d_k for D.
    """
    _check_arrays(q, k, v, mask, bias)
    _check_options(scale, window, softcap)
    check_path(path, q, softcap, dropout)
    (T, D), S = q.shape[2:], k.shape[2]
    scale = D**-0.5 if scale is None else scale
    if window is not None and window >= S:  # it reaches the first key from every position
        causal, window = True, None
    if T == 1:  # decoding: the only query has the last position, nothing is ahead of it
        causal = False
    path = chosen_path(q, k, v, bias, softcap, dropout) if path is None else path
    given = mask is not None or bias is not None
    causal_only = causal and window is None and not given
    if path == "sdpa" and causal_only and T == S and scale > 2.0**-100:  # float32 keeps this above zero
        return sdpa(q, k, v, None, True, scale, dropout)
    mask = one_mask(q, S, mask, bias, causal, window)
    if path == "sdpa":
        return sdpa(q, k, v, mask, False, scale, dropout)
    if path == "flex":
        return flex(q, k, v, mask, scale, softcap)
    return explicit(q, k, v, mask, scale, softcap, dropout, complete=T <= S and not given)


attention.__attnspec__ = {  # type: ignore[attr-defined]
    "alignment": "bottom-right",
    "window": "left",
    "empty_row": "zero",
    "polarity": "attend",
    "grouped": True,
    "layout": "bhtd",
    "arrays": "torch",
}


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Takes the softmax of each query's scores: what `attention` weights the values by, and does not return.

        weights[t] = softmax_s(score[t, s]) over the keys that t may see, score as in attention     (1)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  mask, bias broadcast to [B,H,T,S] -> [B,H,T,S].
    Units:   shares: a row sums to one; options are those of attention.
    Empty:   a row with no visible key is exactly zero.
    Errors:  those of attention.
    Source:  arXiv:1706.03762 eq. 1.
    Differs: the paper has no empty rows.
    """
    _check_arrays(q, k, k, mask, bias)
    _check_options(scale, window, softcap)
    mask = one_mask(q, k.shape[2], mask, bias, causal, window)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    weights, empty = weights_of(q, k, mask, scale, softcap, complete=False)
    return weights if empty is None else weights.masked_fill(empty, 0.0)


def _check_options(scale: float | None, window: int | None, softcap: float | None) -> None:
    require(scale is None or math.isfinite(scale), "the scale must be finite; use None for 1/sqrt(D)", scale=scale)
    require(window is None or window >= 1, "a window holds the current key; use 1 or more, or None", window=window)
    require(softcap is None or 0 < softcap < math.inf, "a cap is positive and finite; use None for none", softcap=softcap)


def _check_arrays(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> None:
    got = {"q": q.shape, "k": k.shape, "v": v.shape}
    require(q.ndim == k.ndim == v.ndim == 4, "four axes each; reshape to q [B,H,T,D], k [B,G,S,D], v [B,G,S,E]", **got)
    require(k.shape[:3] == v.shape[:3], "k and v must agree in B, G and S; give every key one value", **got)
    require(q.shape[0] == k.shape[0], "q and k must agree in B; expand the smaller batch", **got)
    require(q.shape[3] == k.shape[3] > 0, "q and k must agree in D, at least 1; project both to one width", **got)
    divides = k.shape[1] > 0 and q.shape[1] % k.shape[1] == 0
    require(divides, "H must be a multiple of G; choose G among the divisors of H", **got)
    full = torch.Size((*q.shape[:3], k.shape[2]))
    for name, x in (("mask", mask), ("bias", bias)):
        if x is not None:
            kind = x.dtype == torch.bool if name == "mask" else x.is_floating_point()
            require(kind, "a mask is boolean, a bias floating; pass it as the other argument", **{name: x.dtype})
            fits = x.ndim <= 4 and all(n in (1, size) for n, size in zip(x.shape[::-1], full[::-1], strict=False))
            require(fits, "it must broadcast to scores [B,H,T,S]; insert axes of size 1", **{name: x.shape}, scores=full)


class MultiHeadAttention(nn.Module):
    """Projects to heads, attends in each, and projects the concatenation back.

        out = concat_h(attention(q(x), k(y), v(y))[h]) projected by o,  y = memory if given, else x        (1)

    Shapes:  x [B,T,M]  memory [B,S,M]  mask, bias broadcast to [B,heads,T,S] -> [B,T,M]; weights [out,in]
    Units:   D = E = M / heads; options as in `attention`; with a cache S counts all of its positions.
    Empty:   a query with no visible key gets o.bias, or zero without one.
    Errors:  ValueError for options or sizes that do not fit, and for memory together with a cache.
    Source:  arXiv:1706.03762 sec. 3.2.2; arXiv:2305.13245 sec. 2 (kv_heads < heads).
    Differs: the paper's projections have no bias vectors; bias=False leaves them out.
    """

    def __init__(
        self,
        M: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        bias: bool = True,
        causal: bool = False,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        G = heads if kv_heads is None else kv_heads
        require(min(M, heads, G) >= 1, "sizes are 1 or more; use positive numbers", M=M, heads=heads, kv_heads=G)
        require(M % heads == 0, "M must be a multiple of heads; choose heads among its divisors", M=M, heads=heads)
        require(heads % G == 0, "heads must be a multiple of kv_heads; choose a divisor of heads", heads=heads, kv_heads=G)
        _check_options(scale, window, softcap)
        self.M, self.D = M, M // heads
        self.attend = partial(attention, causal=causal, scale=scale, window=window, softcap=softcap)
        self.q = nn.Linear(M, M, bias)
        self.k = nn.Linear(M, G * self.D, bias)
        self.v = nn.Linear(M, G * self.D, bias)
        self.o = nn.Linear(M, M, bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attends from x to memory, else to the positions in the cache and in x (class docstring)."""
        y = x if memory is None else memory
        fits = x.ndim == y.ndim == 3 and x.shape[2] == y.shape[2] == self.M
        require(fits, "x is [B,T,M] and memory [B,S,M]; project both to M", x=x.shape, memory=y.shape, M=self.M)
        q, k, v = (p(z).unflatten(2, (-1, self.D)).transpose(1, 2) for p, z in ((self.q, x), (self.k, y), (self.v, y)))
        if cache is not None:
            require(memory is None, "a cache takes the positions of x; leave out memory or cache", memory=y.shape)
            k, v = cache.append(k, v)
        out: Tensor = self.o(self.attend(q, k, v, mask=mask, bias=bias).transpose(1, 2).flatten(2))
        return out
