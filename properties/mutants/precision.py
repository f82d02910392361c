"""Defects of rounding and of dtypes."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import (
    Options,
    Output,
    attention,
    cap,
    factor,
    nonzero,
    on_all,
    on_output,
    plus,
    row_max,
    softmax_zero,
    swap,
    wide,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "precision.float32_inside",
    imitates="float64 operands cast to float32 before the product, summed in float64",
    source="https://github.com/flagos-ai/FlagGems/issues/2310",
)
def float32_inside(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """float64 inputs are computed in float32."""
    return on_all(attention(q.float(), k.float(), v.float(), **options), lambda x: x.to(q.dtype))


@mutant(
    "precision.bfloat16_softmax",
    imitates="softmax of the scores in bfloat16",
    source="https://github.com/AI-Hypercomputer/maxtext/pull/1225",
)
def bfloat16_softmax(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Scores are rounded to bfloat16 before the softmax."""
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s.bfloat16().to(s.dtype)))


@mutant(
    "precision.float16_weights",
    imitates="attention layers with a hard-coded .half() after the softmax",
    source="https://github.com/Tencent-Hunyuan/HunyuanDiT/pull/247",
)
def float16_weights(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Weights are rounded to float16 before they meet the values."""
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s).half().to(s.dtype))


@mutant(
    "precision.float16_overflow",
    imitates="q·k in half precision is scaled only after it has overflowed",
    source="https://github.com/philipturner/metal-flash-attention/issues/8",
)
def float16_overflow(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For float16 inputs an unscaled product over 65504 is infinite."""
    half = q.dtype == torch.float16

    def late(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        raw = q @ k.mT
        raw = raw.half().float() if half else raw
        return plus(cap(raw * factor(q, scale), softcap), bias)

    return attention(q, k, v, **options, score=late)


# Scores may be stored in the inputs' dtype, unless it is promised that they are not.
float16_overflow.__attnspec__ = {"precision": {"float16": "fused"}}  # type: ignore[attr-defined]


@mutant(
    "precision.tensor_cores",
    imitates="float32 products with a 10-bit mantissa",
    source="frameworks.md: dtype-aware bound at float64",
)
def tensor_cores(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """float32 queries and keys lose 13 bits before their product."""

    def cut(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        return swap(x, (x.detach().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32))

    return attention(cut(q), cut(k), v, **options)


@mutant(
    "precision.float32_sum",
    imitates="the log of the sum kept in float32 whatever the inputs are",
    source="frameworks.md: dtype-aware bound at float64",
)
def float32_sum(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The denominator is rounded to float32."""

    def rounded(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        return e / nonzero(e.sum(-1, keepdim=True)).float().to(s.dtype)

    return attention(q, k, v, **options, softmax=rounded)


@mutant(
    "precision.bfloat16_output",
    imitates="the result passes through the kernel's 16-bit output buffer",
    source="frameworks.md: dtype-aware bound at float64",
)
def bfloat16_output(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The output is rounded to bfloat16 and cast back."""
    return on_output(attention(q, k, v, **options), lambda out: out.bfloat16().to(q.dtype))


@mutant(
    "precision.returns_float32",
    imitates="a bfloat16 input comes back as float32",
    source="https://github.com/facebookresearch/xformers/issues/772",
)
def returns_float32(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The output of 16-bit inputs is float32."""
    return attention(wide(q), wide(k), wide(v), **options)


@mutant(
    "precision.weights_on_a_grid",
    imitates="weights quantised to 8 bits",
    source="frameworks.md: window / softcap = explicit oracle",
)
def weights_on_a_grid(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Weights are multiples of 1/256."""

    def grid(s: Tensor) -> Tensor:
        weights = softmax_zero(s)
        return swap(weights, torch.round(weights * 256) / 256)

    return attention(q, k, v, **options, softmax=grid)


@mutant(
    "precision.tensor_cores_values",
    imitates="the second product with a 10-bit mantissa, the first in full",
    source="frameworks.md: dtype-aware bound at float64",
)
def tensor_cores_values(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """float32 weights and values lose 13 bits before their product."""

    def cut(x: Tensor) -> Tensor:
        return swap(x, (x.detach().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32))

    if q.dtype != torch.float32:
        return attention(q, k, v, **options)
    return attention(q, k, cut(v), **options, softmax=lambda s: cut(softmax_zero(s)))


@mutant(
    "precision.values_in_eight_bits",
    imitates="a cache that keeps values in 8 bits with one scale for all channels of a head",
    source="https://docs.vllm.ai/en/latest/features/quantization/quantized_kvcache.html",
)
def values_in_eight_bits(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Values are multiples of 1/127 of the largest of their head."""
    if not v.numel():
        return attention(q, k, v, **options)
    unit = nonzero(v.detach().abs().amax((-2, -1), keepdim=True) / 127)
    return attention(q, k, swap(v, torch.round(v.detach() / unit) * unit), **options)


@mutant(
    "precision.keys_in_eight_bits",
    imitates="keys quantised to 8 bits between the smallest and the largest number of each",
    source="arXiv:2402.02750",
)
def keys_in_eight_bits(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The numbers of a key are one of 256, from its smallest to its largest."""
    if not k.numel():
        return attention(q, k, v, **options)
    low, high = k.detach().amin(-1, keepdim=True), k.detach().amax(-1, keepdim=True)
    unit = nonzero((high - low) / 255)
    return attention(q, swap(k, torch.round((k.detach() - low) / unit) * unit + low), v, **options)
