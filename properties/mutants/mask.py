"""Defects of the mask, of causal order and of empty rows."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import INF, Options, Output, attention, distance, softmax_zero, visible
from attnspec.properties.mutants.registry import mutant


@mutant(
    "mask.sees_next",
    imitates="kv_idx > q_idx + offset where >= is meant: one key too many",
    source="https://github.com/flashinfer-ai/flashinfer/pull/348",
)
def sees_next(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal query t sees keys 0..t+1."""
    return attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, future=1))


@mutant(
    "mask.hides_self",
    imitates="a causal mask wrong on its diagonal",
    source="https://github.com/PaddlePaddle/flash-attention/pull/48",
)
def hides_self(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal query t sees keys 0..t-1."""
    return attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, future=-1))


@mutant(
    "mask.bottom_right",
    imitates="a backend aligns the causal mask with the last key, the caller with the first",
    source="https://github.com/pytorch/executorch/issues/22426",
)
def bottom_right(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal alignment is bottom-right: wrong only for T != S."""
    shift = k.shape[2] - q.shape[2] if options.get("causal") else 0
    return attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, shift=shift))


@mutant(
    "mask.single_query_sees_all",
    imitates="is_causal = query.shape[2] > 1: one query is taken for a decoding step",
    source="https://github.com/huggingface/transformers/issues/37807",
)
def single_query_sees_all(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal is dropped for T == 1."""
    if q.shape[2] == 1:
        options["causal"] = False
    return attention(q, k, v, **options)


@mutant(
    "mask.chunk_bottom_right",
    imitates="one kernel has a branch for Lq = 1 and another for 1 < Lq < Lk",
    source="frameworks.md: Lq in {1, 2..Lk-1, Lk, > Lk}",
)
def chunk_bottom_right(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal alignment is bottom-right for 1 < T < S only."""
    T, S = q.shape[2], k.shape[2]
    shift = S - T if options.get("causal") and 1 < T < S else 0
    return attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, shift=shift))


