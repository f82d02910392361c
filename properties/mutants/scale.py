"""Defects of the scale and of the soft cap."""

import math
from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import INF, Options, Output, attention, cap, factor, nonzero, on_output, plus, row_max
from attnspec.properties.mutants.registry import mutant


@mutant(
    "scale.inverted",
    imitates="the factor was already 1/sqrt(D) and the scores were divided by it",
    source="https://github.com/esceptico/perceiver-io/issues/9",
)
def inverted(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Scores are divided by the scale."""
    options["scale"] = 1 / (factor(q, options.get("scale")) or 1.0)
    return attention(q, k, v, **options)


@mutant(
    "scale.inverse_width",
    imitates="1/D where 1/sqrt(D) is meant",
    source="https://github.com/charliezchen/scaling-matrix-preconditioning/issues/2",
)
def inverse_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is 1/D."""
    if options.get("scale") is None:
        options["scale"] = 1 / q.shape[-1]
    return attention(q, k, v, **options)


@mutant(
    "scale.value_width",
    imitates="1/sqrt(dim_V): the width of the values taken for that of the keys",
    source="https://github.com/juho-lee/set_transformer/issues/18",
)
def value_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is 1/sqrt(E)."""
    if options.get("scale") is None:
        options["scale"] = v.shape[-1] ** -0.5
    return attention(q, k, v, **options)


@mutant(
    "scale.model_width",
    imitates="dim ** -0.5 with the model width in place of the head width",
    source="https://github.com/lucidrains/vit-pytorch/issues/65",
)
def model_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is 1/sqrt(H*D)."""
    if options.get("scale") is None:
        options["scale"] = (q.shape[1] * q.shape[-1]) ** -0.5
    return attention(q, k, v, **options)


@mutant(
    "scale.head_count",
    imitates="1/sqrt(num_heads) under a comment that says 1/sqrt(head_dim)",
    source="https://github.com/tenstorrent/tt-metal/pull/56789",
)
def head_count(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is 1/sqrt(H)."""
    if options.get("scale") is None:
        options["scale"] = q.shape[1] ** -0.5
    return attention(q, k, v, **options)


@mutant(
    "scale.padded_width",
    imitates="heads padded to a width the kernel takes, and the default scale read from the padded width",
    source="https://github.com/intel/ipex-llm/pull/12619",
)
def padded_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is that of D rounded up to an even number."""
    if options.get("scale") is None:
        options["scale"] = (q.shape[-1] + q.shape[-1] % 2) ** -0.5
    return attention(q, k, v, **options)


@mutant(
    "scale.twice",
    imitates="the queries are scaled by the caller and again in the kernel",
    source="https://github.com/AI-Hypercomputer/maxtext/issues/3138",
)
def twice(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The scale is squared."""
    options["scale"] = factor(q, options.get("scale")) ** 2
    return attention(q, k, v, **options)


@mutant(
    "scale.missing",
    imitates="a fallback path leaves the scale at its default of 1",
    source="https://github.com/mlc-ai/mlc-llm/pull/3426",
)
def missing(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The default scale is 1."""
    if options.get("scale") is None:
        options["scale"] = 1.0
    return attention(q, k, v, **options)


@mutant(
    "scale.ignored",
    imitates="a configured softmax_scale is not considered",
    source="https://github.com/NVIDIA/Megatron-LM/pull/3698",
)
def ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The scale argument has no effect."""
    options["scale"] = None
    return attention(q, k, v, **options)


@mutant(
    "scale.zero_is_default",
    imitates="a scale of 0 stands for 'not given'",
    source="https://github.com/SKaiNET-developers/SKaiNET/pull/880",
)
def zero_is_default(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """scale=0 is taken for 1/sqrt(D)."""
    options["scale"] = options.get("scale") or None
    return attention(q, k, v, **options)


@mutant(
    "scale.bias_scaled",
    imitates="the scale is folded into the exponent and so multiplies the additive mask too",
    source="https://github.com/tenstorrent/tt-metal/pull/42891",
)
def bias_scaled(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The bias is added before scaling."""
    return attention(
        q,
        k,
        v,
        **options,
        score=lambda q, k, scale, softcap, bias: (
            cap(q @ k.mT * (a := factor(q, scale)), softcap) + (0.0 if bias is None else bias.to(q.dtype) * abs(a))
        ),
    )


@mutant(
    "scale.cap_before_scale",
    imitates="softcap * tanh(raw / softcap) * scale: the scale is left outside",
    source="https://github.com/huggingface/trl/pull/5691",
)
def cap_before_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Unscaled scores are soft-capped and scaled afterwards."""
    return attention(
        q,
        k,
        v,
        **options,
        score=lambda q, k, scale, softcap, bias: plus(cap(q @ k.mT, softcap) * factor(q, scale), bias),
    )


@mutant(
    "scale.cap_after_bias",
    imitates="softcap computed over score + bias",
    source="https://github.com/emmtrix/emx-onnx-cgen/pull/731",
)
def cap_after_bias(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The bias is soft-capped together with the score."""
    return attention(
        q,
        k,
        v,
        **options,
        score=lambda q, k, scale, softcap, bias: cap(plus(q @ k.mT * factor(q, scale), bias), softcap),
    )


@mutant(
    "scale.cap_ignored",
    imitates="the cap is handed to a call that accepts it and drops it",
    source="https://github.com/sgl-project/sglang/issues/33915",
)
def cap_ignored(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The softcap argument has no effect."""
    options["softcap"] = None
    return attention(q, k, v, **options)


@mutant(
    "scale.cap_overflows",
    imitates="tanh written as (e^x - e^-x) / (e^x + e^-x), inf/inf for a large score",
    source="https://github.com/vllm-project/vllm/issues/56578",
)
def cap_overflows(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """NaN where a score is many times the cap."""

    def tanh(x: Tensor) -> Tensor:
        return (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x))

    def capped(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = q @ k.mT * factor(q, scale)
        return plus(s if softcap is None else softcap * tanh(s / softcap), bias)

    return attention(q, k, v, **options, score=capped)


@mutant(
    "scale.cap_in_base_two",
    imitates="a kernel that folds log2(e) into the scale must undo it before the tanh",
    source="https://github.com/sgl-project/sgl-kernel-xpu/pull/491",
)
def cap_in_base_two(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The score is soft-capped in base-2 units."""
    a = math.log2(math.e)
    return attention(
        q,
        k,
        v,
        **options,
        score=lambda q, k, scale, softcap, bias: plus(cap(q @ k.mT * factor(q, scale) * a, softcap) / a, bias),
    )


@mutant(
    "scale.cap_after_mask",
    imitates="softcap applied after the mask: minus infinity becomes -softcap",
    source="https://github.com/onnx/onnx/issues/7865",
)
def cap_after_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Hidden scores are soft-capped to a finite number."""
    softcap = options.pop("softcap", None)
    return attention(q, k, v, **options, hide=lambda s, allowed: cap(s.masked_fill(~allowed, -INF), softcap))


@mutant(
    "scale.max_before_scale",
    imitates="the row maximum taken from the products and scaled afterwards",
    source="frameworks.md: no overflow when the float64 oracle is finite",
)
def max_before_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With a negative scale the shift is the smallest score, and large scores overflow."""
    a = factor(q, options.get("scale"))

    def shifted(s: Tensor) -> Tensor:
        low = torch.where(s == -INF, INF, s.detach()).amin(-1, keepdim=True) if a < 0 and s.shape[-1] else row_max(s)
        e = torch.exp(s - low.masked_fill(low == INF, 0.0))
        return e / nonzero(e.sum(-1, keepdim=True))

    return attention(q, k, v, **options, softmax=shifted)


@mutant(
    "scale.sign_lost",
    imitates="the scale stored as a positive number",
    source="frameworks.md: adapter table, scale (must be > 0 in onnxruntime)",
)
def sign_lost(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A negative scale is taken for its absolute value."""
    options["scale"] = abs(factor(q, options.get("scale")))
    return attention(q, k, v, **options)


@mutant(
    "scale.root_of_negative",
    imitates="queries and keys each multiplied by the root of the scale",
    source="frameworks.md: adapter table, scale (must be > 0 in onnxruntime)",
)
def root_of_negative(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A negative scale gives NaN."""
    a = factor(q, options.get("scale"))
    if a >= 0:
        return attention(q, k, v, **options)
    return on_output(attention(q, k, v, **options), lambda out: out * float("nan"))


@mutant(
    "scale.default_under_cap",
    imitates="the variant with a soft cap does not pass the scale on",
    source="frameworks.md: two flags at a time (scale x softcap)",
)
def default_under_cap(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With a soft cap the scale is the default one."""
    if options.get("softcap") is not None:
        options["scale"] = None
    return attention(q, k, v, **options)


@mutant(
    "scale.cap_lost_in_window",
    imitates="the sliding-window kernel has no soft cap",
    source="frameworks.md: two flags at a time (window x softcap)",
)
def cap_lost_in_window(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The soft cap has no effect when a window is given."""
    if options.get("window") is not None:
        options["softcap"] = None
    return attention(q, k, v, **options)
