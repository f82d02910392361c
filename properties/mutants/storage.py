"""Defects of how arrays lie in memory: strides, offsets, repeated rows, neighbours."""

from typing import Unpack

import torch
from torch import Tensor

from attnspec.properties.mutants.plain import Options, Output, attention, hide, on_output, swap
from attnspec.properties.mutants.registry import mutant


@mutant(
    "storage.inner_stride_unread",
    imitates="the innermost axis taken for contiguous",
    source="https://github.com/pytorch/pytorch/pull/187506",
)
def inner_stride_unread(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Keys whose last axis has a stride are read as if it were 1."""
    size, stride = k.size(), (*k.stride()[:-1], 1)
    return attention(q, swap(k, k.detach().as_strided(size, stride, k.storage_offset())), v, **options)


@mutant(
    "storage.offset_unread",
    imitates="views are read from the beginning of their buffer",
    source="https://github.com/torch-spyre/torch-spyre/issues/4331",
)
def offset_unread(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Queries that begin inside a buffer are read from its beginning."""
    return attention(swap(q, q.detach().as_strided(q.size(), q.stride(), 0)), k, v, **options)


@mutant(
    "storage.values_offset_unread",
    imitates="the data pointer of the storage in place of that of the tensor",
    source="https://github.com/torch-spyre/torch-spyre/issues/4331",
)
def values_offset_unread(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Values that begin inside a buffer are read from its beginning."""
    return attention(q, k, swap(v, v.detach().as_strided(v.size(), v.stride(), 0)), **options)


@mutant(
    "storage.tail_of_expanded",
    imitates="keys stored once for the batch lose their tail when the length is 1 more than a block",
    source="https://github.com/pytorch/pytorch/issues/191937",
)
def tail_of_expanded(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """For keys expanded along the batch and S % 4 == 1, S > 1, the last key is not seen."""
    S = k.shape[2]
    lost = S % 4 == 1 and S > 1 and k.shape[0] > 1 and k.stride(0) == 0
    seen = torch.arange(S, device=k.device) < S - lost
    return attention(q, k, v, **options, hide=lambda s, ok: hide(s, ok & seen))


@mutant(
    "storage.reads_past_the_end",
    imitates="slots behind the last key are loaded and meet weight zero: 0 * NaN is NaN",
    source="https://github.com/vllm-project/vllm/pull/47305",
)
def reads_past_the_end(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """What lies behind the last value in memory is multiplied by zero and added."""
    result = attention(q, k, v, **options)
    if not v.numel():
        return result
    after = v.storage_offset() + 1 + sum((n - 1) * step for n, step in zip(v.shape, v.stride(), strict=True))
    if after * v.element_size() >= v.untyped_storage().nbytes():
        return result
    return on_output(result, lambda out: out + 0 * v.detach().as_strided((), (), after))


@mutant(
    "storage.output_in_queries",
    imitates="the queries are used as the buffer of the output",
    source="frameworks.md: option or path equivalence (grad mode)",
)
def output_in_queries(q: Tensor, k: Tensor, v: Tensor, **options: Unpack[Options]) -> Output:
    """Without gradients and for D == E the output overwrites the queries."""
    result = attention(q, k, v, **options)
    out = result[0] if isinstance(result, tuple) else result
    if out.requires_grad or out.shape != q.shape or 0 in q.stride():
        return result
    return on_output(result, q.data.copy_)
