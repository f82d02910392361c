"""Defects of weights and log-sum-exp beside the output, and of outputs that change when these are asked for."""

import math
from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import (
    INF,
    Options,
    Output,
    attention,
    drop,
    log_sum_exp,
    nonzero,
    on_output,
    row_max,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "output.weights_after_dropout",
    imitates="the weights returned are those after dropout and sum to more than one",
    source="https://github.com/pytorch/pytorch/issues/42929",
)
def weights_after_dropout(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With dropout, the weights returned are the dropped ones."""
    p, seed = options.get("dropout", 0.0), options.get("seed", 0)
    return attention(q, k, v, **options, show=lambda w: drop(w, p, seed) if p else w)


@mutant(
    "output.weights_averaged",
    imitates="averaged weights come back where each head was asked for",
    source="https://github.com/facebookresearch/fairseq/issues/3365",
)
def weights_averaged(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every head returns the mean weights of all heads."""
    return attention(q, k, v, **options, show=lambda w: w.mean(1, keepdim=True).expand(w.shape))


@mutant(
    "output.weights_of_first_sample",
    imitates="a weights pointer without a batch stride",
    source="frameworks.md: batch neighbour perturbation",
)
def weights_of_first_sample(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Every sample returns the weights of sample 0."""
    return attention(q, k, v, **options, show=lambda w: w[:1].expand(w.shape))


@mutant(
    "output.weights_not_divided",
    imitates="what is dumped beside the output is wrong while the attention output is correct",
    source="https://github.com/flashinfer-ai/flashinfer/issues/1971",
)
def weights_not_divided(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights returned are divided by their largest, not by their sum."""
    return attention(q, k, v, **options, show=lambda w: w / nonzero(w.detach().amax(-1, keepdim=True)))


@mutant(
    "output.weights_unmasked",
    imitates="weights computed again for the caller, without the mask",
    source="frameworks.md: option or path equivalence (need_weights)",
)
def weights_unmasked(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights returned ignore the mask; the output does not."""
    result = attention(q, k, v, **options)
    if not isinstance(result, tuple) or not options.get("need_weights") or options.get("mask") is None:
        return result
    options["mask"] = None
    return (result[0], attention(q, k, v, **options)[1], *result[2:])


@mutant(
    "output.weights_transposed",
    imitates="the matrix of weights written by columns: it fits when T = S",
    source="frameworks.md: option or path equivalence (need_weights)",
)
def weights_transposed(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For T == S the weights returned are transposed."""
    return attention(q, k, v, **options, show=lambda w: w.mT if w.shape[-1] == w.shape[-2] else w)


@mutant(
    "output.weights_tail_unwritten",
    imitates="a buffer of which only whole blocks are written",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def weights_tail_unwritten(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 32 the weights returned are zero behind the last whole block of 32 keys."""

    def blocks(weights: Tensor) -> Tensor:
        S = weights.shape[-1]
        return weights.masked_fill(torch.arange(S, device=weights.device) >= (S // 32 * 32 or S), 0.0)

    return attention(q, k, v, **options, show=blocks)


@mutant(
    "output.asking_drops_causal",
    imitates="output_attentions=True takes the eager path, which gets no causal mask",
    source="https://github.com/huggingface/transformers/pull/30652",
)
def asking_drops_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal has no effect when the weights are asked for."""
    if options.get("need_weights"):
        options["causal"] = False
    return attention(q, k, v, **options)


@mutant(
    "output.asking_gives_nan",
    imitates="a fully masked head is NaN with need_weights=True and zero without",
    source="https://github.com/pytorch/pytorch/issues/160064",
)
def asking_gives_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """An empty row is NaN when the weights are asked for."""
    if options.get("need_weights"):
        return attention(q, k, v, **options, softmax=lambda s: torch.softmax(s, -1))
    return attention(q, k, v, **options)


@mutant(
    "output.asking_rounds",
    imitates="the path that returns weights multiplies them by the values in 16 bits",
    source="frameworks.md: option or path equivalence (need_weights)",
)
def asking_rounds(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The output is rounded to bfloat16 when the weights are asked for."""
    result = attention(q, k, v, **options)
    return on_output(result, lambda out: out.bfloat16().to(out.dtype)) if options.get("need_weights") else result


@mutant(
    "output.lse_base_two",
    imitates="the log-sum-exp comes back off by a factor of ln 2",
    source="https://github.com/pytorch/pytorch/issues/181645",
)
def lse_base_two(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The log-sum-exp is that of base 2."""
    return attention(q, k, v, **options, lse=lambda s, sinks: log_sum_exp(s, sinks) / math.log(2))


@mutant(
    "output.lse_without_max",
    imitates="log(sum) returned without the maximum that was subtracted",
    source="frameworks.md: adapter table, weights (lse only)",
)
def lse_without_max(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The row maximum is missing from the log-sum-exp."""
    return attention(q, k, v, **options, lse=lambda s, sinks: log_sum_exp(s, sinks) - row_max(s)[..., 0])


@mutant(
    "output.lse_zero_if_empty",
    imitates="a masked row maximum of 0 leaves a log-sum-exp of 0",
    source="https://github.com/pytorch/pytorch/pull/134650",
)
def lse_zero_if_empty(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The log-sum-exp of an empty row is 0."""
    return attention(q, k, v, **options, lse=lambda s, sinks: (x := log_sum_exp(s, sinks)).masked_fill(x == -INF, 0.0))


@mutant(
    "output.lse_unscaled",
    imitates="the log-sum-exp taken from products before they are scaled",
    source="frameworks.md: adapter table, weights (lse only)",
)
def lse_unscaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The log-sum-exp is that of the scores without the scale."""
    result = attention(q, k, v, **options)
    if not isinstance(result, tuple) or not options.get("return_lse"):
        return result
    options["scale"] = 1.0
    return (*result[:-1], attention(q, k, v, **options)[-1])


@mutant(
    "output.lse_by_group",
    imitates="the log-sum-exp of folded heads written head by head in the order of the fold",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1)",
)
def lse_by_group(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For 1 < G < H the log-sum-exp has its heads in another order."""
    G = k.shape[1]

    def folded(s: Tensor, sinks: Tensor | None) -> Tensor:
        x = log_sum_exp(s, sinks)
        return x.reshape(x.shape[0], G, -1, x.shape[2]).transpose(1, 2).reshape(x.shape)

    return attention(q, k, v, **options, lse=folded)


@mutant(
    "output.lse_path_drops_softcap",
    imitates="the variant that returns the log-sum-exp is built without the soft cap",
    source="frameworks.md: two flags at a time",
)
def lse_path_drops_softcap(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The soft cap has no effect when the log-sum-exp is asked for."""
    if options.get("return_lse"):
        options["softcap"] = None
    return attention(q, k, v, **options)
