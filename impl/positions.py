"""Where tokens stand, and what that means: vectors to add, angles to turn by, distances to pay for, keys to see."""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig


class Sight(NamedTuple):
    """What each query sees of the keys: arguments of `attention`."""

    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False


class Turn(NamedTuple):
    """Cosines and sines of rotary positions, [T,W/2] or [B,1,T,W/2], and which channels are pairs."""

    cos: Tensor
    sin: Tensor
    pairs: str


def token_positions(real: Tensor) -> Tensor:
    """Numbers the real tokens of each sequence, so that padding on any side changes no position.

        position[b, t] = max(n[b, t] - 1, 0),  n[b, t] = number of real tokens among 0..t     (1)

    Shapes:  real [B,T] -> [B,T].
    Units:   positions start at 0; padding has that of the real token before it, or 0.
    Empty:   no tokens, no positions.
    Errors:  none.
    Source:  docs/notation.md, arrays.
    Differs: the papers have no padding; there position = t.
    """
    return (real.cumsum(dim=1) - 1).clamp(min=0)


def angles(places: Tensor, W: int, base: float) -> Tensor:
    """Angles by which positions turn pairs of channels.

        out[..., i] = places[...] base^(-2 i / W),  i = 0 .. W/2 - 1                     (1)

    Shapes:  places [...] -> [...,W/2] in float64.
    Units:   radians. In float32 an angle of 10^5 would be off by 2^-8; the cosine is rounded once, when it is used.
    Empty:   no positions, no angles.
    Errors:  none.
    Source:  arXiv:1706.03762 sec. 3.5; arXiv:2104.09864 eq. 15.
    Differs: n/a.
    """
    i = torch.arange(W // 2, dtype=torch.float64, device=places.device)
    return places.double()[..., None] * base ** (-2 * i / W)


def sinusoidal(places: Tensor, M: int) -> Tensor:
    """Writes each position as the phases of clock hands of many speeds.

        out[..., 2 i] = sin(a[i]),  out[..., 2 i + 1] = cos(a[i]),  a = angles(places, M, 10000)     (1)

    Shapes:  places [...] -> [...,M] in float64.
    Units:   positions count tokens from 0.
    Empty:   no positions give no rows.
    Errors:  none; M is even.
    Source:  arXiv:1706.03762 sec. 3.5.
    Differs: n/a.
    """
    a = angles(places, M, 10000.0)
    return torch.stack([a.sin(), a.cos()], dim=-1).flatten(-2)


def turn_by(places: Tensor, config: TransformerConfig, dtype: torch.dtype) -> Turn | None:
    """The rotation of queries and keys at these positions, computed once for all layers.

        cos, sin of angles(places, rotary_width, rotary_base), or nothing                (1)

    Shapes:  places [T] or [B,T] -> [T,W/2] or [B,1,T,W/2].
    Units:   as in angles, then rounded to dtype.
    Empty:   None unless positions are rotary.
    Errors:  none.
    Source:  arXiv:2104.09864 eq. 34.
    Differs: n/a.
    """
    if config.positions != "rotary":
        return None
    W = config.channels if config.rotary_width is None else config.rotary_width
    a = angles(places, W, config.rotary_base)
    a = a if a.ndim == 2 else a[:, None]
    return Turn(a.cos().to(dtype), a.sin().to(dtype), config.rotary_pairs)


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turns each pair of channels by its position's angle, so that scores depend on distances only.

        (out[a], out[b]) = (x[a] cos - x[b] sin, x[b] cos + x[a] sin)                    (1)
        pair i is (a, b) = (i, i + W/2) (half) or (2 i, 2 i + 1) (interleaved)           (2)

    Shapes:  x [B,H,T,D], queries or keys -> the same shape.
    Units:   those of x; the channels from W on are left alone.
    Empty:   T may be zero.
    Errors:  none.
    Source:  arXiv:2104.09864 eq. 34.
    Differs: the paper numbers pairs from 1; half is the layout of later code, a permutation of channels.
    """
    W = 2 * turn.cos.shape[-1]
    x, rest = x[..., :W], x[..., W:]
    half = turn.pairs == "half"
    first, second = x.chunk(2, dim=-1) if half else (x[..., 0::2], x[..., 1::2])
    turned = first * turn.cos - second * turn.sin, second * turn.cos + first * turn.sin
    out = torch.cat(turned, dim=-1) if half else torch.stack(turned, dim=-1).flatten(-2)
    out = out.to(x.dtype)  # under autocast x is narrower than the angles
    return torch.cat([out, rest], dim=-1) if rest.shape[-1] else out


def alibi_slopes(H: int) -> list[float]:
    """Gives each head its own penalty for a distance of one.

        slope[h] = 2^(-8 (h + 1) / n),  h = 0 .. n-1,  n the largest power of two up to H     (1)
        and then each second slope of 2 n heads: 2^(-8 (2 j + 1) / 2n),  j = 0 .. H-n-1  (2)

    Shapes:  -> [H].
    Units:   natural-log weights for one position of distance.
    Empty:   n/a.
    Errors:  none.
    Source:  arXiv:2108.12409 sec. 3 for (1); (2) is get_slopes of the code published with the paper.
    Differs: the paper numbers heads from 1, and has no (2).
    """
    n = 1 << int(math.log2(H))
    return [2.0 ** (-8 * (h + 1) / n) for h in range(n)] + [2.0 ** (-8 * (2 * j + 1) / (2 * n)) for j in range(H - n)]


def sight(visible: Tensor, distance: Tensor, config: TransformerConfig, dtype: torch.dtype) -> Sight:
    """Says what queries see, given what they may see and how far it is: once for all layers.

        mask = visible and |distance| < window if given                                  (1)
        bias[h] = -slope[h] |distance| where mask, else -inf, with ALiBi                 (2)

    Shapes:  visible, distance broadcast to [B|1,H|1,T,S] -> a mask of that shape, or a bias [B|1,H,T,S].
    Units:   distance counts real tokens, on both sides.
    Empty:   a query that sees nothing has an empty row.
    Errors:  none.
    Source:  arXiv:2310.06825 sec. 2 (window); arXiv:2108.12409 sec. 3 (ALiBi).
    Differs: ALiBi's paper has causal attention only.
    """
    distance = distance.abs()
    if config.window is not None:
        visible = visible & (distance < config.window)
    if config.positions != "alibi":
        return Sight(mask=visible)
    fine = torch.promote_types(dtype, torch.float32)  # bfloat16 does not even hold the distances
    slopes = torch.tensor(alibi_slopes(config.heads), dtype=fine, device=distance.device)[:, None, None]
    return Sight(bias=torch.where(visible, (-slopes * distance).to(dtype), -torch.inf))


def sight_of_sequence(
    T: int, real: Tensor | None, mask: Tensor | None, causal: bool, config: TransformerConfig, like: Tensor
) -> Sight:
    """What the tokens of a whole sequence see of it.

        visible[b, h, t, s] = real[b, s] and mask[b, h, t, s] and s <= t if causal       (1)

    Shapes:  real [B,T]  mask broadcasts to [B,H,T,T].
    Units:   distances are those of token_positions; without padding, window and ALiBi the flag causal says it all.
    Empty:   T may be zero.
    Errors:  none.
    Source:  arXiv:1706.03762 sec. 3.2.3.
    Differs: the paper has no padding.
    """
    if config.window is None and config.positions != "alibi" and real is None:
        return Sight(mask=mask, causal=causal)
    index = torch.arange(T, device=like.device)
    visible = index <= index[:, None] if causal else index >= 0
    p = index
    if real is not None:
        visible, p = visible & real[:, None, None, :], token_positions(real)[:, None]
    visible = visible if mask is None else visible & mask
    return sight(visible, p[..., None, :] - p[..., None], config, like.dtype)


def sight_of_slots(token: Tensor, seen: Tensor, config: TransformerConfig, like: Tensor) -> Sight:
    """What tokens see of a cache, given which real token of its row each slot holds.

        visible[b, t, s] = 0 <= token[b, s] < seen[b, t],  distance = token[b, s] - max(seen[b, t] - 1, 0)     (1)

    Shapes:  token [B|1,S]  seen [B|1,T] -> a mask [B|1,1,T,S], or a bias [B|1,H,T,S].
    Units:   seen counts the real tokens up to the query, itself included; a slot that holds none has a negative token.
    Empty:   a query before the first real token sees nothing.
    Errors:  none.
    Source:  as in sight_of_sequence, of which these are the last rows.
    Differs: n/a.
    """
    token, seen = token[:, None, None, :], seen[:, None, :, None]
    return sight((token >= 0) & (token < seen), token - (seen - 1).clamp(min=0), config, like.dtype)


def sight_by_age(slots: int, config: TransformerConfig, like: Tensor) -> Tensor:
    """What one token sees of a ring, wherever in the ring it stands: computed once for all steps.

        bias[h, j] = that of the token that is (slots - 1 - j) mod slots back: 0 or ALiBi's in the window, else -inf     (1)
        the token in slot p sees slot s by bias[h, s + slots - 1 - p]                    (2)

    Shapes:  -> [1,H|1,1,2 slots - 1], of which a step reads a slice.
    Units:   each slot that (2) is asked about holds a token.
    Empty:   n/a.
    Errors:  none.
    Source:  as in sight_of_sequence.
    Differs: n/a.
    """
    age = (slots - 1 - torch.arange(2 * slots - 1, device=like.device)) % slots
    seen = sight((age >= 0)[None, None, None], age, config, like.dtype)
    if seen.mask is None:
        return cast(Tensor, seen.bias)
    return torch.zeros(seen.mask.shape, dtype=like.dtype, device=like.device).masked_fill(~seen.mask, -torch.inf)
