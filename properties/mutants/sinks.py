"""Defects of attention sinks: a logit of each head that enters the denominator alone."""

import math
from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import (
    Options,
    Output,
    attention,
    cap,
    factor,
    on_output,
    share,
    share_beside,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "sinks.ignored",
    imitates="the backend takes the sink in **kwargs and drops it",
    source="https://github.com/vllm-project/vllm/pull/52156",
)
def ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The sinks have no effect."""
    options["sinks"] = None
    return attention(q, k, v, **options)


@mutant(
    "sinks.once_per_key",
    imitates="the sink added inside the loop over keys",
    source="frameworks.md: adapter table, softcap / window (sinks=)",
)
def once_per_key(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The sink counts S times."""
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, sinks + math.log(max(1, s.shape[-1]))))


@mutant(
    "sinks.once_per_block",
    imitates="a split adds the sink although another one did so already",
    source="https://github.com/ROCm/rocm-libraries/pull/12229",
)
def once_per_block(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 32 the sink counts once for each block of 32 keys."""
    blocks = max(1, -(-k.shape[2] // 32))
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, sinks + math.log(blocks)))


@mutant(
    "sinks.scaled",
    imitates="the logit is seeded at the scale of the scores",
    source="https://github.com/ROCm/rocm-libraries/pull/12229",
)
def scaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The sink is multiplied by the scale."""
    a = factor(q, options.get("scale"))
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, sinks * a))


@mutant(
    "sinks.capped",
    imitates="the sink is seeded under the soft cap",
    source="https://github.com/ROCm/rocm-libraries/pull/12229",
)
def capped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The soft cap is applied to the sink too."""
    softcap = options.get("softcap")
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, cap(sinks, softcap)))


@mutant(
    "sinks.negated",
    imitates="the sign of the logit is wrong",
    source="frameworks.md: adapter table, softcap / window (sinks=)",
)
def negated(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The sink is subtracted."""
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, -sinks))


@mutant(
    "sinks.by_group",
    imitates="the sink read at the index of the key/value head",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1)",
)
def by_group(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For G < H all heads of a group have the sink of the group number."""
    n = q.shape[1] // k.shape[1]
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, sinks[torch.arange(len(sinks)) // n]))


@mutant(
    "sinks.unshifted",
    imitates="exp(sink - max) rewritten as exp(sink) / exp(max)",
    source="frameworks.md: float16 with scores in (65504, 1e6)",
)
def unshifted(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With sinks, a score over 88 in float32 and 709 in float64 gives NaN."""

    def raw(s: Tensor, sinks: Tensor) -> Tensor:
        total = torch.exp(s).sum(-1, keepdim=True)
        return total / (total + torch.exp(sinks.to(s.dtype))[:, None, None])

    return attention(q, k, v, **options, share=raw)


@mutant(
    "sinks.lost_for_one_query",
    imitates="one of several paths does not apply the sink",
    source="https://github.com/modular/modular/pull/6591",
)
def lost_for_one_query(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For T == 1 the sinks have no effect."""
    if q.shape[2] == 1:
        options["sinks"] = None
    return attention(q, k, v, **options)


@mutant(
    "sinks.not_in_the_weights",
    imitates="the sink enters the output and not the weights that are returned",
    source="frameworks.md: option or path equivalence (need_weights)",
)
def not_in_the_weights(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights returned are those without sinks."""
    result = attention(q, k, v, **options)
    if not isinstance(result, tuple) or not options.get("need_weights"):
        return result
    options["sinks"] = None
    return (result[0], attention(q, k, v, **options)[1], *result[2:])


@mutant(
    "sinks.constant_backward",
    imitates="the backward pass takes the normaliser without the sink",
    source="frameworks.md: grad mode x eval mode",
)
def constant_backward(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For the gradient, the share of the sink is a constant."""
    return attention(q, k, v, **options, share=lambda s, sinks: share(s, sinks).detach())


@mutant(
    "sinks.mixed_in",
    imitates="the column of the sink is not dropped but falls on the last value",
    source="frameworks.md: adapter table, softcap / window (sinks=)",
)
def mixed_in(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """What the sink takes is given to the value of the last key."""
    part: list[Tensor] = []

    def remembered(s: Tensor, sinks: Tensor) -> Tensor:
        part.append(share(s, sinks))
        return part[0]

    result = attention(q, k, v, **options, share=remembered)
    if not part or not k.shape[2]:
        return result
    last = v[:, :, -1:].repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    return on_output(result, lambda out: out + (1 - part[0]).to(out.dtype) * last)


@mutant(
    "sinks.by_row",
    imitates="the sink of row_idx % num_heads: right for one query only",
    source="https://github.com/modular/modular/pull/6591",
)
def by_row(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The head of the sink is worked out from the row of the flattened scores, for T > 1 wrongly."""

    def by_row(s: Tensor, sinks: Tensor) -> Tensor:
        rows = torch.arange(s[..., 0].numel(), device=s.device)
        return share_beside(s, sinks[rows % len(sinks)].reshape(*s.shape[:-1], 1))

    return attention(q, k, v, **options, share=by_row if k.shape[2] else share)
