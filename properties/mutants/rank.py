"""Defects of masks of unusual shape: ranks that are read in another way, axes of length 1."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention
from attnspec.properties.mutants.registry import mutant


def rank(mask: Tensor | None) -> int:
    """The number of axes, or -1 without a mask."""
    return -1 if mask is None else mask.ndim


@mutant(
    "rank.three_is_batch",
    imitates="a mask [.,T,S] read as one mask per sample where it is one per head",
    source="frameworks.md: masks of every broadcast rank",
)
def three_is_batch(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For B == H the first axis of a mask of rank 3 is taken for the batch."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 3 and mask.shape[0] == q.shape[0] == q.shape[1]:
        options["mask"] = mask[:, None]
    return attention(q, k, v, **options)


@mutant(
    "rank.two_is_padding",
    imitates="a mask [T,S] read as a padding mask [B,S]",
    source="frameworks.md: masks of every broadcast rank",
)
def two_is_padding(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For B == T a mask of rank 2 is taken for [B,S]."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 2 and mask.shape[0] == q.shape[0] == q.shape[2]:
        options["mask"] = mask[:, None, None]
    return attention(q, k, v, **options)


@mutant(
    "rank.square_transposed",
    imitates="a mask [S,T] fits where T = S",
    source="frameworks.md: masks of every broadcast rank",
)
def square_transposed(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For T == S a mask of rank 2 is transposed."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 2 and mask.shape[0] == mask.shape[1]:
        options["mask"] = mask.T
    return attention(q, k, v, **options)


@mutant(
    "rank.one_is_ignored",
    imitates="a mask of rank 1 is taken for a flag",
    source="frameworks.md: masks of every broadcast rank",
)
def one_is_ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask of rank 1 has no effect."""
    if rank(options.get("mask")) == 1:
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "rank.single_row_ignored",
    imitates="a mask without batch, head and query axes is taken for a placeholder",
    source="frameworks.md: masks of every broadcast rank",
)
def single_row_ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask [1,1,1,S] has no effect."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 4 and mask.shape[:3] == (1, 1, 1):
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "rank.key_axis_not_broadcast",
    imitates="a mask of length 1 along the keys is not broadcast",
    source="https://github.com/llvm/torch-mlir/pull/4464",
)
def key_axis_not_broadcast(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask whose last axis has length 1 holds for key 0 only."""
    mask, S = options.get("mask"), k.shape[2]
    if mask is not None and mask.ndim and mask.shape[-1] == 1:
        options["mask"] = mask | (torch.arange(S, device=mask.device) > 0)
    return attention(q, k, v, **options)


@mutant(
    "rank.heads_of_one_row",
    imitates="a mask [B,H,1,S] taken for a padding mask, which is the same for all heads",
    source="frameworks.md: masks of every broadcast rank",
)
def heads_of_one_row(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Of a mask without a query axis every head uses that of head 0."""
    mask = options.get("mask")
    if mask is not None and mask.ndim == 4 and mask.shape[2] == 1:
        options["mask"] = mask[:, :1]
    return attention(q, k, v, **options)


@mutant(
    "rank.bias_needs_four",
    imitates="a bias of another rank than 4 is dropped",
    source="frameworks.md: masks of every broadcast rank",
)
def bias_needs_four(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A bias of rank 2 or 3 has no effect."""
    if rank(options.get("bias")) in (2, 3):
        options["bias"] = None
    return attention(q, k, v, **options)