@mutant(
    "mask.longer_queries_bottom_right",
    imitates="the alignment switches when there are more queries than keys",
    source="https://github.com/ml-explore/mlx/pull/2967",
)
def longer_queries_bottom_right(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal alignment is bottom-right for T > S only."""
    shift = min(0, k.shape[2] - q.shape[2]) if options.get("causal") else 0
    return attention(q, k, v, **options, see=lambda s, mask, causal, w: visible(s, mask, causal, w, shift=shift))


@mutant(
    "mask.after_softmax",
    imitates="the mask is applied to the weights, which then do not sum to one",
    source="https://github.com/huggingface/pytorch-image-models/pull/2236",
)
def after_softmax(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Hidden keys count in the denominator."""

    def masked(s: Tensor) -> Tensor:
        allowed = visible(s, options.get("mask"), options.get("causal", False), options.get("window"))
        return torch.softmax(s, -1) * allowed

    return attention(q, k, v, **options, hide=lambda s, _: s, softmax=masked)


@mutant(
    "mask.minus_ten",
    imitates="mask * -10.0, 'e**-10 is already quite small'",
    source="https://github.com/lucidrains/nGPT-pytorch/issues/11",
)
def minus_ten(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """-10 is added to hidden scores of rows that are not empty."""
    return attention(
        q,
        k,
        v,
        **options,
        hide=lambda s, allowed: (s - 10.0 * ~allowed).masked_fill(~allowed.any(-1, keepdim=True), -INF),
    )


@mutant(
    "mask.minus_1e4",
    imitates="-10000 added for a mask: an empty row becomes an unmasked one",
    source="https://github.com/huggingface/transformers/pull/17306",
)
def minus_1e4(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """-10000 is added to hidden scores."""
    return attention(q, k, v, **options, hide=lambda s, allowed: s - 1e4 * ~allowed)


@mutant(
    "mask.added_as_number",
    imitates="a boolean mask added to the scores as 0 and 1",
    source="https://github.com/huggingface/transformers/pull/41443",
)
def added_as_number(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """One is added to visible scores and nothing is hidden."""
    return attention(q, k, v, **options, hide=lambda s, allowed: s + allowed.to(s.dtype))


@mutant(
    "mask.multiplied",
    imitates="scores multiplied by the mask: a hidden score becomes 0, not minus infinity",
    source="https://github.com/georg-wolflein/good-features/pull/1",
)
def multiplied(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Hidden scores are zero."""
    return attention(q, k, v, **options, hide=lambda s, allowed: s.masked_fill(~allowed, 0.0))


@mutant(
    "mask.key_padding_inverted",
    imitates="True means 'ignore' in key_padding_mask and 'may attend' in attn_mask",
    source="https://github.com/pytorch/pytorch/pull/120668",
)
def key_padding_inverted(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A mask without a query axis of its own is read the wrong way round."""
    mask = options.get("mask")
    if mask is not None and (mask.ndim < 2 or mask.shape[-2] == 1):
        options["mask"] = ~mask
    return attention(q, k, v, **options)


@mutant(
    "mask.dropped_with_causal",
    imitates="attn_mask silently ignored when is_causal is given",
    source="https://github.com/pytorch/pytorch/pull/178588",
)
def dropped_with_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The mask has no effect under causal."""
    if options.get("causal"):
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "mask.causal_needs_mask",
    imitates="the causal mask is skipped if no att_mask is passed",
    source="https://github.com/facebookresearch/xformers/issues/103",
)
def causal_needs_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Causal has no effect without a mask."""
    options["causal"] = options.get("causal", False) and options.get("mask") is not None
    return attention(q, k, v, **options)


@mutant(
    "mask.union_with_causal",
    imitates="mask and causal combined by 'or'",
    source="frameworks.md: two flags at a time",
)
def union_with_causal(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """With both given, a key is seen when either allows it."""

    def either(s: Tensor, mask: Tensor | None, causal: bool, window: int | None) -> Tensor:
        if mask is None or not causal:
            return visible(s, mask, causal, window)
        return visible(s, None, False, window) & (mask | (distance(s) >= 0))

    return attention(q, k, v, **options, see=either)


@mutant(
    "mask.decode_ignores_mask",
    imitates="the padding mask is applied in the first decoding step only",
    source="https://github.com/OpenNMT/OpenNMT-py/pull/2532",
)
def decode_ignores_mask(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The mask is dropped for T == 1."""
    if q.shape[2] == 1:
        options["mask"] = None
    return attention(q, k, v, **options)


@mutant(
    "mask.ignored_beyond_64",
    imitates="a boolean mask silently ignored past key 512",
    source="https://github.com/vllm-project/vllm-ascend/issues/15503",
)
def ignored_beyond_64(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The mask hides no key from key 64 on."""
    mask = options.get("mask")
    if mask is not None:
        options["mask"] = mask | (torch.arange(k.shape[2], device=k.device) >= 64)
    return attention(q, k, v, **options)


@mutant(
    "mask.bias_dropped",
    imitates="of a mask and a bias only one reaches the kernel",
    source="frameworks.md: two flags at a time",
)
def bias_dropped(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The bias has no effect when a mask is given."""
    if options.get("mask") is not None:
        options["bias"] = None
    return attention(q, k, v, **options)


@mutant(
    "mask.empty_row_nan",
    imitates="0/0 in the softmax of a fully masked row",
    source="https://github.com/pytorch/pytorch/issues/103963",
)
def empty_row_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """An empty row is NaN."""
    return attention(q, k, v, **options, softmax=lambda s: torch.softmax(s, -1))


@mutant(
    "mask.empty_row_mean",
    imitates="a large finite fill gives a fully masked row equal weights, also on hidden keys",
    source="https://github.com/lsdefine/attention-is-all-you-need-keras/issues/16",
)
def empty_row_mean(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """An empty row is the mean of all values, undeclared."""
    return attention(q, k, v, **options, hide=lambda s, allowed: s.masked_fill(~allowed, torch.finfo(s.dtype).min))


@mutant(
    "mask.bias_threshold",
    imitates="an additive mask cast to boolean where it is small enough",
    source="frameworks.md: finite additive masks (-2, -3)",
)
def bias_threshold(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A bias of -2 or less hides its key."""
    bias = options.get("bias")
    if bias is not None:
        options["bias"] = bias.masked_fill(bias <= -2, -INF)
    return attention(q, k, v, **options)


@mutant(
    "mask.additive_empty_row_nan",
    imitates="a fully masked row repaired for boolean masks only",
    source="frameworks.md: fully masked row on EVERY path",
)
def additive_empty_row_nan(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """A row that the bias hides is NaN, one that the mask hides is zero."""
    bias = options.get("bias")

    def repaired(s: Tensor) -> Tensor:
        weights = softmax_zero(s)
        if bias is None:
            return weights
        lost = (bias == -INF).all(-1, keepdim=True) & (bias.shape[-1] == s.shape[-1])
        return weights + torch.where(lost, torch.nan, 0.0).to(s.dtype)

    return attention(q, k, v, **options, softmax=repaired)


@mutant(
    "mask.empty_row_keeps_previous",
    imitates="nothing is written for an empty row, and the buffer holds the row before",
    source="frameworks.md: an empty row for one sample only AND for the whole batch",
)
def empty_row_keeps_previous(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The weights of an empty row are those of the query before it."""

    def unwritten(s: Tensor) -> Tensor:
        weights = softmax_zero(s)
        empty = (s == -INF).all(-1, keepdim=True) & (torch.arange(s.shape[-2], device=s.device)[:, None] > 0)
        return torch.where(empty, weights.roll(1, dims=-2), weights)

    return attention(q, k, v, **options, softmax=unwritten)


@mutant(
    "mask.causal_drops_bias",
    imitates="attn_bias ignored by the causal kernel",
    source="frameworks.md: two flags at a time (causal x bias)",
)
def causal_drops_bias(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """The bias has no effect under causal."""
    if options.get("causal"):
        options["bias"] = None
    return attention(q, k, v, **options)
