"""Three ways to compute attention, and the rule that picks one: SDPA, explicit products, flex attention."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attnspec.impl.errors import require

PATHS = ("sdpa", "explicit", "flex")

# The rule of docs/attention-paths.md. Figures are times of SDPA over those of explicit products, for a batch of 8, 8 heads of
# width 64, one thread (benchmarks/attention_paths.py; torch 2.13, AVX-512 with bfloat16, no AMX):
#   - bfloat16 on a CPU. Training: SDPA's backward is slow: 2 to 4 at T = S = 32 and 64, 2.5 to 3.5 at 128, 1.3 to 1.4 at 512,
#     a tie at 1024. Inference: 1.1 to 1.8 up to 256, then a tie or less; 2 to 4 for one query, as SDPA repacks all keys and
#     values at each call, but below one for the few scores of a single row. With AMX, measured elsewhere, the fused forward
#     wins instead (1.3 to 2.3), and the training figures are the same: so only the rule of inference asks for AMX.
#   - float32, float64, float16: SDPA is as fast or faster (explicit: 0.2 to 1.2), for what its fused kernel takes.
#   - What that kernel does not take on a CPU (E != D, dropout, a bias with gradients) it computes by products of its own,
#     which are no faster than ours: 1.0 to 2.7.
#   - Elsewhere nothing was measured: SDPA, except softcap, for which it has no place.
_capabilities: Any = getattr(torch.cpu, "get_capabilities", None)
FAST_HALF = _capabilities is not None and bool(_capabilities().get("amx_bf16"))


def chosen_path(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, softcap: float | None = None, dropout: float = 0.0
) -> str:
    """Picks the path that is fastest for these arguments.

        explicit if softcap; else SDPA unless on a CPU;  there explicit if E != D, dropout or a bias with gradients,     (1)
        or in bfloat16: with gradients if T S <= 512^2,                                  (2)
        without if T S <= 256^2 and B H T S >= 2048, unless the CPU has AMX and T > 1;  else SDPA     (3)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E] -> a word of PATHS.
    Units:   n/a.
    Empty:   as for other sizes.
    Errors:  none.
    Source:  docs/attention-paths.md.
    Differs: n/a.
    """
    if softcap is not None:
        return "explicit"
    if q.device.type != "cpu":
        return "sdpa"
    (B, H, T, D), S = q.shape, k.shape[2]
    trains = torch.is_grad_enabled()
    if v.shape[3] != D or dropout or (bias is not None and trains and bias.requires_grad):
        return "explicit"
    if q.dtype != torch.bfloat16:
        return "sdpa"
    if trains and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "explicit" if T * S <= 512 * 512 else "sdpa"
    faster = T * S <= 256 * 256 and B * H * T * S >= 2048 and (T == 1 or not FAST_HALF)
    return "explicit" if faster else "sdpa"


def check_path(path: str | None, q: Tensor, softcap: float | None, dropout: float) -> None:
    """Refuses a path that cannot compute what is asked of it.

        path in PATHS or None;  sdpa takes no softcap;  flex takes no dropout and no CPU     (1)

    Shapes:  n/a.
    Units:   dropout is a share of the weights.
    Empty:   n/a.
    Errors:  ValueError unless (1) holds.
    Source:  torch.nn.attention.flex_attention refuses gradients on a CPU, and float64.
    Differs: n/a.
    """
    require(path is None or path in PATHS, f"it is one of {', '.join(PATHS)}, None; choose one", path=path)
    require(0 <= dropout < 1, "it is a share of weights below one; use 0.1, or 0.0 for none", dropout=dropout)
    if path == "sdpa":
        require(softcap is None, "SDPA has no place for a cap; use path=None or explicit", path=path, softcap=softcap)
    if path == "flex":
        require(dropout == 0, "flex attention drops no weights; use path=None or explicit", path=path, dropout=dropout)
        fits = q.device.type == "cuda" and q.dtype != torch.float64
        rule = "flex attention is compiled for CUDA in up to 32 bits; use path=None or explicit"
        require(fits, rule, path=path, device=q.device.type, dtype=q.dtype)


def one_mask(
    q: Tensor, S: int, mask: Tensor | None, bias: Tensor | None, causal: bool, window: int | None
) -> Tensor | None:  # fmt: skip
    """Joins all that hides or biases to one boolean or additive mask, or none.

        out[t, s] = bias[t, s] if mask[t, s] and s <= p and s > p - window, else -inf;  p = t + S - T     (1)

    Shapes:  q [B,H,T,D]  mask, bias broadcast to [B,H,T,S] -> what broadcasts to it: boolean without a bias.
    Units:   a bias is added to scores; under autocast q is narrower than a learned bias, which takes its dtype.
    Empty:   None if nothing hides or biases.
    Errors:  none.
    Source:  docs/notation.md, causal alignment and window.
    Differs: n/a.
    """
    T = q.shape[2]
    if causal or window is not None:
        position, key = torch.arange(S - T, S, device=q.device)[:, None], torch.arange(S, device=q.device)
        near = key <= position if window is None else (key <= position) & (key > position - window)
        mask = near if mask is None else mask & near
    if bias is None:
        return mask
    bias = bias.to(q.dtype)
    return bias if mask is None else torch.where(mask, bias, -torch.inf)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, dropout: float) -> Tensor:
    """Leaves all to PyTorch's fused kernel, where there is one.

        out = softmax(scale q k^T + mask) v                                              (1)

    One mask, boolean or additive with -inf, gives zeros in empty rows, forward and backward, in flash and in math. The
    flag causal is for T = S alone, as its alignment is top-left, and for a positive scale: torch 2.13's CPU kernel hides
    keys first and scales afterwards, so that scale = 0 gives NaN and scale < 0 shows what it must hide.

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  v [B,G,S,E]  mask broadcasts to [B,H,T,S] -> [B,H,T,E].
    Units:   as in attention.
    Empty:   as in attention.
    Errors:  none.
    Source:  torch.nn.functional.scaled_dot_product_attention.
    Differs: n/a.
    """
    if mask is not None and mask.ndim < 2:
        mask = mask.expand(q.shape[2], k.shape[2])  # SDPA refuses masks of rank 0 and 1
    return functional.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=k.shape[1] < q.shape[1]
    )


def explicit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, dropout: float,
    complete: bool,
) -> Tensor:  # fmt: skip
    """Computes all scores, then all weights, then the means.

        weights = dropped(softmax(score)),  out = weights v                              (1)

    Shapes:  as in sdpa; the heads of a group share one product, so that keys and values are not repeated.
    Units:   as in attention; in 16 bits the softmax works in float32 and weights are rounded.
    Empty:   as in attention.
    Errors:  none.
    Source:  arXiv:1706.03762 eq. 1; arXiv:1207.0580 for dropout, scaled in training instead of afterwards.
    Differs: n/a.
    """
    weights, empty = weights_of(q, k, mask, scale, softcap, complete)
    if dropout:
        weights = functional.dropout(weights, dropout)
    B, G, S, E = v.shape
    grouped = weights.view(B * G, q.shape[1] // G * q.shape[2], S)
    out = torch.bmm(grouped, v.reshape(B * G, S, E)).view(*q.shape[:3], E)
    return out if empty is None else out.masked_fill_(empty, 0.0)


def weights_of(
    q: Tensor, k: Tensor, mask: Tensor | None, scale: float, softcap: float | None, complete: bool
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Takes the softmax of the scores, and tells which rows mean nothing.

        score = cap(scale q k^T) + mask,  weights = softmax(score);  cap as in attention     (1)

    Shapes:  q [B,H,T,D]  k [B,G,S,D]  mask broadcasts to [B,H,T,S] -> weights [B,H,T,S], empty [..,T|1,1] or None.
    Units:   a boolean mask is 0 where it is True, else -inf.
    Empty:   empty rows have weights as if nothing were hidden: of -inf alone the softmax is NaN, and so is its gradient.
             complete says that there is none.
    Errors:  none.
    Source:  as in attention.
    Differs: n/a.
    """
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    empty = None
    if mask is not None:
        shown = mask if mask.dtype == torch.bool else mask != -torch.inf
        empty = None if complete else ~shown.any(dim=-1, keepdim=True)
        if mask is shown:
            mask = torch.where(shown if empty is None else shown | empty, 0.0, -torch.inf).to(q.dtype)
        elif empty is not None:
            mask = mask.masked_fill(empty, 0.0)
    # baddbmm scales and adds before it rounds. Where nothing is to be added it gets a zero: torch 2.13 reads what beta=0
    # should ignore, so that memory with NaN would spread, and leaves the result unwritten where alpha is 0 as well (bfloat16
    # on CPU).
    start, beta = q.new_zeros(1, 1, 1), int(scale == 0)
    if mask is not None and softcap is None:
        start, beta = mask.expand(B, H, T, S).reshape(B * G, H // G * T, S), 1
    rows, columns = q.reshape(B * G, H // G * T, D), k.reshape(B * G, S, D).mT
    score = torch.baddbmm(start, rows, columns, beta=beta, alpha=scale).view(B, H, T, S)
    if softcap is not None:
        score = torch.tanh(score / softcap)
        score = softcap * score if mask is None else torch.add(mask, score, alpha=softcap)
    return torch.softmax(score, dim=-1), empty


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    """Lets PyTorch compile a fused kernel with the cap and the mask inside.

        out = softmax(cap(scale q k^T) + mask) v                                         (1)

    Shapes:  as in sdpa.
    Units:   as in attention.
    Empty:   as in attention.
    Errors:  none; check_path has refused what it does not take.
    Source:  arXiv:2412.05496; torch.nn.attention.flex_attention.
    Differs: n/a.
    """
    (B, H, T, _), S = q.shape, k.shape[2]
    if T * S == 0:
        return explicit(q, k, v, mask, scale, softcap, 0.0, complete=False)
    full = None if mask is None else mask.expand(B, H, T, S)

    def changed(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if full is None:
            return score
        return torch.where(full[b, h, t, s], score, -torch.inf) if full.dtype == torch.bool else score + full[b, h, t, s]

    out: Tensor = compiled_flex()(q, k, v, score_mod=changed, scale=scale, enable_gqa=k.shape[1] < H)
    return out


@cache
def compiled_flex() -> Callable[..., Any]:
    """Compiles flex attention, when it is first asked for.

        out(q, k, v, ...) = flex_attention(q, k, v, ...)                                 (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   n/a.
    Errors:  ImportError for a PyTorch without it.
    Source:  torch.nn.attention.flex_attention: without a compiler it computes all scores, and is no faster than explicit.
    Differs: n/a.
    """
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled
