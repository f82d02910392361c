"""A cache of keys and values for decoding: memory allocated once, written in place."""

import torch
from torch import Tensor

from attnspec.impl.errors import require


class KeyValueCache:
    """The keys and values of all positions so far.

        k_all[:, :, s], v_all[:, :, s] = the s-th appended key and value, s < length        (1)

    Shapes:  keys [B,G,max_length,D]  values [B,G,max_length,E]; append k [B,G,T,D], v [B,G,T,E] -> views
             [B,G,length,D], [B,G,length,E] of that memory.
    Units:   lengths count positions; E defaults to D; dtype and device are those of like, else torch's defaults.
    Empty:   memory beyond length is never shown, whatever it holds; T = 0 appends nothing.
    Errors:  ValueError, with the cache unchanged: overflow, other sizes or dtypes, k or v that need a gradient.
    Source:  arXiv:1911.02150 sec. 2.4.
    """

    def __init__(self, B: int, G: int, max_length: int, D: int, E: int | None = None, *, like: Tensor | None = None) -> None:
        E = D if E is None else E
        rule = "every size of a cache is 1 or more; use a positive number"
        require(min(B, G, max_length, D, E) >= 1, rule, B=B, G=G, max_length=max_length, D=D, E=E)
        like = torch.empty(0) if like is None else like
        self.keys = like.new_empty(B, G, max_length, D)
        self.values = like.new_empty(B, G, max_length, E)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the next positions; returns views of all so far, valid until reset (class docstring)."""
        T = k.shape[2] if k.ndim == 4 else 0
        for name, x, memory in (("k", k, self.keys), ("v", v, self.values)):
            want = torch.Size((*memory.shape[:2], T, memory.shape[3]))
            rule = "sizes are those of the cache, T the same for k and v; build the cache with the layer's B, G, D and E"
            require(x.shape == want, rule, **{name: x.shape}, cache=want)
            require(x.dtype == memory.dtype, "dtypes agree; build the cache like=k", **{name: x.dtype}, cache=memory.dtype)
            rule = "memory written in place has no gradient; decode under torch.no_grad(), train without a cache"
            require(not x.requires_grad, rule, **{f"{name}.requires_grad": x.requires_grad})
        end, max_length = self.length + T, self.keys.shape[2]
        rule = "length + T must stay within max_length; call reset() or build a longer cache"
        require(end <= max_length, rule, length=self.length, T=T, max_length=max_length)
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reset(self) -> None:
        """Forgets every position; the next append overwrites the memory, and with it earlier views."""
        self.length = 0
