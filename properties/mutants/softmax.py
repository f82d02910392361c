"""Defects of the softmax."""

import math
from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import INF, Options, Output, attention, nonzero, row_max, softmax_zero
from attnspec.properties.mutants.registry import mutant


@mutant(
    "softmax.over_queries",
    imitates="softmax(dim=...) along the query axis of a [.., query, key] matrix",
    source="https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146",
)
def over_queries(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Normalises each column over the queries."""
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s.mT).mT)


@mutant(
    "softmax.over_heads",
    imitates="weights.flatten(2) before softmax: all heads of a query share one distribution",
    source="https://github.com/facebookresearch/detr/issues/247",
)
def over_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Normalises heads and keys together."""

    def joint(s: Tensor) -> Tensor:
        rows = s.transpose(1, 2)
        return softmax_zero(rows.flatten(2)).reshape(rows.shape).transpose(1, 2)

    return attention(q, k, v, **options, softmax=joint)


@mutant(
    "softmax.over_batch",
    imitates="nn.Softmax(dim=0) normalises over the batch",
    source="https://github.com/PetrochukM/PyTorch-NLP/issues/2",
)
def over_batch(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Normalises over the batch axis."""
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s.movedim(0, -1)).movedim(-1, 0))


@mutant(
    "softmax.no_max",
    imitates="exp(x) / sum(exp(x)) in a shader overflows for scores over 88",
    source="https://github.com/pytorch/executorch/pull/18407",
)
def no_max(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Exponentials without subtracting the row maximum."""
    return attention(q, k, v, **options, softmax=lambda s: torch.exp(s) / nonzero(torch.exp(s).sum(-1, keepdim=True)))


@mutant(
    "softmax.global_max",
    imitates="the fix proposed for an overflow, np.exp(x - np.max(x)), takes one maximum for the whole array",
    source="https://github.com/NVIDIA/FasterTransformer/issues/43",
)
def global_max(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Subtracts the maximum of all rows: rows far below it underflow to zero."""

    def shifted(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s).amax())
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=shifted)


@mutant(
    "softmax.max_floor",
    imitates="a floor of -1e4 under the row maximum and of 1e-6 under the sum, put there against NaN in empty rows",
    source="https://github.com/tracel-ai/burn/pull/4697",
)
def max_floor(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A row whose scores are all far below -10000 becomes zero."""

    def floored(s: Tensor) -> Tensor:
        e = torch.exp(s - s.detach().amax(-1, keepdim=True).clamp(min=-1e4))
        return e / e.sum(-1, keepdim=True).clamp(min=1e-6)

    return attention(q, k, v, **options, softmax=floored)


@mutant(
    "softmax.epsilon",
    imitates="1e-6 added to the sum against division by zero",
    source="frameworks.md: dtype-aware bound at float64",
)
def epsilon(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Rows of weights sum to a little less than one."""

    def damped(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        return e / (e.sum(-1, keepdim=True) + 1e-6)

    return attention(q, k, v, **options, softmax=damped)


@mutant(
    "softmax.plus_one",
    imitates="exp(x - max) / (1 + sum(exp(x - max))): a sink whose weight depends on the shift",
    source="https://github.com/kyegomez/AttentionIsOFFByOne/issues/5",
)
def plus_one(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """One is added to the shifted denominator."""

    def sink(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        return e / (e.sum(-1, keepdim=True) + 1)

    return attention(q, k, v, **options, softmax=sink)


@mutant(
    "softmax.exp_linear",
    imitates="2^x by a straight line on the fraction of x, 3 % off and not cancelled by the division",
    source="https://github.com/openvinotoolkit/openvino/pull/37857",
)
def exp_linear(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The exponential is piecewise linear between powers of two."""

    def rough(s: Tensor) -> Tensor:
        x = ((s - row_max(s)) * math.log2(math.e)).clamp(min=-1000.0)
        n = torch.floor(x.detach())
        e = torch.exp2(n) * (1 + (x - n))
        e = e.masked_fill(s == -INF, 0.0)
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=rough)


@mutant(
    "softmax.clamped",
    imitates="attention scores clamped before softmax so that they do not overflow (there at 50000)",
    source="https://github.com/IDEA-Research/GroundingDINO/issues/352",
)
def clamped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Scores beyond ±50 are cut off."""
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(torch.where(s == -INF, s, s.clamp(-50.0, 50.0))))


@mutant(
    "softmax.drops_small",
    imitates="values whose weight is negligible are skipped and the rest is not renormalised (there below 1e-6)",
    source="https://github.com/TheTom/llama-cpp-turboquant/pull/98",
)
def drops_small(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Weights under 1e-4 are replaced by zero."""

    def sparse(s: Tensor) -> Tensor:
        weights = softmax_zero(s)
        return weights.masked_fill(weights < 1e-4, 0.0)

    return attention(q, k, v, **options, softmax=sparse)


@mutant(
    "softmax.skips_far_keys",
    imitates="keys whose score lies 6 (in base 2) below the running maximum are skipped",
    source="https://github.com/moonmath-ai/LiteAttention/issues/19",
)
def skips_far_keys(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys under 1/64 of the largest weight are left out and the rest is renormalised."""
    far = 6 * math.log(2)
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s.masked_fill(s.detach() < row_max(s) - far, -INF)))


@mutant(
    "softmax.hides_nan",
    imitates="nan_to_num on the weights turns a broken input into a plausible zero",
    source="https://github.com/microsoft/unilm/issues/1642",
)
def hides_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A NaN in q or k gives zeros."""
    return attention(q, k, v, **options, softmax=lambda s: torch.nan_to_num(softmax_zero(s)))


@mutant(
    "softmax.max_of_hidden",
    imitates="the row maximum taken before the mask",
    source="frameworks.md: masked-content / padding invariance",
)
def max_of_hidden(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The shift is the largest score of all keys, hidden ones included: rows far below underflow to zero."""
    top: list[Tensor] = []

    def remembered(s: Tensor, allowed: Tensor) -> Tensor:
        top.append(row_max(s))
        return s.masked_fill(~allowed, -INF)

    def shifted(s: Tensor) -> Tensor:
        e = torch.exp(s - top[-1])
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, hide=remembered, softmax=shifted)


@mutant(
    "softmax.exp_cubic",
    imitates="2^x by a cubic polynomial on the fraction of x, 1e-4 off",
    source="https://github.com/mlc-ai/TIRx-kernels/pull/210",
)
def exp_cubic(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The exponential has 13 good bits."""

    def rough(s: Tensor) -> Tensor:
        x = ((s - row_max(s)) * math.log2(math.e)).clamp(min=-1000.0)
        n = torch.floor(x.detach())
        f = x - n
        e = torch.exp2(n) * (1 + f * (0.695122 + f * (0.227640 + f * 0.077119)))
        e = e.masked_fill(s == -INF, 0.0)
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=rough)
