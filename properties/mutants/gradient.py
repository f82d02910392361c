"""Defects of the backward pass: every forward result here is right."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import (
    INF,
    Options,
    Output,
    alone,
    attention,
    cap,
    factor,
    memory_order,
    nonzero,
    on_backward,
    on_output,
    plus,
    row_max,
    softmax_zero,
    swap,
    swap_all,
    visible,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "gradient.keys_detached",
    imitates="gradients of most projection weights of multi-head attention silently dropped",
    source="https://github.com/ooples/AiDotNet.Tensors/issues/257",
)
def keys_detached(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """No gradient reaches the keys."""
    return attention(q, k.detach(), v, **options)


@mutant(
    "gradient.weights_detached",
    imitates="a kernel without a gradient for the attention probabilities",
    source="https://github.com/facebookresearch/fairseq/issues/4270",
)
def weights_detached(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Only the values get a gradient."""
    return attention(q, k, v, **options, softmax=lambda s: on_backward(softmax_zero(s), torch.zeros_like))


@mutant(
    "gradient.no_row_sum",
    imitates="dS = P * dP without the row sum of dO * O",
    source="frameworks.md: grad mode x eval mode",
)
def no_row_sum(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The denominator of the softmax is a constant for the gradient."""

    def constant_sum(s: Tensor) -> Tensor:
        e = torch.exp(s - row_max(s))
        return e / nonzero(e.sum(-1, keepdim=True)).detach()

    return attention(q, k, v, **options, softmax=constant_sum)


@mutant(
    "gradient.no_scale",
    imitates="the scale is folded into the forward pass and forgotten in dQ and dK",
    source="frameworks.md: option or path equivalence",
)
def no_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient of a score does not contain the scale."""

    def unscaled(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        raw = q @ k.mT
        return plus(cap(swap(raw, raw * factor(q, scale)), softcap), bias)

    return attention(q, k, v, **options, score=unscaled)


@mutant(
    "gradient.always_causal",
    imitates="the backward kernel ignores ctx.causal and masks as if it were set",
    source="https://github.com/triton-lang/triton/issues/4541",
)
def always_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that of causal attention."""
    value = attention(q, k, v, **options)
    options["causal"] = True
    return swap_all(attention(q, k, v, **options), value)


@mutant(
    "gradient.other_alignment",
    imitates="forward and backward align the causal mask differently when Lq != Lk",
    source="https://github.com/xlite-dev/ffpa-attn/pull/300",
)
def other_alignment(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that of bottom-right alignment."""
    shift = k.shape[2] - q.shape[2] if options.get("causal") else 0
    other = attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, shift=shift))
    return swap_all(other, attention(q, k, v, **options))


