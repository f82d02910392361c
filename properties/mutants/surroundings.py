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
