"""Defects that need two calls, or that change what is not theirs."""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import dropout

from attnspec.properties.mutants.plain import (
    Options,
    Output,
    attention,
    distance,
    factor,
    hide,
    on_all,
    on_output,
    softmax_zero,
    visible,
)
from attnspec.properties.mutants.registry import mutant


@mutant(
    "state.mask_of_first_call",
    imitates="a mask cached by length: same length, other offset",
    source="frameworks.md: two calls on one object with the same length but another offset",
)
class MaskOfFirstCall:
    """The visible keys are cached by (T, S)."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends with the mask, causal and window of the first call of these sizes."""

        def cached(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
            allowed = visible(s, mask, causal, window)
            old = self.seen.setdefault((s.shape[-2], s.shape[-1]), allowed)
            fits = old.ndim <= 2 or all(n in (1, m) for n, m in zip(old.shape[::-1], s.shape[::-1], strict=False))
            return old if fits else allowed

        return attention(q, k, v, **options, see=cached)


@mutant(
    "state.causal_size_of_first_call",
    imitates="the causal mask is tied to the length of the first sequence",
    source="https://github.com/facebookresearch/xformers/issues/655",
)
class CausalSizeOfFirstCall:
    """The causal mask keeps the size of the first call."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends without causal order outside of the first causal call's T and S."""

        def sized(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
            if not causal:
                return visible(s, mask, causal, window)
            T, S = self.size = self.size or (s.shape[-2], s.shape[-1])
            inside = torch.zeros_like(distance(s), dtype=torch.bool)
            inside[:T, :S] = True
            return visible(s, mask, False, window) & (~inside | (distance(s) >= 0))

        return attention(q, k, v, **options, see=sized)


@mutant(
    "state.keys_cached_by_shape",
    imitates="a cache keyed by shape: keys and values of an earlier call stand in for those of this one",
    source="frameworks.md: two calls on one object",
)
class KeysCachedByShape:
    """Keys and values are cached by their shapes."""

    def __init__(self) -> None:
        self.seen: dict[tuple[torch.Size, torch.Size], tuple[Tensor, Tensor]] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends to the first keys and values of these shapes."""
        old_k, old_v = self.seen.setdefault((k.shape, v.shape), (k, v))
        return attention(q, old_k.to(q.dtype), old_v.to(q.dtype), **options)


@mutant(
    "state.scale_of_first_call",
    imitates="a default worked out once and kept",
    source="frameworks.md: two calls on one object",
)
class ScaleOfFirstCall:
    """The default scale is worked out in the first call."""

    def __init__(self) -> None:
        self.scale: float | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends with the scale of the first call, given or default."""
        self.scale = factor(q, options.get("scale")) if self.scale is None else self.scale
        options["scale"] = self.scale
        return attention(q, k, v, **options)


@mutant(
    "state.query_scaled_in_place",
    imitates="scale *= ... on the caller's tensor: the factor drifts with every call",
    source="https://github.com/flashinfer-ai/flashinfer/pull/2084",
)
def query_scaled_in_place(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The caller's queries are multiplied by the scale."""
    out = attention(q, k, v, **options)
    if 0 not in q.stride():
        q.data.mul_(factor(q, options.get("scale")))
    return out


@mutant(
    "state.mask_inverted_in_place",
    imitates="masked_fill(mask.logical_not_(), ...)",
    source="frameworks.md: two calls on one object",
)
def mask_inverted_in_place(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The caller's mask is inverted."""
    out, mask = attention(q, k, v, **options), options.get("mask")
    if mask is not None and 0 not in mask.stride():
        mask.logical_not_()
    return out


@mutant(
    "state.output_buffer_reused",
    imitates="the output tensor of the first run gets overwritten by the second",
    source="https://github.com/mlc-ai/relax/pull/89",
)
class OutputBufferReused:
    """Outputs of one shape share their memory."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends, and writes the result over the previous result as well."""
        result = attention(q, k, v, **options)
        out = result[0] if isinstance(result, tuple) else result
        if self.last is not None and self.last.shape == out.shape:
            self.last.data.copy_(out.data)
        self.last = out
        return result


@mutant(
    "state.output_is_the_value",
    imitates="a shortcut for one key hands the caller's own memory back",
    source="frameworks.md: option or path equivalence",
)
def output_is_the_value(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For S == T == 1 without mask or bias the output is a view of v."""
    free = not any(options.get(name) for name in ("dropout", "need_weights", "return_lse"))
    free = free and all(options.get(name) is None for name in ("mask", "bias", "window", "sinks"))
    if q.shape[2] == k.shape[2] == 1 and q.shape[1] == v.shape[1] and free:
        return v.view_as(v)
    return attention(q, k, v, **options)


@mutant(
    "state.dropout_left_on",
    imitates="scaled_dot_product_attention applies its dropout in eval mode too",
    source="https://github.com/huggingface/pytorch-image-models/pull/1978",
)
def dropout_left_on(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Five per cent of the weights are dropped."""
    return attention(q, k, v, **options, softmax=lambda s: dropout(softmax_zero(s), 0.05, training=True))


@mutant(
    "state.noise",
    imitates="run-to-run differences from a race between warps",
    source="https://github.com/ROCm/triton/issues/953",
)
def noise(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The result changes by about 1e-5 from call to call."""
    out = attention(q, k, v, **options)
    return on_output(out, lambda out: out * (1 + 1e-5 * torch.randn_like(out)))


@mutant(
    "state.bias_as_mask_without_grad",
    imitates="an additive mask added in grad mode and cast to boolean on the fast path",
    source="frameworks.md: grad mode x eval mode; finite additive masks (-2, -3)",
)
def bias_as_mask_without_grad(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """When no gradient is asked for, a negative bias hides its key and any other is ignored."""
    bias = options.get("bias")
    if bias is not None and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)):
        mask = options.get("mask")
        options["mask"] = bias >= 0 if mask is None else mask & (bias >= 0)
        options["bias"] = None
    return attention(q, k, v, **options)


@mutant(
    "state.dtype_of_first_call",
    imitates="buffers made in the dtype of the first call",
    source="frameworks.md: two calls on one object",
)
class DtypeOfFirstCall:
    """Every call is computed in the dtype of the first one."""

    def __init__(self) -> None:
        self.dtype = torch.float64
        self.known = False

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends in the dtype of the first call and returns the dtype of the queries."""
        self.dtype, self.known = (self.dtype if self.known else q.dtype), True
        result = attention(*(x.to(self.dtype) for x in (q, k, v)), **options)
        return on_all(result, lambda x: x.to(q.dtype))


@mutant(
    "state.mask_by_identity",
    imitates="a prepared mask cached under id(mask)",
    source="frameworks.md: two calls on one object",
)
class MaskByIdentity:
    """A mask is kept under its identity: a change of its content is not seen."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends with the content that this mask object had at first."""
        mask = options.get("mask")
        if mask is not None:
            old = self.seen.setdefault(id(mask), mask.clone())
            options["mask"] = old if old.shape == mask.shape else mask
        return attention(q, k, v, **options)


@mutant(
    "state.empty_rows_keep_last",
    imitates="an output buffer that is reused and not cleared",
    source="frameworks.md: two calls on one object; an empty row",
)
class EmptyRowsKeepLast:
    """An empty row returns what the last call of this shape returned there."""

    def __init__(self) -> None:
        self.last = torch.zeros(())

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends; rows of zeros are not written."""
        result = attention(q, k, v, **options)
        out = result[0] if isinstance(result, tuple) else result
        old = self.last.to(out.dtype) if self.last.shape == out.shape else out
        new = torch.where((out == 0).all(-1, keepdim=True), old, out)
        self.last = new.detach().clone()
        return on_output(result, lambda _: new)


@mutant(
    "state.bias_kept",
    imitates="the bias stays bound to the kernel",
    source="frameworks.md: two calls on one object",
)
class BiasKept:
    """A call without bias uses the last bias if it fits."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
        """Attends with the bias given, or with the last one."""
        bias, shape = options.get("bias"), (*q.shape[:3], k.shape[2])
        if bias is not None:
            self.last = bias.detach().clone()
        elif self.last is not None and all(n in (1, m) for n, m in zip(self.last.shape[::-1], shape[::-1], strict=False)):
            options["bias"] = self.last
        return attention(q, k, v, **options)


@mutant(
    "state.default_dtype",
    imitates="a default dtype left behind by other code changes what comes out",
    source="https://github.com/vectorize-io/hindsight/pull/2167",
)
def default_dtype(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Under a default dtype other than float32 the scores go through it."""
    default = torch.get_default_dtype()
    if default == torch.float32:
        return attention(q, k, v, **options)
    return attention(q, k, v, **options, softmax=lambda s: softmax_zero(s.to(default).to(s.dtype)))


@mutant(
    "state.rest_of_threads",
    imitates="keys shared out evenly to the threads, without the rest",
    source="frameworks.md: option or path equivalence",
)
def rest_of_threads(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys behind the last multiple of the number of threads are not seen."""
    S, threads = k.shape[2], torch.get_num_threads()
    n = S // threads * threads or S
    return attention(q, k, v, **options, hide=lambda s, ok: hide(s, ok & (torch.arange(S, device=s.device) < n)))


@mutant(
    "state.reseeds_everyone",
    imitates="torch.manual_seed inside the function",
    source="frameworks.md: two calls on one object",
)
def reseeds_everyone(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A call with dropout seeds the global generator."""
    if options.get("dropout"):
        torch.manual_seed(options.get("seed", 0))
    return attention(q, k, v, **options)


@mutant(
    "state.cap_lost_without_grad",
    imitates="the inference kernel has no soft cap",
    source="frameworks.md: grad mode x eval mode",
)
def cap_lost_without_grad(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The soft cap has no effect under no_grad."""
    if not torch.is_grad_enabled():
        options["softcap"] = None
    return attention(q, k, v, **options)
