"""Defects of behaviour around the numbers: exceptions, refusals and conventions that are not what was promised."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants import plain
from attnspec.properties.mutants.plain import Options
from attnspec.properties.mutants.registry import mutant


@mutant(
    "robust.raises_on_large_scores",
    imitates="an internal assertion about the range of scores reaches the caller",
    source="frameworks.md: float16 with scores in (65504, 1e6)",
)
def raises_on_large_scores(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """Raises where a score is large, though the answer is finite."""
    if q.numel() and k.numel() and float(q.abs().max() * k.abs().max()) > 64:
        raise FloatingPointError("scores out of range")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.index_error_for_one_query",
    imitates="a branch for one query indexes an axis that is not there",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def index_error_for_one_query(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """IndexError for a single query."""
    if q.shape[2] == 1:
        q = q[:, :, 1:2].select(2, 1)
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.refuses_odd_lengths",
    imitates="a kernel that asks for a multiple of its block where others do not",
    source="frameworks.md: window not dividing L",
)
def refuses_odd_lengths(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """Clear error, but only for some numbers of keys."""
    if k.shape[2] % 2 and k.shape[2] > 8:
        raise ValueError(f"S={k.shape[2]}: this kernel needs an even number of keys")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.refuses_boolean_mask",
    imitates="a boolean mask is documented and refused",
    source="frameworks.md: bool = additive = expanded (broadcast) mask",
)
def refuses_boolean_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """Only additive masks work."""
    if options.get("mask") is not None:
        raise TypeError("mask must be a float tensor")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.positions_before_heads",
    imitates="arrays are read in layout bthd though bhtd is documented",
    source="frameworks.md: adapter table, layout",
)
def positions_before_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """Attends over heads instead of positions."""
    return plain.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options).transpose(1, 2)


@mutant(
    "robust.true_means_hidden",
    imitates="a boolean mask is read with the other polarity than documented",
    source="frameworks.md: adapter table, polarity A and M",
)
def true_means_hidden(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """True hides a key."""
    mask = options.get("mask")
    if mask is not None:
        options["mask"] = ~mask
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.returns_float64",
    imitates="a float64 scalar inside promotes the output",
    source="frameworks.md: dtype-aware bound at float64",
)
def returns_float64(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Tensor:
    """The output is float64 whatever the inputs are."""
    return plain.attention(q, k, v, **options).to(torch.float64)
