"""Defects of the head axis and of grouped heads."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention, on_output
from attnspec.properties.mutants.registry import mutant


@mutant(
    "heads.tiled",
    imitates="Tile in place of repeat-interleave: heads 0 1 0 1 for 0 0 1 1",
    source="https://github.com/onnx/onnx/pull/7274",
)
def tiled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Query head h reads key/value head h % G."""
    return attention(q, k, v, **options, repeat=lambda x, H: x.repeat(1, H // x.shape[1], 1, 1))


@mutant(
    "heads.values_tiled",
    imitates="keys and values repeated by two different rules",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1)",
)
def values_tiled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Values are tiled, keys are not."""
    return attention(q, k, v.repeat(1, q.shape[1] // v.shape[1], 1, 1), **options)


@mutant(
    "heads.index_clamped",
    imitates="wrong heads when 1 < key_value_heads < attention_heads",
    source="https://github.com/EricLBuehler/candle-vllm/pull/52",
)
def index_clamped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Query head h reads key/value head min(h, G-1)."""
    return attention(q, k, v, **options, repeat=lambda x, H: x[:, torch.arange(H, device=x.device).clamp(max=x.shape[1] - 1)])


@mutant(
    "heads.sequence_repeated",
    imitates="repeat_kv on the sequence axis of another layout: the shape fits, the heads do not",
    source="https://github.com/ByteDance-Seed/VeOmni/pull/162",
)
def sequence_repeated(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For G < H the positions are repeated and then cut into heads."""

    def along_positions(x: Tensor, H: int) -> Tensor:
        B, G, S, width = x.shape
        return x.repeat_interleave(H // G, dim=2).reshape(B, H, S, width)

    return attention(q, k, v, **options, repeat=along_positions)


@mutant(
    "heads.merged_without_transpose",
    imitates="a missing permute before the reshape that merges the heads",
    source="https://github.com/jsbaan/transformer-from-scratch/pull/6",
)
def merged_without_transpose(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The output is read as [B,T,H,E] while it lies in memory as [B,H,T,E]."""
    B, H, T, _ = q.shape
    return on_output(attention(q, k, v, **options), lambda out: out.reshape(B, T, H, v.shape[-1]).transpose(1, 2))


@mutant(
    "heads.split_without_transpose",
    imitates="view(B * H, -1, D) on [B,T,H*D]: a head gets pieces of other positions",
    source="https://github.com/649453932/Chinese-Text-Classification-Pytorch/issues/53",
)
def split_without_transpose(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Queries in memory order [B,T,H,D] are read as [B,H,T,D]."""
    return attention(q.transpose(1, 2).reshape(q.shape), k, v, **options)


@mutant(
    "heads.leak",
    imitates="heads that are not computed apart",
    source="frameworks.md: option or path equivalence",
)
def leak(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A thousandth of the next head is mixed into each head."""
    return on_output(attention(q, k, v, **options), lambda out: out + 1e-3 * (out.roll(-1, dims=1) - out))


@mutant(
    "heads.mask_by_group",
    imitates="query heads folded into groups and the mask's head axis indexed by the folded heads",
    source="https://github.com/HKUSTDial/flash-sparse-attention/pull/190",
)
def mask_by_group(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For G < H all heads of a group use the mask of the first of them."""
    mask, H, G = options.get("mask"), q.shape[1], k.shape[1]
    if mask is not None and mask.ndim >= 3 and mask.shape[-3] == H:
        options["mask"] = mask[..., torch.arange(H, device=mask.device) // (H // G) * (H // G), :, :]
    return attention(q, k, v, **options)


@mutant(
    "heads.bias_first_head",
    imitates="one head's bias broadcast to all heads",
    source="frameworks.md: masks of every broadcast rank",
)
def bias_first_head(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every head uses the bias of head 0."""
    bias = options.get("bias")
    if bias is not None and bias.ndim >= 3:
        options["bias"] = bias[..., :1, :, :]
    return attention(q, k, v, **options)


@mutant(
    "heads.mask_first_head",
    imitates="a kernel without a head stride for the mask",
    source="frameworks.md: masks of every broadcast rank",
)
def mask_first_head(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every head uses the mask of head 0."""
    mask = options.get("mask")
    if mask is not None and mask.ndim >= 3:
        options["mask"] = mask[..., :1, :, :]
    return attention(q, k, v, **options)


@mutant(
    "heads.bias_by_group",
    imitates="query heads folded into groups and the bias indexed by the group",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1)",
)
def bias_by_group(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For G < H all heads of a group use the bias of the first of them."""
    bias, H, G = options.get("bias"), q.shape[1], k.shape[1]
    if bias is not None and bias.ndim >= 3 and bias.shape[-3] == H:
        options["bias"] = bias[..., torch.arange(H, device=bias.device) // (H // G) * (H // G), :, :]
    return attention(q, k, v, **options)


@mutant(
    "heads.grouped_drops_mask",
    imitates="the kernel of grouped heads takes no mask",
    source="frameworks.md: two flags at a time (grouped x mask)",
)
def grouped_drops_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For G < H the mask has no effect."""
    if k.shape[1] < q.shape[1]:
        options["mask"] = None
    return attention(q, k, v, **options)
