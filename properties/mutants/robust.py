"""Defects of behaviour around the numbers: exceptions, refusals and conventions that are not what was promised."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants import plain
from attnspec.properties.mutants.plain import Options, Output, on_output
from attnspec.properties.mutants.registry import mutant


@mutant(
    "robust.raises_on_large_scores",
    imitates="an internal assertion about the range of scores reaches the caller",
    source="frameworks.md: float16 with scores in (65504, 1e6)",
)
def raises_on_large_scores(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Raises where a score is large, though the answer is finite."""
    if q.numel() and k.numel() and float(q.abs().max() * k.abs().max()) > 64:
        raise FloatingPointError("scores out of range")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.index_error_for_one_query",
    imitates="a branch for one query indexes an axis that is not there",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def index_error_for_one_query(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """IndexError for a single query."""
    if q.shape[2] == 1:
        q = q[:, :, 1:2].select(2, 1)
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.refuses_odd_lengths",
    imitates="a kernel that asks for a multiple of its block where others do not",
    source="frameworks.md: window not dividing L",
)
def refuses_odd_lengths(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Clear error, but only for some numbers of keys."""
    if k.shape[2] % 2 and k.shape[2] > 8:
        raise ValueError(f"S={k.shape[2]}: this kernel needs an even number of keys")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.refuses_boolean_mask",
    imitates="a boolean mask is documented and refused",
    source="frameworks.md: bool = additive = expanded (broadcast) mask",
)
def refuses_boolean_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Only additive masks work."""
    if options.get("mask") is not None:
        raise TypeError("mask must be a float tensor")
    return plain.attention(q, k, v, **options)


@mutant(
    "robust.positions_before_heads",
    imitates="arrays are read in layout bthd though bhtd is documented",
    source="frameworks.md: adapter table, layout",
)
def positions_before_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Attends over heads instead of positions."""
    result = plain.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **options)
    return on_output(result, lambda out: out.transpose(1, 2))


@mutant(
    "robust.true_means_hidden",
    imitates="a boolean mask is read with the other polarity than documented",
    source="frameworks.md: adapter table, polarity A and M",
)
def true_means_hidden(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
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
def returns_float64(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The output is float64 whatever the inputs are."""
    return on_output(plain.attention(q, k, v, **options), lambda out: out.to(torch.float64))


@mutant(
    "robust.nan_reaches_all",
    imitates="a sum over all rows multiplied by zero",
    source="frameworks.md: masked-content / padding invariance",
)
def nan_reaches_all(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A NaN in one row of the output spreads to its head."""
    return on_output(plain.attention(q, k, v, **options), lambda out: out + 0 * out.sum(2, keepdim=True).clamp(-1.0, 1.0))


@mutant(
    "robust.hides_nan_values",
    imitates="nan_to_num on the output",
    source="https://github.com/microsoft/unilm/issues/1642",
)
def hides_nan_values(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A NaN among the values gives zeros."""
    return on_output(plain.attention(q, k, v, **options), lambda out: out.masked_fill(out.isnan(), 0.0))


@mutant(
    "robust.cuts_longer_values",
    imitates="lengths of keys and values that disagree are cut to the shorter",
    source="frameworks.md: adapter table, layout",
)
def cuts_longer_values(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """More values than keys are accepted, the rest is ignored."""
    return plain.attention(q, k, v[:, :, : k.shape[2]], **options)


@mutant(
    "robust.cuts_wider_keys",
    imitates="widths of queries and keys that disagree are cut to the narrower",
    source="frameworks.md: adapter table, layout",
)
def cuts_wider_keys(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys wider than queries are accepted, the rest is ignored."""
    return plain.attention(q, k[..., : q.shape[-1]], v, **options)


@mutant(
    "robust.uneven_groups",
    imitates="H / G rounded up",
    source="frameworks.md: adapter table, layout",
)
def uneven_groups(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """H that G does not divide is accepted, and the heads are cut to H."""

    def uneven(x: Tensor, H: int) -> Tensor:
        return x.repeat_interleave(-(-H // x.shape[1]), dim=1)[:, :H]

    return plain.attention(q, k, v, **options, repeat=uneven)


@mutant(
    "robust.zero_keys_nan",
    imitates="a loop over keys that is never entered leaves 0/0",
    source="https://github.com/Dao-AILab/flash-attention/pull/2568",
)
def zero_keys_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Without keys the output is NaN."""
    result = plain.attention(q, k, v, **options)
    return on_output(result, lambda out: out + float("nan")) if k.shape[2] == 0 else result
