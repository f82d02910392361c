"""Cases for the bounds, made without the tool's own strategies, and their exact values."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

TORCH = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INPUTS = (
    "normal", "heavy", "ties", "needle", "near overflow", "constant plus noise", "huge under tiny", "equal", "positive",
    "shared offset", "tiny", "tiny gradient",
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
        return [torch.tensor(y, dtype=TORCH[self.dtype], requires_grad=True) for y in leaves]


def make(seed: int, inputs: str, mask: str, size: float, sizes: tuple, heads: tuple, cap: float | None, dtype: str):
    """One case; every row sees a key, so that implementations need no policy for empty rows."""
    rng, (T, S, D, E), (H, G) = np.random.default_rng(seed), sizes, heads
    q, k, v = (rng.normal(size=shape) for shape in ((1, H, T, D), (1, G, S, D), (1, G, S, E)))
    q, k = q * size, k * size ** rng.choice([0, 1])
    limit, tiny = torch.finfo(TORCH[dtype]).max, torch.finfo(TORCH[dtype]).tiny
    decades = int(math.log10(limit))
    if inputs == "heavy":
        q, k, v = (y * np.exp(2 * rng.standard_t(3, size=y.shape).clip(-8, min(8, decades / 2))) for y in (q, k, v))
    elif inputs == "ties":
        q, k, v = np.round(q), np.round(k), np.sign(v)
    elif inputs == "needle":
        k[..., rng.integers(S), :] *= 30
    elif inputs == "near overflow":
        q, k = (math.sqrt(limit / 40 / D) * rng.uniform(-1, 1, y.shape) for y in (q, k))
    elif inputs == "constant plus noise":
        v = 1 + v * 10.0 ** -rng.integers(1, 9)
    elif inputs == "huge under tiny":
        k[..., -1, :], v[..., -1, :] = -k[..., 0, :], 10.0 ** rng.integers(3, min(20, decades))
    elif inputs == "equal":
        k = k[..., :1, :].repeat(S, axis=2)
    elif inputs == "positive":
        v = np.abs(v)
    elif inputs == "shared offset":
        k = k + 100
    elif inputs == "tiny":
        q, v = (y * tiny * 10.0 ** rng.integers(0, 12 if decades > 5 else 5) for y in (q, v))
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
    cotangent = rng.normal(size=(1, H, T, E)) * 10.0 ** rng.integers(-3, 4 if decades > 5 else 2)
    if inputs == "tiny gradient":  # near the smallest subnormal, where each product may underflow
        least = -math.log2(tiny) + (10 if dtype == "float16" else 0)
        cotangent, v = cotangent * 2.0 ** -rng.uniform(0, least), v * 2.0 ** -rng.uniform(0, least / 3)
        q, k = q * 2.0 ** -rng.uniform(-1, least / 3), k * 2.0 ** -rng.uniform(-1, least / 3)
    q, k, v, cotangent = (held(y, dtype) for y in (q, k, v, cotangent))
    bias = None if bias is None else held(bias, dtype)
    return Case(q, k, v, cotangent, visible, bias, float(factor / math.sqrt(D)), cap, dtype)


def held(y: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest finite numbers of a dtype."""
    limit = torch.finfo(TORCH[dtype]).max
    return torch.tensor(y.clip(-limit, limit)).to(TORCH[dtype]).double().numpy()


@st.composite
def cases(draw: st.DrawFn, dtype: str) -> Case:
    """Cases of every kind of input and mask, with 1 to 40 queries and keys of width 1 to 64."""
    return drawn(np.random.default_rng(draw(st.integers(0, 2**32))), dtype)


def drawn(rng: np.random.Generator, dtype: str, inputs: str | None = None) -> Case:
    """A random case of random kind."""
    D = int(rng.choice((1, 2, 3, 8, 16, 64)))
    sizes = (int(rng.integers(1, 41)), int(rng.integers(1, 41)), D, int(rng.choice((D, D, 1, 5))))
    heads = ((1, 1), (2, 2), (2, 1), (4, 2))[rng.integers(4)]
    size = 10.0 ** rng.choice((-3, -1, 0, 0, 0, 1, 1 if dtype == "float16" else 2, 0.5 if dtype == "float16" else 3))
    kind = INPUTS[rng.integers(len(INPUTS))] if inputs is None else inputs
    cap = (None, None, None, 5.0)[rng.integers(4)]
    return make(int(rng.integers(2**32)), kind, MASKS[rng.integers(len(MASKS))], size, sizes, heads, cap, dtype)


def exact(case: Case, kind: type = np.float64) -> dict[str, np.ndarray]:
    """Output, gradients, weights and log-sum-exp by the formulas, in float64 or long double."""
    q, k, v, cotangent = (y.astype(kind) for y in (case.q, case.k, case.v, case.cotangent))
    k, v = k.repeat(case.group, axis=1), v.repeat(case.group, axis=1)
    s = kind(case.scale) * (q @ k.swapaxes(-1, -2))
    capped = s if case.softcap is None else case.softcap * np.tanh(s / case.softcap)
    t = np.where(case.visible, capped + (0 if case.bias is None else case.bias.astype(kind)), -np.inf)
    m = t.max(-1, keepdims=True)
    e = np.exp(t - m)
    p = e / e.sum(-1, keepdims=True)
    dP = cotangent @ v.swapaxes(-1, -2)
    dT = p * (dP - (p * dP).sum(-1, keepdims=True))
    dS = dT if case.softcap is None else dT * (1 - np.tanh(s / case.softcap) ** 2)

    def over_group(y: np.ndarray) -> np.ndarray:
        return y.reshape(1, -1, case.group, *y.shape[2:]).sum(2)

    dk, dv = kind(case.scale) * dS.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ cotangent
    lse = (m + np.log(e.sum(-1, keepdims=True)))[..., 0]
    found = {"o": p @ v, "q": kind(case.scale) * dS @ k, "k": over_group(dk), "v": over_group(dv), "bias": dT}
    return found | {"weights": p, "lse": lse}
