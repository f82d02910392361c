"""Defects that let samples of one batch meet."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention, nonzero, on_output, row_max, visible
from attnspec.properties.mutants.registry import mutant


@mutant(
    "batch.leak",
    imitates="the same sample gives 0.4709 alone and 0.4703 in a batch of two",
    source="https://github.com/yxlu-0102/MP-SENet/issues/64",
)
def leak(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A thousandth of the next sample is mixed into each sample."""
    return on_output(attention(q, k, v, **options), lambda out: out + 1e-3 * (out.roll(-1, dims=0) - out))


@mutant(
    "batch.keys_of_first",
    imitates="a key pointer without a batch stride",
    source="frameworks.md: batch neighbour perturbation",
)
def keys_of_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every sample uses the keys of sample 0."""
    return attention(q, k[:1].expand(k.shape), v, **options)


@mutant(
    "batch.shared_max",
    imitates="a maximum taken over too many axes; a sample ten times larger silences the others",
    source="frameworks.md: other sample in the batch made 10 times larger",
)
def shared_max(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The row maximum is shared by the samples of a batch."""

    def shifted(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s).amax(0, keepdim=True))
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=shifted)


@mutant(
    "batch.causal_in_first",
    imitates="a causal mask filled for one sample and shaped for all of them",
    source="https://github.com/huggingface/candle/issues/3582",
)
def causal_in_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal holds in sample 0 only."""

    def first(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        later = torch.arange(s.shape[0], device=s.device)[:, None, None, None] > 0
        return visible(s, mask, causal, window) | (later & visible(s, mask, False, window))

    return attention(q, k, v, **options, see=first)


@mutant(
    "batch.bias_of_first",
    imitates="a bias pointer that does not support several samples",
    source="https://github.com/hpcaitech/FastFold/pull/152",
)
def bias_of_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every sample uses the bias of sample 0."""
    bias = options.get("bias")
    if bias is not None and bias.ndim == 4:
        options["bias"] = bias[:1]
    return attention(q, k, v, **options)


@mutant(
    "batch.mask_of_first",
    imitates="all mask values returned for the first element of the batch",
    source="https://github.com/lucidrains/alphafold3-pytorch/issues/158",
)
def mask_of_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every sample uses the mask of sample 0."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 4:
        options["mask"] = mask[:1]
    return attention(q, k, v, **options)


@mutant(
    "batch.mask_swapped_with_heads",
    imitates="mask.repeat(H, 1, 1) where a [B*H,T,S] mask needs repeat_interleave",
    source="https://github.com/ArrowLuo/CLIP4Clip/issues/22",
)
def mask_swapped_with_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The mask's batch and head axes are laid out in the wrong order."""
    mask = options.get("mask")
    if mask is not None:
        shape = (*q.shape[:3], k.shape[2])
        options["mask"] = mask.expand(shape).transpose(0, 1).reshape(shape)
    return attention(q, k, v, **options)


@mutant(
    "batch.all_empty_is_unmasked",
    imitates="a mask that hides everything is taken for no mask",
    source="frameworks.md: an empty row for one sample only AND for the whole batch",
)
def all_empty_is_unmasked(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask without a single True is dropped."""
    mask = options.get("mask")
    if mask is not None and not mask.any():
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "batch.window_in_first",
    imitates="window bounds worked out for sample 0 only",
    source="frameworks.md: batch neighbour perturbation",
)
def window_in_first(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A window holds in sample 0 only; elsewhere it is causal."""

    def first(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        if window is None:
            return visible(s, mask, causal, None)
        later = torch.arange(s.shape[0], device=s.device)[:, None, None, None] > 0
        return visible(s, mask, causal, window) | (later & visible(s, mask, True, None))

    return attention(q, k, v, **options, see=first)


@mutant(
    "batch.equal_to_heads",
    imitates="samples and heads exchanged by a reshape that fits when there are as many of both",
    source="frameworks.md: masks of every broadcast rank (B = H)",
)
def equal_to_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For B == H > 1 the bias of rank 4 has its first two axes exchanged."""
    bias = options.get("bias")
    if bias is not None and bias.ndim == 4 and q.shape[0] == q.shape[1]:
        options["bias"] = bias.transpose(0, 1)
    return attention(q, k, v, **options)
