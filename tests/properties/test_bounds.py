"""The bounds hold for correct implementations of many kinds, and reject wrong ones (docs/bounds.md)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnspec.properties.bounds import forward, preconditions, wide
from attnspec.properties.bounds_backward import backward

torch.set_num_threads(1)

DTYPES = {"float32": torch.float32, "float64": torch.float64}
INPUTS = (
    "normal", "heavy", "ties", "needle", "near overflow", "constant plus noise", "huge under tiny", "equal", "positive",
    "shared offset", "tiny",
)  # fmt: skip
MASKS = ("none", "causal", "boolean", "window", "normal bias", "-1e4 bias", "-max bias")


@dataclass(frozen=True)
class Case:
    """Inputs exactly representable in `dtype`, held in float64."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    cotangent: np.ndarray
    visible: np.ndarray
    bias: np.ndarray | None
    scale: float
    softcap: float | None
    dtype: str

    @property
    def group(self) -> int:
        return self.q.shape[1] // self.k.shape[1]

    def options(self) -> dict:
        return {"visible": self.visible, "bias": self.bias, "scale": self.scale, "softcap": self.softcap}

    def tensors(self) -> list[torch.Tensor]:
        """q, k, v and the dense bias as leaves of a graph; the bias is 0 if there is none."""
        bias = np.broadcast_to(0.0 if self.bias is None else self.bias, self.visible.shape)
        leaves = (self.q, self.k, self.v, bias.copy())
        return [torch.tensor(y, dtype=DTYPES[self.dtype], requires_grad=True) for y in leaves]


def make(seed: int, inputs: str, mask: str, size: float, sizes: tuple, heads: tuple, cap: float | None, dtype: str):
    """One case; every row sees a key, so that implementations need no policy for empty rows."""
    rng, (T, S, D, E), (H, G) = np.random.default_rng(seed), sizes, heads
    q, k, v = (rng.normal(size=shape) for shape in ((1, H, T, D), (1, G, S, D), (1, G, S, E)))
    q, k = q * size, k * size ** rng.choice([0, 1])
    limit, tiny = (float(y) for y in (np.finfo(dtype).max, np.finfo(dtype).tiny))
    if inputs == "heavy":
        q, k, v = (y * np.exp(2 * rng.standard_t(3, size=y.shape).clip(-8, 8)) for y in (q, k, v))
    elif inputs == "ties":
        q, k, v = np.round(q), np.round(k), np.sign(v)
    elif inputs == "needle":
        k[..., rng.integers(S), :] *= 30
    elif inputs == "near overflow":
        q, k = (math.sqrt(limit / 40 / D) * rng.uniform(-1, 1, y.shape) for y in (q, k))
    elif inputs == "constant plus noise":
        v = 1 + v * 10.0 ** -rng.integers(1, 9)
    elif inputs == "huge under tiny":
        k[..., -1, :], v[..., -1, :] = -k[..., 0, :], 10.0 ** rng.integers(3, 20)
    elif inputs == "equal":
        k = k[..., :1, :].repeat(S, axis=2)
    elif inputs == "positive":
        v = np.abs(v)
    elif inputs == "shared offset":
        k = k + 100
    elif inputs == "tiny":
        q, v = (y * tiny * 10.0 ** rng.integers(0, 12) for y in (q, v))
    some, causal = rng.random((1, H, T, S)) < 0.5, np.tri(T, S, dtype=bool)
    allowed = {"causal": causal, "window": causal & ~np.tri(T, S, -3, dtype=bool), "boolean": some}
    visible, bias = np.ones((1, H, T, S), bool) & allowed.get(mask, True), None
    visible[..., 0] |= ~visible.any(-1)
    if mask.endswith("bias"):
        low = {"-1e4 bias": -1e4, "-max bias": -limit}.get(mask)
        shape = (1, rng.choice([1, H]), T, S)
        bias = rng.normal(size=shape) if low is None else np.where(rng.random(shape) < 0.5, low, 0.0)
        bias[..., 0] = 0
    factor = 1.0 if inputs == "normal" else rng.choice([1, 1, 1, -1, 0.1, 0, 3])
    cotangent = rng.normal(size=(1, H, T, E)) * 10.0 ** rng.integers(-3, 4)
    q, k, v, cotangent = (y.astype(dtype).astype(float) for y in (q, k, v, cotangent))
    bias = None if bias is None else bias.astype(dtype).astype(float)
    return Case(q, k, v, cotangent, visible, bias, float(factor / math.sqrt(D)), cap, dtype)


