"""Defects that show only in other surroundings of a call, or in what it leaves behind."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention
from attnspec.properties.mutants.registry import mutant


@mutant(
    "surroundings.default_dtype",
    imitates="a factor made by torch.tensor without a dtype, rounded as the default dtype says",
    source="frameworks.md: option or path equivalence (grad mode)",
)
def default_dtype(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Positions counted in the default dtype; where that is float64, half of the queries are scaled twice."""
    if torch.get_default_dtype() is torch.float64:
        q = q * torch.arange(1, 1 + q.shape[2], device=q.device).clamp(max=2).to(q.dtype)[:, None]
    return attention(q, k, v, **options)


@mutant(
    "surroundings.reseeds",
    imitates="torch.manual_seed called inside a layer, so that everything after it repeats",
    source="frameworks.md: RNG state irrelevant in eval",
)
def reseeds(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Seeds the global generator at every call."""
    torch.manual_seed(0)
    return attention(q, k, v, **options)


@mutant(
    "surroundings.autocast_to_eight_bits",
    imitates="values kept in float8 wherever autocast is on",
    source="claims.md: RB5, autocast",
)
def autocast_to_eight_bits(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Values have four significant bits under autocast."""
    if torch.is_autocast_enabled("cpu"):
        v = v.to(torch.float8_e4m3fn).to(v.dtype)
    return attention(q, k, v, **options)


@mutant(
    "surroundings.autocast_forgets_the_scale",
    imitates="a second path for autocast, to which the factor of the scores is not handed on",
    source="claims.md: RB5, autocast",
)
def autocast_forgets_the_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Scores are not scaled under autocast."""
    if torch.is_autocast_enabled("cpu"):
        options["scale"] = 1.0
    return attention(q, k, v, **options)
