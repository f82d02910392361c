"""Defects at axes of length zero, and inputs that do not fit and are taken all the same."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention, on_output
from attnspec.properties.mutants.registry import mutant


@mutant(
    "shapes.no_keys_is_garbage",
    imitates="a loop over blocks of keys that never runs leaves the output buffer unwritten",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def no_keys_is_garbage(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Ones where there is no key."""
    return on_output(attention(q, k, v, **options), torch.ones_like if k.shape[2] == 0 else lambda out: out)


@mutant(
    "shapes.shortest_wins",
    imitates="a loop over the shorter of keys and values",
    source="claims.md: RB2, wrong shapes raise",
)
def shortest_wins(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys and values are cut to the shorter of the two, and so is the mask."""
    S = min(k.shape[2], v.shape[2])
    return attention(q, k[:, :, :S], v[:, :, :S], **options)


@mutant(
    "shapes.mask_cut_to_fit",
    imitates="mask[..., :S] of a mask that is made once for the longest input",
    source="claims.md: RB2, wrong shapes raise",
)
def mask_cut_to_fit(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask that is too long is cut."""
    if (mask := options.get("mask")) is not None and mask.shape[-1] > k.shape[2]:
        options["mask"] = mask[..., : k.shape[2]]
    return attention(q, k, v, **options)


@mutant(
    "shapes.bits_of_narrow_keys_are_integers",
    imitates="a kernel is handed a pointer to another type than it was compiled for",
    source="claims.md: RB2, wrong dtypes raise",
)
def bits_of_narrow_keys_are_integers(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The bits of keys in another dtype than the queries are read as integers."""
    if k.dtype != q.dtype:
        k, v = k.view(torch.int16).to(q.dtype), v.to(q.dtype)
    return attention(q, k, v, **options)


@mutant(
    "shapes.narrow_values_lose_their_fractions",
    imitates="an implicit conversion through an integer type",
    source="claims.md: RB2, wrong dtypes raise",
)
def narrow_values_lose_their_fractions(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Values in another dtype than the queries are cut to whole numbers."""
    if v.dtype != q.dtype:
        k, v = k.to(q.dtype), v.trunc().to(q.dtype)
    return attention(q, k, v, **options)


@mutant(
    "shapes.sixteen_bit_positions",
    imitates="positions of keys kept in sixteen bits",
    source="claims.md: RB4, long n",
)
def sixteen_bit_positions(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The key after the 65536th is the first one again."""
    at = torch.arange(k.shape[2], device=k.device) % (1 << 16)
    return attention(q, k[:, :, at], v[:, :, at], **options)