@st.composite
def cases(draw: st.DrawFn, dtype: str) -> Case:
    """Cases of every kind of input and mask, with 1 to 40 queries and keys of width 1 to 64."""
    D = draw(st.sampled_from((1, 2, 3, 8, 16, 64)))
    sizes = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), D, draw(st.sampled_from((D, D, 1, 5))))
    heads = draw(st.sampled_from(((1, 1), (2, 2), (2, 1), (4, 2))))
    size = 10.0 ** draw(st.sampled_from((-3, -1, 0, 0, 0, 1, 2, 3)))
    inputs = draw(st.sampled_from(INPUTS))
    cap = draw(st.sampled_from((None, None, None, 5.0)))
    return make(draw(st.integers(0, 2**32)), inputs, draw(st.sampled_from(MASKS)), size, sizes, heads, cap, dtype)


def exact(case: Case, kind: type = np.float64) -> dict[str, np.ndarray]:
    """Output and gradients by the formulas, in float64 or long double."""
    q, k, v, cotangent = (y.astype(kind) for y in (case.q, case.k, case.v, case.cotangent))
    k, v = k.repeat(case.group, axis=1), v.repeat(case.group, axis=1)
    s = kind(case.scale) * (q @ k.swapaxes(-1, -2))
    capped = s if case.softcap is None else case.softcap * np.tanh(s / case.softcap)
    t = np.where(case.visible, capped + (0 if case.bias is None else case.bias.astype(kind)), -np.inf)
    e = np.exp(t - t.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    dP = cotangent @ v.swapaxes(-1, -2)
    dT = p * (dP - (p * dP).sum(-1, keepdims=True))
    dS = dT if case.softcap is None else dT * (1 - np.tanh(s / case.softcap) ** 2)

    def over_group(y: np.ndarray) -> np.ndarray:
        return y.reshape(1, -1, case.group, *y.shape[2:]).sum(2)

    dk, dv = kind(case.scale) * dS.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ cotangent
    return {"o": p @ v, "q": kind(case.scale) * dS @ k, "k": over_group(dk), "v": over_group(dv), "bias": dT, "p": p}


def scores(case: Case, q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor, scale: float | None = None):
    s = q @ k.transpose(-1, -2) * (case.scale if scale is None else scale)
    s = s if case.softcap is None else case.softcap * torch.tanh(s / case.softcap)
    return (s + bias).masked_fill(~torch.tensor(case.visible), -math.inf)


def plain(case, q, k, v, bias):
    return torch.softmax(scores(case, q, k, bias), -1) @ v


def exp2(case, q, k, v, bias):
    t = scores(case, q, k, bias)
    e = torch.exp2((t - t.amax(-1, keepdim=True)) * math.log2(math.e))
    return (e @ v) * (1 / e.sum(-1, keepdim=True))


def prescaled(case, q, k, v, bias):
    root = math.sqrt(abs(case.scale))
    return torch.softmax(scores(case, q * root, k * math.copysign(root, case.scale), bias, 1.0), -1) @ v


def rows(case, q, k, v, bias):
    outs = []
    for t in scores(case, q, k, bias).unbind(2):
        e = torch.exp(t - t.amax(-1, True))
        outs.append((e / e.sum(-1, True))[:, :, None] @ v)
    return torch.cat(outs, 2)


def online(case, q, k, v, bias):
    t = scores(case, q, k, bias)
    m = torch.full_like(t[..., :1], -math.inf)
    z, o = torch.zeros_like(m), torch.zeros(*t.shape[:3], v.shape[-1], dtype=v.dtype)
    for start in range(0, t.shape[-1], 5):
        block = t[..., start : start + 5]
        new = torch.maximum(m, block.amax(-1, keepdim=True))
        safe = new.masked_fill(torch.isinf(new), 0.0)
        e, keep = torch.exp(block - safe), torch.exp(m - safe)
        z, o, m = z * keep + e.sum(-1, keepdim=True), o * keep + e @ v[..., start : start + 5, :], new
    return o / z


def fused(backend: SDPBackend) -> Callable:
    def run(case, q, k, v, bias):
        if backend == SDPBackend.FLASH_ATTENTION:
            bias = bias.detach()  # the kernel has no gradient for the mask
        mask = bias.masked_fill(~torch.tensor(case.visible), -math.inf)
        mask = None if case.bias is None and case.visible.all() else mask
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=case.scale)

    return run