@mutant(
    "gradient.mask_forgotten",
    imitates="the mask computed in the backward kernel but not applied",
    source="https://github.com/ROCm/aiter/issues/3551",
)
def mask_forgotten(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that of attention without the mask."""
    value = attention(q, k, v, **options)
    options["mask"] = None
    return swap_all(attention(q, k, v, **options), value)


@mutant(
    "gradient.group_not_summed",
    imitates="dK and dV not summed over the query heads that share them",
    source="https://github.com/marin-community/levanter/pull/449",
)
def group_not_summed(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A key/value head gets the gradient of the first query head of its group only."""

    def first_only(x: Tensor, H: int) -> Tensor:
        n = H // x.shape[1]
        return torch.stack([x] + [x.detach()] * (n - 1), dim=2).flatten(1, 2)

    return attention(q, k, v, **options, repeat=first_only)


@mutant(
    "gradient.softcap_passes_through",
    imitates="a forward pass with soft cap and a backward pass from before it",
    source="https://github.com/Dao-AILab/flash-attention/pull/1033",
)
def softcap_passes_through(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The derivative of tanh is taken for 1."""

    def straight(q: Tensor, k: Tensor, scale: float | None, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = q @ k.mT * factor(q, scale)
        return plus(swap(s, cap(s, softcap)), bias)

    return attention(q, k, v, **options, score=straight)


@mutant(
    "gradient.empty_row_nan",
    imitates="NaN of a fully masked row replaced in the forward pass and kept in the backward pass",
    source="https://github.com/pytorch/pytorch/issues/41508",
)
def empty_row_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """An empty row makes the gradients NaN."""

    def cleaned(s: Tensor) -> Tensor:
        return torch.where((s == -INF).all(-1, keepdim=True), 0.0, torch.softmax(s, -1))

    return attention(q, k, v, **options, softmax=cleaned)


@mutant(
    "gradient.grows_with_batch",
    imitates="dQ several times too large as soon as the batch has two sequences",
    source="https://github.com/NVIDIA/TransformerEngine/issues/3216",
)
def grows_with_batch(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient of the queries is multiplied by B."""
    return attention(on_backward(q, lambda g: g * g.shape[0]), k, v, **options)


@mutant(
    "gradient.upstream_read_as_contiguous",
    imitates="a backward kernel that ignores the strides of the incoming gradient",
    source="https://github.com/Dao-AILab/flash-attention/issues/355",
)
def upstream_read_as_contiguous(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A non-contiguous incoming gradient is read in memory order."""

    def in_memory_order(g: Tensor) -> Tensor:
        packed = g.permute(memory_order(g))
        return packed.reshape(g.shape) if packed.is_contiguous() else g

    return on_output(attention(q, k, v, **options), lambda out: on_backward(out, in_memory_order))


@mutant(
    "gradient.value_tail",
    imitates="dV wrong when the length is not a multiple of 64",
    source="https://github.com/flagos-ai/FlagGems/pull/898",
)
def value_tail(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S > 64 values in the last, partial block of 64 get no gradient."""
    S = v.shape[2]
    n = S // 64 * 64 or S
    return attention(q, k, torch.cat([v[:, :, :n], v[:, :, n:].detach()], dim=2), **options)


@mutant(
    "gradient.value_width",
    imitates="backward_dq reads the values with the width of the keys: channels beyond it are masked out",
    source="https://github.com/XunhaoLai/native-sparse-attention-triton/issues/27",
)
def value_width(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For E > D the last channels of the output send no gradient to the queries."""
    D = q.shape[-1]
    rest = attention(q.detach(), k, v[..., D:], **alone(options))
    assert isinstance(rest, Tensor)
    return on_output(attention(q, k, v[..., :D], **options), lambda out: torch.cat([out, rest], dim=-1))


@mutant(
    "gradient.rounded_early",
    imitates="a gradient rounded to bfloat16 before it is summed",
    source="https://github.com/jax-ml/jax/issues/40128",
)
def rounded_early(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient of the scores goes through bfloat16."""
    return attention(
        q, k, v, **options, hide=lambda s, ok: on_backward(s.masked_fill(~ok, -INF), lambda g: g.bfloat16().to(g.dtype))
    )


@mutant(
    "gradient.hidden_keys_leak",
    imitates="the mask of the backward kernel is a finite number",
    source="frameworks.md: masked-content / padding invariance",
)
def hidden_keys_leak(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that of a mask of -10: hidden keys and values get some."""
    other = attention(q, k, v, **options, hide=lambda s, allowed: s - 10.0 * ~allowed)
    return swap_all(other, attention(q, k, v, **options))


@mutant(
    "gradient.first_query_only",
    imitates="a loop over queries that overwrites dK and dV instead of adding",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def first_query_only(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys and values get the gradient of query 0 only."""
    late = torch.arange(q.shape[2], device=q.device)[:, None] > 0
    dead = attention(q, k.detach(), v.detach(), **alone(options))
    assert isinstance(dead, Tensor)
    return on_output(attention(q, k, v, **options), lambda out: torch.where(late, dead, out))


@mutant(
    "gradient.divides_by_scale",
    imitates="dQ recovered by a division by the scale",
    source="frameworks.md: not covered by the ONNX vectors: gradients, scale = 0",
)
def divides_by_scale(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With scale 0 the gradient of the queries is NaN."""
    a = factor(q, options.get("scale"))
    return attention(on_backward(q, lambda g: g / a * a), k, v, **options)


@mutant(
    "gradient.queries_of_one_sample",
    imitates="atomics that add dK of all samples to sample 0",
    source="frameworks.md: batch neighbour perturbation",
)
def queries_of_one_sample(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For B > 1 sample 0 gets the key gradient of all samples."""

    def added(g: Tensor) -> Tensor:
        return torch.cat([g.sum(0, keepdim=True), g[1:]])

    return attention(q, on_backward(k, added), v, **options)


@mutant(
    "gradient.window_forgotten",
    imitates="a backward kernel without the sliding window",
    source="https://github.com/aws-neuron/nki-samples/pull/104",
)
def window_forgotten(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The gradient is that without a window, causal where one was given."""
    value = attention(q, k, v, **options)
    if options.get("window") is not None:
        options["window"], options["causal"] = None, True
    return swap_all(attention(q, k, v, **options), value)


@mutant(
    "gradient.accumulates",
    imitates="a gradient buffer that is not cleared",
    source="frameworks.md: two calls on one object",
)
class Accumulates:
    """The gradient of the values contains that of the last call."""

    def __init__(self) -> None:
        self.last = torch.zeros(())

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends; the gradient of v is added to the last one of the same shape."""

        def added(g: Tensor) -> Tensor:
            total = g + self.last if self.last.shape == g.shape and self.last.dtype == g.dtype else g
            self.last = g.detach().clone()
            return total

        return attention(q, k, on_backward(v, added), **options)
