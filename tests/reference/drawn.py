"""Drawn cases of attention, and attention once more in scalar loops that share no code with the reference."""

import math
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st


def given(*strategies: Any, **settings: Any) -> Any:
    """hypothesis.given without a deadline: torch's first call alone takes longer, and machines are shared."""
    return lambda test: hypothesis.settings(deadline=None, **settings)(hypothesis.given(*strategies)(test))


def subshape(draw: Any, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`: some sizes are one, some leading axes are absent."""
    first = draw(st.integers(0, 2), label=f"{name}: axes left out")
    return tuple(size if draw(st.booleans(), label=f"{name}: whole axis") else 1 for size in shape[first:])


@st.composite
def cases(draw: Any, softcaps: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """q, k, v and options; normal entries, so that all intermediate results are of order one."""
    B, G, group = (draw(st.integers(1, 2), label=name) for name in ("B", "G", "H / G"))
    T, S, D, E = (draw(st.integers(1, 5), label=name) for name in "TSDE")
    H = G * group
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    options: dict[str, Any] = {
        "causal": draw(st.sampled_from([None, "top-left", "bottom-right"]), label="causal"),
        "window": draw(st.sampled_from([None, 1, 2, 7]), label="window"),
        "window_side": draw(st.sampled_from(["left", "both"]), label="side"),
        "scale": draw(st.sampled_from([None, -0.5, 0.0, 1.0]), label="scale"),
    }
    if draw(st.booleans(), label="with mask"):
        options["mask"] = rng.random(subshape(draw, "mask", (B, H, T, S))) < 0.6  # some rows are empty
    if draw(st.booleans(), label="with bias"):
        bias = rng.normal(size=subshape(draw, "bias", (B, H, T, S)))
        options["bias"] = np.where(rng.random(bias.shape) < 0.3, -np.inf, bias)
    if softcaps:
        options["softcap"] = draw(st.sampled_from([None, 0.5, 30.0]), label="softcap")
    return rng.normal(size=(B, H, T, D)), rng.normal(size=(B, G, S, D)), rng.normal(size=(B, G, S, E)), options


def sees(t: int, s: int, T: int, S: int, *, causal: Any = None, window: Any = None, window_side: str = "left") -> bool:
    """Whether causality and window let query t attend to key s, in the words of docs/notation.md."""
    p = t + S - T if causal == "bottom-right" else t
    if causal is not None and s > p:
        return False
    if window is None:
        return True
    return s in (range(p - window + 1, p + 1) if window_side == "left" else range(p - window + 1, p + window))


def loops(q: np.ndarray, k: np.ndarray, v: np.ndarray, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scores, weights and out by scalar loops; empty rows are zero."""
    (B, H, T, D), G, S, E = q.shape, k.shape[1], k.shape[2], v.shape[3]
    mask = np.broadcast_to(True if options.get("mask") is None else options["mask"], (B, H, T, S))
    bias = np.broadcast_to(0.0 if options.get("bias") is None else options["bias"], (B, H, T, S))
    scale, cap = options.get("scale"), options.get("softcap")
    scale = 1 / math.sqrt(D) if scale is None else scale
    band = {name: options.get(name) for name in ("causal", "window", "window_side")}
    score, weights, out = np.full((B, H, T, S), -np.inf), np.zeros((B, H, T, S)), np.zeros((B, H, T, E))
    for b, h, t in np.ndindex(B, H, T):
        g = h // (H // G)
        for s in range(S):
            x = scale * math.fsum(q[b, h, t] * k[b, g, s])
            x = x if cap is None else cap * math.tanh(x / cap)
            if mask[b, h, t, s] and bias[b, h, t, s] > -math.inf and sees(t, s, T, S, **band):
                score[b, h, t, s] = x + bias[b, h, t, s]
        exps = [math.exp(x) for x in score[b, h, t]]  # scores are of order one: no shift needed
        for s in range(S if any(exps) else 0):
            weights[b, h, t, s] = exps[s] / math.fsum(exps)
        for e in range(E):
            out[b, h, t, e] = math.fsum(weights[b, h, t] * v[b, g, :, e])
    return score, weights, out
