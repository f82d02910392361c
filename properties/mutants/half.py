"""Defects that only 16-bit inputs show: overflow, lost bits, and kernels of their own for float16 and bfloat16."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import (
    Options,
    Output,
    attention,
    cap,
    factor,
    hide,
    log_sum_exp,
    nonzero,
    on_all,
    plus,
    repeat_heads,
    row_max,
    score,
    softmax_zero,
    swap,
    visible,
)
from attnspec.properties.mutants.registry import mutant


def narrow(q: Tensor) -> bool:
    """Whether q has 16 bits."""
    return q.dtype in (torch.float16, torch.bfloat16)


def flushed(s: Tensor) -> Tensor:
    """Softmax whose subnormal float16 weights are zero."""
    weights = softmax_zero(s)
    return weights.masked_fill(weights < 2.0**-14, 0.0)


@mutant(
    "half.scores_overflow",
    imitates="scaled scores between 65504 and 1e6 stored in float16",
    source="https://github.com/NVIDIA/TensorRT-LLM/pull/18044",
)
def scores_overflow(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For float16 inputs a score over 65504 is infinite."""

    def stored(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = score(q, k, scale, softcap, bias)
        return s.half().float() if is_float16 else s

    is_float16 = q.dtype == torch.float16
    return attention(q, k, v, **options, score=stored)


# Scores may be stored in the inputs' dtype, unless it is promised that they are not.
scores_overflow.__attnspec__ = {"precision": {"float16": "fused"}}  # type: ignore[attr-defined]


@mutant(
    "half.sum_overflows",
    imitates="values summed in a float16 accumulator before the division",
    source="https://github.com/thu-ml/SageAttention/issues/93",
)
def sum_overflows(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For float16 inputs the unnormalised sum of values overflows over 65504."""

    def summed(s: Tensor, v: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        return (e @ v).half().float() / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, mix=summed if q.dtype == torch.float16 else None)


# Sums may be stored in the inputs' dtype, unless it is promised that they are not.
sum_overflows.__attnspec__ = {"precision": {"float16": "fused"}}  # type: ignore[attr-defined]


@mutant(
    "half.small_weights_flushed",
    imitates="subnormal weights flushed to zero",
    source="frameworks.md: float16 with scores in (65504, 1e6)",
)
def small_weights_flushed(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For float16 inputs weights under 2^-14 are zero."""
    return attention(q, k, v, **options, softmax=flushed if q.dtype == torch.float16 else softmax_zero)


@mutant(
    "half.exp_overflows",
    imitates="softmax in float16 without the row maximum",
    source="frameworks.md: float16 with scores in (65504, 1e6)",
)
def exp_overflows(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For float16 inputs exp of a score over 11 is infinite."""

    def raw(s: Tensor) -> Tensor:
        e = torch.exp(s).half().float()
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=raw if q.dtype == torch.float16 else softmax_zero)


@mutant(
    "half.values_added_one_by_one",
    imitates="softmax times V accumulated over the keys in bfloat16 stalls at 256 equal terms",
    source="https://github.com/Xilinx/mlir-air/pull/1606",
)
def values_added_one_by_one(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """In 16 bits the weighted values are added one key at a time in the dtype of q."""

    def one_by_one(s: Tensor, v: Tensor) -> Tensor:
        weights = softmax_zero(s)
        total = torch.zeros_like(weights[..., :1] * v[..., :1, :]).to(q.dtype)
        for i in range(v.shape[-2]):
            total = total + (weights[..., i : i + 1] * v[..., i : i + 1, :]).to(q.dtype)
        return total.float()

    return attention(q, k, v, **options, mix=one_by_one if narrow(q) and k.shape[2] else None)


@mutant(
    "half.denominator_one_by_one",
    imitates="the running sum of the softmax kept in 16 bits, one key at a time",
    source="https://github.com/Intel-tensorflow/tensorflow/pull/23",
)
def denominator_one_by_one(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """In 16 bits the denominator is added one key at a time in the dtype of q."""

    def slowly(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s)).to(q.dtype)
        total = torch.zeros_like(e[..., :1])
        for i in range(e.shape[-1]):
            total = total + e[..., i : i + 1]
        return e.float() / nonzero(total.float())

    return attention(q, k, v, **options, softmax=slowly if narrow(q) and k.shape[2] else softmax_zero)


@mutant(
    "half.softmax_in_eight_bits",
    imitates="the softmax of bfloat16 inputs with a rough exponential, not visible to a correlation",
    source="https://github.com/tenstorrent/tt-metal/issues/51927",
)
def softmax_in_eight_bits(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For bfloat16 inputs every unnormalised weight but the largest is 3 % too small."""

    def rough(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        e = torch.where(e == 1, e, 0.97 * e)
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=rough if q.dtype == torch.bfloat16 else softmax_zero)


# Code that stores scores and weights in bfloat16 is off by as much.
softmax_in_eight_bits.__attnspec__ = {"precision": {"bfloat16": "fused"}}  # type: ignore[attr-defined]


@mutant(
    "half.bfloat16_as_float16",
    imitates="bfloat16 handed to a kernel that knows float16",
    source="frameworks.md: no overflow when the float64 oracle is finite (float16, scores over 65504)",
)
def bfloat16_as_float16(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A bfloat16 number over 65504 is infinite."""
    if q.dtype != torch.bfloat16:
        return attention(q, k, v, **options)
    result = attention(q.half(), k.half(), v.half(), **options)
    return on_all(result, lambda x: x.bfloat16() if x.dtype == torch.float16 else x)


@mutant(
    "half.float16_as_bfloat16",
    imitates="float16 handed to a kernel that knows bfloat16",
    source="frameworks.md: dtype-aware bound at float64",
)
def float16_as_bfloat16(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """float16 inputs lose three bits."""
    if q.dtype != torch.float16:
        return attention(q, k, v, **options)
    result = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), **options)
    return on_all(result, lambda x: x.half() if x.dtype == torch.bfloat16 else x)


@mutant(
    "half.later_rows_not_causal",
    imitates="a 16-bit tile holds 16 queries and only the first tile is masked",
    source="frameworks.md: causal leak and alignment by perturbing one key at a time",
)
def later_rows_not_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """In 16 bits causal has no effect on query 16 and later ones."""

    def first_tile(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        later = torch.arange(s.shape[-2], device=s.device)[:, None] >= 16
        return visible(s, mask, causal, window) | (later & visible(s, mask, False, window))

    return attention(q, k, v, **options, see=first_tile if narrow(q) else visible)


@mutant(
    "half.tail_of_eight",
    imitates="vector loads of 8 numbers of 16 bits",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def tail_of_eight(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For bfloat16 and S > 8 keys behind the last multiple of 8 are not seen."""
    n = k.shape[2] // 8 * 8 or k.shape[2]
    short = q.dtype == torch.bfloat16
    return attention(q, k, v, **options, hide=lambda s, ok: hide(s, ok & (torch.arange(s.shape[-1]) < n) if short else ok))


@mutant(
    "half.fill_is_finite",
    imitates="-1e4 for a mask because float16 has no larger number to spare",
    source="https://github.com/huggingface/transformers/pull/17306",
)
def fill_is_finite(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """In 16 bits a hidden score is -10000."""
    return attention(q, k, v, **options, hide=lambda s, ok: s.masked_fill(~ok, -1e4) if narrow(q) else hide(s, ok))


@mutant(
    "half.heads_tiled",
    imitates="a 16-bit kernel with a head order of its own",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1)",
)
def heads_tiled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For bfloat16 and 1 < G < H query head h reads key/value head h % G."""

    def tiled(x: Tensor, H: int) -> Tensor:
        return x.repeat(1, H // x.shape[1], 1, 1)

    return attention(q, k, v, **options, repeat=tiled if q.dtype == torch.bfloat16 else repeat_heads)


@mutant(
    "half.gradient_without_scale",
    imitates="the scale lost in the backward pass of one dtype",
    source="frameworks.md: grad mode x eval mode",
)
def gradient_without_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For bfloat16 the gradient of a score does not contain the scale."""

    def unscaled(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        raw = q @ k.mT
        return plus(cap(swap(raw, raw * factor(q, scale)), softcap), bias)

    return attention(q, k, v, **options, score=unscaled if q.dtype == torch.bfloat16 else score)


@mutant(
    "half.lse_in_sixteen_bits",
    imitates="the log-sum-exp passes through a format of few digits",
    source="frameworks.md: adapter table, weights (return_residual)",
)
def lse_in_sixteen_bits(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For 16-bit inputs the log-sum-exp has two significant digits."""

    def coarse(s: Tensor, sinks: Tensor | None) -> Tensor:
        x = log_sum_exp(s, sinks)
        return torch.where(x.isinf(), x, torch.round(x * 4) / 4) if narrow(q) else x

    return attention(q, k, v, **options, lse=coarse)
