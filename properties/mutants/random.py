"""Defects of dropout: of what is dropped, of the factor, of the seed and of the backward pass."""

import secrets
from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention, drop, kept, nonzero, swap
from attnspec.properties.mutants.registry import mutant


@mutant(
    "random.not_scaled",
    imitates="kept weights are left as they are, as in the first form of dropout",
    source="frameworks.md: weights row sums in train mode",
)
def not_scaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights that are kept are not divided by 1 - p."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(w, p, seed) * (1 - p))


@mutant(
    "random.multiplied_by_keep",
    imitates="the factor 1 - p of evaluation used in training",
    source="frameworks.md: weights row sums in train mode",
)
def multiplied_by_keep(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights that are kept are multiplied by 1 - p."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(w, p, seed) * (1 - p) ** 2)


@mutant(
    "random.divided_by_rate",
    imitates="non-dropped values scaled by 1/p, right at p = 0.5 alone",
    source="https://github.com/rasbt/LLMs-from-scratch/issues/431",
)
def divided_by_rate(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights that are kept are divided by p."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(w, p, seed) * (1 - p) / p)


@mutant(
    "random.keeps_the_dropped",
    imitates="the probability of keeping taken for that of dropping, with the right factor",
    source="frameworks.md: weights row sums in train mode",
)
def keeps_the_dropped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A weight is kept with probability p."""

    def swapped(weights: Tensor, p: float, seed: int) -> Tensor:
        return weights.masked_fill(~kept(weights.shape, 1 - p, seed, weights.device), 0.0) / (1 - p)

    return attention(q, k, v, **options, drop=swapped)


@mutant(
    "random.rate_on_a_grid",
    imitates="the threshold compared with 8 random bits",
    source="frameworks.md: weights row sums in train mode",
)
def rate_on_a_grid(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The rate is rounded down to a multiple of 1/8, the factor is not."""

    def coarse(weights: Tensor, p: float, seed: int) -> Tensor:
        return weights.masked_fill(~kept(weights.shape, int(p * 8) / 8, seed, weights.device), 0.0) * (1 / (1 - p))

    return attention(q, k, v, **options, drop=coarse)


@mutant(
    "random.one_mask_for_heads",
    imitates="broadcast_dropout shares one mask over the heads",
    source="frameworks.md: adapter table, dropout (broadcast_dropout=True)",
)
def one_mask_for_heads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """All heads of a sample lose the same weights."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(torch.ones_like(w[:, :1]), p, seed) * w)


@mutant(
    "random.one_mask_for_batch",
    imitates="a seed that does not depend on the sample",
    source="frameworks.md: adapter table, dropout (broadcast_dropout=True)",
)
def one_mask_for_batch(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """All samples lose the same weights."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(torch.ones_like(w[:1]), p, seed) * w)


@mutant(
    "random.one_mask_for_queries",
    imitates="a default dropout mask of shape [B,H,1,S]",
    source="https://github.com/NVIDIA/TransformerEngine/pull/227",
)
def one_mask_for_queries(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """All queries of a head lose the same keys."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: drop(torch.ones_like(w[..., :1, :]), p, seed) * w)


@mutant(
    "random.mask_repeats",
    imitates="a random counter that starts anew in each block of keys",
    source="frameworks.md: weights row sums in train mode",
)
def mask_repeats(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 16 each block of 16 keys loses the same weights as the first."""

    def again(weights: Tensor, p: float, seed: int) -> Tensor:
        block = drop(torch.ones_like(weights[..., :16]), p, seed)
        return weights * block.repeat(1, 1, 1, weights.shape[-1] // 16 + 1)[..., : weights.shape[-1]]

    return attention(q, k, v, **options, drop=again)


@mutant(
    "random.constant_seed",
    imitates="seed and offset of the generator are constants in need_dropout()",
    source="https://github.com/Dao-AILab/flash-attention/issues/2088",
)
def constant_seed(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every seed drops the same weights."""
    options["seed"] = 0x1BF58
    return attention(q, k, v, **options)


@mutant(
    "random.seed_unread",
    imitates="the seed is accepted and a generator of its own is used",
    source="frameworks.md: two calls on one object",
)
def seed_unread(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The same seed drops other weights at each call."""
    if options.get("dropout"):
        options["seed"] = secrets.randbits(30)
    return attention(q, k, v, **options)


@mutant(
    "random.other_mask_backward",
    imitates="a dropout mask in the backward kernel that is not that of the forward kernel",
    source="https://github.com/Dao-AILab/flash-attention/issues/1251",
)
def other_mask_backward(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that of other dropped weights."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: swap(drop(w, p, seed + 1), drop(w, p, seed)))


@mutant(
    "random.undropped_backward",
    imitates="the backward kernel does not apply the dropout to the gradient of the weights",
    source="https://github.com/aws-neuron/nki-samples/pull/81",
)
def undropped_backward(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that without dropout."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: swap(w, drop(w, p, seed)))


@mutant(
    "random.backward_scaled_by_rate",
    imitates="the backward pass scales by p in place of 1/(1 - p)",
    source="https://github.com/NVIDIA/apex/pull/816",
)
def backward_scaled_by_rate(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient of a kept weight has the factor p."""
    return attention(q, k, v, **options, drop=lambda w, p, seed: swap(drop(w, p, seed) * (p * (1 - p)), drop(w, p, seed)))


@mutant(
    "random.before_softmax",
    imitates="dropout by minus infinity before the softmax, so that weights sum to one again",
    source="https://github.com/facebookresearch/fairseq/issues/351",
)
def before_softmax(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys are dropped from the scores and the rest is renormalised."""

    def renormalised(weights: Tensor, p: float, seed: int) -> Tensor:
        left = weights.masked_fill(~kept(weights.shape, p, seed, weights.device), 0.0)
        return left / nonzero(left.sum(-1, keepdim=True)) * weights.sum(-1, keepdim=True)

    return attention(q, k, v, **options, drop=renormalised)


@mutant(
    "random.on_the_output",
    imitates="dropout of the output in place of the weights",
    source="frameworks.md: option or path equivalence",
)
def on_the_output(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Entries of the output are dropped, not weights."""
    p, seed = options.pop("dropout", 0.0), options.pop("seed", 0)
    result = attention(q, k, v, **options)
    out, *rest = result if isinstance(result, tuple) else (result,)
    out = drop(out, p, seed).to(out.dtype) if p else out
    return (out, *rest) if rest else out


@mutant(
    "random.drops_causal",
    imitates="is_causal does not reach the path with dropout",
    source="frameworks.md: two flags at a time (dropout x causal)",
)
def drops_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With dropout, causal has no effect."""
    if options.get("dropout"):
        options["causal"] = False
    return attention(q, k, v, **options)


@mutant(
    "random.ignored",
    imitates="dropout is created and never applied",
    source="https://github.com/zhouhaoyi/Informer2020/issues/97",
)
def ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The dropout argument has no effect."""
    options["dropout"] = 0.0
    return attention(q, k, v, **options)
