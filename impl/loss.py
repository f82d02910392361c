"""Categorical cross-entropy as a sum over real tokens, so that parts of a batch add up to the whole."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from attnspec.impl.errors import require


def cross_entropy(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, *, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Adds up how surprising the real tokens are, and counts them.

        total = -sum_{b, t real} sum_v q[b, t, v] log p[b, t, v],  p = softmax(logits)   (1)
        q[b, t, v] = (1 - smoothing) [v = target[b, t]] + smoothing / V                  (2)

    A mean of means would weigh tokens by the batch that they happen to be in: divide once, the sum of totals by the sum
    of counts.

    Shapes:  logits [...,V], as [B,T,V]  target, mask [...] -> two numbers, arrays without axes.
    Units:   natural-log units, in float32 at least whatever the logits are; the gradient has the dtype of the logits.
             mask is True, or 1, at real tokens; where it is not, target may be anything.
    Empty:   no real token gives 0 and 0; without a mask all tokens are real. -inf rules a word out where smoothing is 0.
    Errors:  ValueError for shapes or kinds that do not fit, V = 0, smoothing outside [0, 1], and a real target outside
             of the vocabulary (on a GPU that is a device error). There is no second derivative.
    Source:  arXiv:1512.00567 sec. 7 with u(v) = 1/V for (2); arXiv:1706.03762 sec. 5.4.
    Differs: the papers have no padding.
    """
    got = {"logits": logits.shape, "target": target.shape}
    fits = logits.shape[:-1] == target.shape and logits.ndim > 0 and logits.shape[-1] > 0
    require(fits, "logits have a last axis of V > 0 words for each target; pass [B,T,V] and [B,T]", **got)
    whole = logits.is_floating_point() and not (target.is_floating_point() or target.dtype == torch.bool)
    require(whole, "logits are floating, targets whole numbers; pass ids", logits=logits.dtype, target=target.dtype)
    require(0 <= smoothing <= 1, "it is a share of the target, in [0, 1]; use 0.0 for none", smoothing=smoothing)
    if mask is not None:
        rule = "a mask has an entry for each target, True or 1 where it is real; pass target != padding_id"
        fits = mask.shape == target.shape and not mask.is_floating_point()
        require(fits, rule, mask=mask.shape, dtype=mask.dtype, target=target.shape)
        mask = mask != 0
        target = torch.where(mask, target, 0)
    if target.device.type == "cpu" and target.numel():  # on a GPU this look would wait for the device
        least, most, V = int(target.min()), int(target.max()), logits.shape[-1]
        rule = "real targets are words of the vocabulary; mask the others"
        require(0 <= least <= most < V, rule, least=least, most=most, V=V)
    count = target.new_tensor(target.numel()) if mask is None else mask.sum()
    total: Tensor = _Total.apply(logits, target[..., None], mask, smoothing)  # type: ignore[no-untyped-call]
    return total, count


class _Total(torch.autograd.Function):
    """(1) and its derivative p - q, written into one array: torch's own backward pass makes several of that size."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, mask: Tensor | None, smoothing: float) -> Tensor:
        log_p = functional.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        ctx.save_for_backward(log_p, target, mask)
        ctx.smoothing, ctx.dtype = smoothing, logits.dtype
        loss = -log_p.gather(-1, target)[..., 0]
        if smoothing:  # else a logit of -inf would make 0 * inf
            loss = (1 - smoothing) * loss - smoothing * log_p.mean(dim=-1)
        return (loss if mask is None else torch.where(mask, loss, 0.0)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        log_p, target, mask = ctx.saved_tensors
        d = log_p.exp()
        if ctx.smoothing:
            d -= ctx.smoothing / d.shape[-1]
        d.scatter_add_(-1, target, d.new_full((1,), ctx.smoothing - 1).expand_as(target))
        d *= slope if mask is None else torch.where(mask, slope, 0.0)[..., None]
        return d.to(ctx.dtype), None, None, None