def log_sum(case, q, k, v, bias):
    """Weights as exp(t - L), not by a division."""
    t = scores(case, q, k, bias)
    L = torch.logsumexp(t, -1, keepdim=True)
    return (t - L.masked_fill(L.isneginf(), 0.0)).exp() @ v


IMPLEMENTATIONS: dict[str, Callable] = {
    "plain": plain, "log_sum": log_sum, "exp2": exp2, "prescaled": prescaled, "rows": rows, "online": online,
    "torch math": fused(SDPBackend.MATH), "torch flash": fused(SDPBackend.FLASH_ATTENTION),
}  # fmt: skip


def computed(case: Case, run: Callable) -> dict[str, np.ndarray]:
    """Output and gradients of one implementation, by autograd."""
    q, k, v, bias = case.tensors()
    out = run(case, q, k.repeat_interleave(case.group, 1), v.repeat_interleave(case.group, 1), bias)
    out.backward(torch.tensor(case.cotangent, dtype=out.dtype))
    got = {"o": out, "q": q.grad, "k": k.grad, "v": v.grad, "bias": bias.grad}
    return {name: y.detach().numpy().astype(float) for name, y in got.items() if y is not None}


def ratio(got: np.ndarray, want: np.ndarray, error: np.ndarray) -> float:
    """r of 5.2, the largest error in units of the bound; a NaN is infinitely wrong."""
    off = np.abs(np.where(np.isnan(got), np.inf, got) - want).astype(float)
    with np.errstate(all="ignore"):
        return float(np.where(off <= 0, 0.0, off / error).max(initial=0.0))


def bounds(case: Case) -> dict[str, np.ndarray]:
    """The bounds of the output and, where they decide something, of the gradients."""
    inputs, f = (case.q, case.k, case.v), wide(case.dtype)
    allowed = {"o": forward(*inputs, **case.options(), precision=f).error}
    of = backward(*inputs, case.cotangent, **case.options(), precision=f)
    applies = preconditions(*inputs, **case.options(), dtype=case.dtype, cotangent=case.cotangent) is None
    return allowed | ({"q": of.q, "k": of.k, "v": of.v, "bias": of.bias} if applies and not of.vacuous else {})


def ratios(case: Case) -> dict[tuple[str, str], float]:
    """r of each implementation and quantity; empty where the bounds do not apply."""
    if preconditions(case.q, case.k, case.v, **case.options(), dtype=case.dtype) is not None:
        return {}
    want, allowed, found = exact(case), bounds(case), {}
    unable = ["torch flash"] * (case.v.shape[-1] != case.q.shape[-1]) + ["torch flash", "torch math"] * bool(case.softcap)
    for name in IMPLEMENTATIONS.keys() - set(unable):
        got = computed(case, IMPLEMENTATIONS[name])
        found |= {(name, y): ratio(got[y], want[y], allowed[y]) for y in allowed if y in got}
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_correct_implementations_stay_within_the_bounds(dtype: str) -> None:
    @settings(derandomize=True, deadline=None, max_examples=120, database=None)
    @given(cases(dtype))
    def check(case: Case) -> None:
        found = ratios(case)
        assert all(r <= 1 for r in found.values()), {key: r for key, r in found.items() if r > 1}

    check()


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(cases("float64"))
def test_float64_oracle_stays_within_its_share(case: Case) -> None:
    if preconditions(case.q, case.k, case.v, **case.options(), dtype="float64") is None:
        got, want, allowed = exact(case), exact(case, np.longdouble), bounds(case)
        assert all(ratio(got[y], want[y], error / 2) <= 1 for y, error in allowed.items())


