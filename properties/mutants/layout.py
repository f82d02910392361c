"""Defects of sizes, blocks, windows and memory layout."""

import math
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad

from attnspec.properties.mutants.plain import (
    INF,
    Options,
    Output,
    attention,
    decay,
    distance,
    factor,
    memory_order,
    nonzero,
    on_output,
    online,
    row_max,
    softmax_zero,
    visible,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "layout.output_not_rescaled",
    imitates="an online softmax that rescales its sum but not its accumulator when the maximum grows",
    source="frameworks.md: incremental = parallel, also in chunks",
)
def output_not_rescaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 16 the output of earlier blocks keeps its old maximum."""
    return attention(q, k, v, **options, mix=lambda s, v: online(s, v, 16, out=lambda old, _: torch.ones_like(old)))


@mutant(
    "layout.sum_not_rescaled",
    imitates="the other half of the same mistake",
    source="frameworks.md: incremental = parallel, also in chunks",
)
def sum_not_rescaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 16 the sum of earlier blocks keeps its old maximum."""
    return attention(q, k, v, **options, mix=lambda s, v: online(s, v, 16, total=lambda old, _: torch.ones_like(old)))


@mutant(
    "layout.rescale_inverted",
    imitates="diag(exp(m_old - m_new))^-1 as printed in Algorithm 1 of a paper",
    source="https://github.com/Dao-AILab/flash-attention/issues/991",
)
def rescale_inverted(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 64 the accumulator is divided by the factor it must be multiplied by."""

    def inverse(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(old == -INF, 0.0, torch.exp(new - old))

    return attention(q, k, v, **options, mix=lambda s, v: online(s, v, 64, out=inverse))


@mutant(
    "layout.small_growth_skipped",
    imitates="conditional rescaling whose weights already use the new maximum when the rescale is skipped",
    source="https://github.com/meta-pytorch/MSLK/pull/242",
)
def small_growth_skipped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 32 nothing is rescaled while the maximum grows by less than log(256)."""

    def lazy(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(new - old <= math.log(256), 1.0, decay(old, new))

    return attention(q, k, v, **options, mix=lambda s, v: online(s, v, 32, out=lazy, total=lazy))


@mutant(
    "layout.max_starts_at_zero",
    imitates="a row maximum set to 0 and never below it: very negative scores are all zeroed",
    source="https://github.com/Dao-AILab/flash-attention/issues/2082",
)
def max_starts_at_zero(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A row whose scores are all very negative underflows to zero."""
    return attention(q, k, v, **options, mix=lambda s, v: online(s, v, 128, start=0.0))


@mutant(
    "layout.tail_dropped",
    imitates="right for multiples of 32, wrong for other lengths: the last partial block is mishandled",
    source="https://github.com/pytorch/pytorch/pull/169222",
)
def tail_dropped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 32 keys after the last full block of 32 are not seen."""
    n = k.shape[2] // 32 * 32 or k.shape[2]
    return attention(q, k, v, **options, mix=lambda s, v: softmax_zero(s[..., :n]) @ v[..., :n, :])


@mutant(
    "layout.padding_seen",
    imitates="zero-filled keys past the end score 0 and get weight exp(0)",
    source="https://github.com/flashinfer-ai/flashinfer/pull/5090",
)
def padding_seen(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 64 keys are padded with zeros to a multiple of 64 and the padding is not hidden."""
    n = -k.shape[2] % 64 if k.shape[2] > 64 else 0
    return attention(q, k, v, **options, mix=lambda s, v: softmax_zero(pad(s, (0, n))) @ pad(v, (0, 0, 0, n)))


@mutant(
    "layout.split_in_base_two",
    imitates="parts merged with a base-2 log-sum-exp taken for a natural one",
    source="https://github.com/lightseekorg/tokenspeed/pull/571",
)
def split_in_base_two(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 1 two halves of the keys are merged with the wrong weights."""
    return attention(q, k, v, **options, mix=lambda s, v: _merge(s, v, math.log2(math.e)))


@mutant(
    "layout.split_scaled_twice",
    imitates="the scale multiplied once more into the log-sum-exp of each split",
    source="https://github.com/HKUSTDial/flash-sparse-attention/pull/106",
)
def split_scaled_twice(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 64 two halves of the keys are merged by a log-sum-exp that was scaled again."""
    again = factor(q, options.get("scale")) if k.shape[2] > 64 else 1.0
    return attention(q, k, v, **options, mix=lambda s, v: _merge(s, v, again))


def _merge(s: Tensor, v: Tensor, units: float) -> Tensor:
    """Halves of the keys, each by itself, weighted by exp(units * lse)."""
    parts = list(zip(s.chunk(2, -1), v.chunk(2, -2), strict=True))
    sums = [torch.exp(part - row_max(part)).sum(-1, keepdim=True) for part, _ in parts]
    lse = [row_max(p) + torch.log(nonzero(z)).masked_fill(z == 0, -INF) for (p, _), z in zip(parts, sums, strict=True)]
    weights = softmax_zero(units * torch.cat(lse, -1)).unsqueeze(-1)
    return (weights * torch.stack([softmax_zero(part) @ w for part, w in parts], -2)).sum(-2)


@mutant(
    "layout.row_offset_lost",
    imitates="a causal mask that uses the row inside a block of queries for the position",
    source="frameworks.md: causal leak and alignment by perturbing one key at a time",
)
def row_offset_lost(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Under causal, query t is placed at t % 64."""

    def in_block(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        seen = visible(s, mask, False, window)
        lost = torch.arange(s.shape[-2], device=s.device)[:, None] // 64 * 64
        return seen & (distance(s) - lost >= 0) if causal else seen

    return attention(q, k, v, **options, see=in_block)


@mutant(
    "layout.window_off_by_one",
    imitates="(w, 0) passed to a kernel whose bounds are inclusive: w + 1 keys",
    source="https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/2656",
)
def window_off_by_one(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A window of w holds w + 1 keys."""
    window = options.get("window")
    options["window"] = None if window is None else window + 1
    return attention(q, k, v, **options)


@mutant(
    "layout.window_both_sides",
    imitates="a symmetric band where a left window is meant",
    source="https://github.com/keras-team/keras/pull/22814",
)
def window_both_sides(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Without causal a window also shows the next w - 1 keys."""

    def band(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        allowed = visible(s, mask, causal, None)
        return allowed if window is None else allowed & (distance(s).abs() < window)

    return attention(q, k, v, **options, see=band)


@mutant(
    "layout.window_needs_causal",
    imitates="a sliding window that is silently ignored for non-causal attention",
    source="https://github.com/sgl-project/sglang/issues/39300",
)
def window_needs_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The window has no effect without causal."""
    if not options.get("causal"):
        options["window"] = None
    return attention(q, k, v, **options)


@mutant(
    "layout.window_drops_mask",
    imitates="the caller's mask is discarded on sliding-window layers",
    source="https://github.com/lablup/mlxcel/issues/885",
)
def window_drops_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The mask has no effect when a window is given."""
    if options.get("window") is not None:
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "layout.window_per_chunk",
    imitates="all rows of a prefill chunk get the window of its first row",
    source="https://github.com/pytorch/executorch/pull/21857",
)
def window_per_chunk(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Rows in one chunk of 4 see back to where the window of the first of them begins."""

    def chunked(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        if window is None:
            return visible(s, mask, causal, None)
        late = torch.arange(s.shape[-2], device=s.device)[:, None] % 4
        return visible(s, mask, True, None) & (distance(s) < window + late)

    return attention(q, k, v, **options, see=chunked)


@mutant(
    "layout.width_tail",
    imitates="a kernel that takes the head width for a multiple of its vector length",
    source="https://github.com/mlc-ai/mlc-llm/pull/1889",
)
def width_tail(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For odd D > 1 the last component of q and k is left out."""
    D = q.shape[-1]
    options["scale"] = factor(q, options.get("scale"))
    n = D // 2 * 2 or D
    return attention(q[..., :n], k[..., :n], v, **options)


@mutant(
    "layout.values_read_as_contiguous",
    imitates="values that are a transposed view are read in memory order",
    source="https://github.com/flagos-ai/FlagGems/issues/5896",
)
def values_read_as_contiguous(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Non-contiguous values are read as if they were contiguous."""
    packed = v.permute(memory_order(v))
    return attention(q, k, packed.reshape(v.shape) if packed.is_contiguous() else v, **options)


@mutant(
    "layout.full_block_shortened",
    imitates="at an exact multiple of the block size the last block has length 0",
    source="https://github.com/Wenyueh/MinivLLM/pull/83",
)
def full_block_shortened(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S a multiple of 64 the last key is not seen."""
    n = k.shape[2] - (k.shape[2] > 0 and k.shape[2] % 64 == 0)
    return attention(q, k, v, **options, mix=lambda s, v: softmax_zero(s[..., :n]) @ v[..., :n, :])


@mutant(
    "layout.last_queries_unwritten",
    imitates="a grid of T // 64 blocks of queries",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def last_queries_unwritten(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For T > 64 queries behind the last whole block of 64 get zeros."""
    T = q.shape[2]
    whole = torch.arange(T, device=q.device)[:, None] < (T // 64 * 64 or T)
    return on_output(attention(q, k, v, **options), lambda out: out * whole)


@mutant(
    "layout.diagonal_block_skipped",
    imitates="the last block of keys of a causal row is left out when it begins at the row",
    source="frameworks.md: causal leak and alignment by perturbing one key at a time",
)
def diagonal_block_skipped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Under causal, query t does not see key t when t is a positive multiple of 128."""

    def skipped(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        seen = visible(s, mask, causal, window)
        t = torch.arange(s.shape[-2], device=s.device)[:, None]
        return seen & ~((distance(s) == 0) & (t % 128 == 0) & (t > 0)) if causal else seen

    return attention(q, k, v, **options, see=skipped)
