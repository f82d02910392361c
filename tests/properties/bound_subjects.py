"""Correct implementations of attention in torch, by the precision class that each belongs to (docs/bounds.md)."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.properties.bound_cases import TORCH, Case

Found = dict[str, Tensor]  # o, and weights or lse where the implementation has them
Run = Callable[[Case, Tensor, Tensor, Tensor, Tensor], Found]


def scores(case: Case, q: Tensor, k: Tensor, bias: Tensor, scale: float | None = None) -> Tensor:
    s = q @ k.transpose(-1, -2) * (case.scale if scale is None else scale)
    s = s if case.softcap is None else case.softcap * torch.tanh(s / case.softcap)
    return (s + bias).masked_fill(~torch.tensor(case.visible), -math.inf)


def plain(case, q, k, v, bias):
    p = torch.softmax(scores(case, q, k, bias), -1)
    return {"o": p @ v, "weights": p}


def float32_softmax(case, q, k, v, bias):
    """Eager code of many models: scores in the dtype, softmax in float32, weights cast back."""
    p = torch.softmax(scores(case, q, k, bias), -1, dtype=torch.float32).to(v.dtype)
    return {"o": p @ v, "weights": p}


def exp2(case, q, k, v, bias):
    t = scores(case, q, k, bias)
    e = torch.exp2((t - t.amax(-1, keepdim=True)) * math.log2(math.e))
    return {"o": (e @ v) * (1 / e.sum(-1, keepdim=True))}


def prescaled(case, q, k, v, bias):
    root = math.sqrt(abs(case.scale))
    t = scores(case, q * root, k * math.copysign(root, case.scale), bias, 1.0)
    return {"o": torch.softmax(t, -1) @ v, "lse": torch.logsumexp(t, -1)}


def rows(case, q, k, v, bias):
    outs = []
    for t in scores(case, q, k, bias).unbind(2):
        e = torch.exp(t - t.amax(-1, True))
        outs.append((e / e.sum(-1, True))[:, :, None] @ v)
    return {"o": torch.cat(outs, 2)}


def log_sum(case, q, k, v, bias):
    """Weights as exp(t - L), not by a division."""
    t = scores(case, q, k, bias)
    L = torch.logsumexp(t, -1, keepdim=True)
    p = (t - L.masked_fill(L.isneginf(), 0.0)).exp()
    return {"o": p @ v, "weights": p, "lse": L[..., 0]}


def online(size: int) -> Run:
    def run(case, q, k, v, bias):
        t = scores(case, q, k, bias)
        m = torch.full_like(t[..., :1], -math.inf)
        z, o = torch.zeros_like(m), torch.zeros(*t.shape[:3], v.shape[-1], dtype=t.dtype)
        for start in range(0, t.shape[-1], size):
            block = t[..., start : start + size]
            new = torch.maximum(m, block.amax(-1, keepdim=True))
            safe = new.masked_fill(torch.isinf(new), 0.0)
            e, keep = torch.exp(block - safe), torch.exp(m - safe)
            part = e.to(v.dtype).to(t.dtype) @ v[..., start : start + size, :].to(
                t.dtype
            )  # summed in the format of the scores
            z, o, m = z * keep + e.sum(-1, keepdim=True), o * keep + part, new
        return {"o": o / z, "lse": (m + torch.log(z))[..., 0]}

    return run


def merged(case, q, k, v, bias):
    """Halves of the keys, joined by their log-sum-exp as ring attention joins them."""
    t = scores(case, q, k, bias)
    cut = (t.shape[-1] + 1) // 2
    parts = []
    for some in (slice(0, cut), slice(cut, None)):
        L = (
            torch.logsumexp(t[..., some], -1, keepdim=True)
            if t[..., some].shape[-1]
            else torch.full_like(t[..., :1], -math.inf)
        )
        p = (t[..., some] - L.masked_fill(L.isneginf(), 0.0)).exp()
        parts.append((p.to(v.dtype) @ v[..., some, :], L))
    (o1, L1), (o2, L2) = parts
    L = torch.logaddexp(L1, L2)
    return {"o": o1 * (L1 - L).exp() + o2 * (L2 - L).exp(), "lse": L[..., 0]}


def torch_fused(backend: SDPBackend) -> Run:
    def run(case, q, k, v, bias):
        if backend == SDPBackend.FLASH_ATTENTION:
            bias = bias.detach()  # the kernel has no gradient for the mask
        mask = bias.masked_fill(~torch.tensor(case.visible), -math.inf)
        mask = None if case.bias is None and case.visible.all() else mask
        with sdpa_kernel(backend):
            return {"o": torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=case.scale)}

    return run


def in_float32(run: Run, *, cast: bool) -> Run:
    """Scores and softmax in float32 from 16-bit inputs; the weights cast back before they multiply the values, or not."""

    def widened(case, q, k, v, bias):
        found = run(case, q.float(), k.float(), v if cast else v.float(), bias.float())
        return {name: y if name == "lse" else y.to(v.dtype) for name, y in found.items()}

    return widened


def weights_cast(case, q, k, v, bias):
    p = torch.softmax(scores(case, q, k, bias), -1)
    return {"o": p.to(v.dtype) @ v, "weights": p}


def unnormalised_cast(case, q, k, v, bias):
    """A flash kernel: exponentials cast, the sum kept, one division at the end."""
    t = scores(case, q, k, bias)
    m = t.amax(-1, keepdim=True)
    e = torch.exp(t - m)
    z = e.sum(-1, keepdim=True)
    return {"o": (e.to(v.dtype).float() @ v.float()) / z, "lse": (m + z.log())[..., 0]}


KERNELS = {"torch math": torch_fused(SDPBackend.MATH), "torch flash": torch_fused(SDPBackend.FLASH_ATTENTION)}
EAGER: dict[str, Run] = {"plain": plain, "exp2": exp2, "prescaled": prescaled, "rows": rows}
FORMS = EAGER | {"log_sum": log_sum, "online 5": online(5), "online 16": online(16), "merged": merged}
WIDENED = {f"{name} in float32": in_float32(run, cast=False) for name, run in FORMS.items()}
SUBJECTS: dict[str, dict[str, Run]] = {
    "wide": FORMS | KERNELS,
    "fused": KERNELS
    | WIDENED
    | {
        "weights cast": in_float32(weights_cast, cast=True),
        "exponentials cast": in_float32(unnormalised_cast, cast=True),
        "online 5, weights cast": in_float32(online(5), cast=True),
        "online 16, weights cast": in_float32(online(16), cast=True),
    },
    "stored": EAGER | {"float32 softmax": float32_softmax},
    "stored-blocks": {"online 5": online(5), "online 16": online(16)},
}


def able(case: Case, kind: str) -> list[str]:
    """The implementations of a class that can compute the case: kernels have no soft cap, flash needs D = E."""
    unable = set(KERNELS) if case.softcap else set()
    unable |= {"torch flash"} if case.v.shape[-1] != case.q.shape[-1] else set()
    return [name for name in SUBJECTS[kind] if name not in unable]


def computed(case: Case, run: Run) -> dict[str, np.ndarray]:
    """Output, gradients by autograd, and what else comes with the output, in float64."""
    q, k, v, bias = case.tensors()
    found = run(case, q, k.repeat_interleave(case.group, 1), v.repeat_interleave(case.group, 1), bias)
    found["o"].backward(torch.tensor(case.cotangent, dtype=TORCH[case.dtype]).to(found["o"].dtype))
    found |= {name: y.grad for name, y in (("q", q), ("k", k), ("v", v), ("bias", bias)) if y.grad is not None}
    return {name: y.detach().double().numpy() for name, y in found.items()}
