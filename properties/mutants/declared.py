"""Functions that are right in themselves and not what they declare."""

from typing import Unpack

from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention
from attnspec.properties.mutants.registry import mutant


@mutant(
    "declared.scale_of_another_width",
    imitates="the documentation names the scale of a model that the code no longer has",
    source="frameworks.md: keras layers.Attention, use_scale",
)
def scale_of_another_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Declares that scores are not scaled, and scales them by 1/sqrt(D)."""
    return attention(q, k, v, **options)


scale_of_another_width.__attnspec__ = {"scale": 1.0}  # type: ignore[attr-defined]


@mutant(
    "declared.always_causal",
    imitates="a decoder's attention that relies on its caller for the causal mask",
    source="frameworks.md: linen.dot_product_attention has no causal flag",
)
def always_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Declares that it is always causal, and never is."""
    options["causal"] = False
    return attention(q, k, v, **options)


always_causal.__attnspec__ = {"causal": "always"}  # type: ignore[attr-defined]