def ordinary(seed: int, dtype: str) -> Case:
    """Ordinary numbers and few keys, where the bounds have power (docs/bounds.md)."""
    return make(seed, "normal", "causal", 1.0, (9, 9, 8, 8), (2, 1), None, dtype)


def rounded_inside(kind: torch.dtype) -> Callable[[Case], dict[str, np.ndarray]]:
    """Everything computed in a lower precision, from inputs that it may round."""

    def run(case: Case) -> dict[str, np.ndarray]:
        q, k, v, bias = (y.detach().to(kind).requires_grad_() for y in case.tensors())
        out = plain(case, q, k.repeat_interleave(case.group, 1), v.repeat_interleave(case.group, 1), bias)
        out.backward(torch.tensor(case.cotangent, dtype=kind))
        return {n: y.detach().double().numpy() for n, y in zip("oqkv", (out, q.grad, k.grad, v.grad), strict=True)}

    return run


def seeing(case: Case, visible: np.ndarray) -> dict[str, np.ndarray]:
    return exact(replace(case, visible=np.broadcast_to(visible, case.visible.shape)))


def epsilon_in_denominator(case: Case) -> dict[str, np.ndarray]:
    return {"o": exact(case)["o"] / (1 + 1e-3 * exact(case)["p"].max(-1, keepdims=True))}  # the sum is 1 / max p


def without_mean(case: Case) -> dict[str, np.ndarray]:
    """The gradient of the scores without its -D term."""
    p, v = exact(case)["p"], case.v.repeat(case.group, axis=1)
    return {"q": case.scale * (p * (case.cotangent @ v.swapaxes(-1, -2))) @ case.k.repeat(case.group, axis=1)}


KEYS, QUERIES = np.arange(9)[None, :], np.arange(9)[:, None]
WRONG: dict[str, Callable[[Case], dict[str, np.ndarray]]] = {
    "zeros": lambda case: {name: 0 * y for name, y in exact(case).items()},
    "mean of values": lambda case: {"o": case.v.mean(-2, keepdims=True) + np.zeros_like(case.cotangent)},
    "nan": lambda case: {name: np.nan * y for name, y in exact(case).items()},
    "scale 1/d": lambda case: exact(replace(case, scale=case.scale / math.sqrt(case.q.shape[-1]))),
    "causal one key too many": lambda case: seeing(case, KEYS <= QUERIES + 1),
    "causal one key too few": lambda case: seeing(case, np.maximum(QUERIES - 1, 0) >= KEYS),
    "last key dropped": lambda case: seeing(case, (KEYS <= QUERIES) & (KEYS < 8)),
    "1e-3 in the denominator": epsilon_in_denominator,
    "no -D term": without_mean,
    "bfloat16 inside": rounded_inside(torch.bfloat16),
    "float32 inside": rounded_inside(torch.float32),
}


@pytest.mark.parametrize(("name", "dtype"), sorted(set(product(WRONG, DTYPES)) - {("float32 inside", "float32")}))
def test_wrong_computations_are_rejected(name: str, dtype: str) -> None:
    for seed in range(10):
        case = ordinary(seed, dtype)
        want, allowed, got = exact(case), bounds(case), WRONG[name](case)
        assert all(ratio(got[y], want[y], allowed[y]) > 1 for y in allowed.keys() & got.keys())
