"""Drawn Transformers: small ones of every kind, with tokens, padding, and every option of the reference."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

LAST_PADDING = 3  # padding tokens of a row, at most
POSITIONS = 16  # learned ones: more than any drawn sequence has


class Model(NamedTuple):
    """The arguments of `transformer`, and the size of the vocabulary."""

    source: np.ndarray | None
    target: np.ndarray | None
    parameters: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    options: dict[str, Any]
    V: int

    @property
    def arguments(self) -> dict[str, Any]:
        return self.masks | self.options

    def alone(self, row: int) -> "Model":
        """The model with one sequence of the batch, without its padding."""
        masks, kept = {}, {}
        for side in ("source", "target"):
            ids, mask = getattr(self, side), self.masks.get(f"{side}_mask")
            kept[side] = None if ids is None else ids[row : row + 1]
            if ids is not None and mask is not None:
                kept[side] = ids[row : row + 1, mask[row]]
        return self._replace(masks=masks, **kept)


def weight(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Entries such that outputs are of order one if inputs are."""
    return rng.normal(size=(rows, columns)) / np.sqrt(max(columns, 1))


def norm(rng: np.random.Generator, M: int, kind: str) -> dict[str, np.ndarray]:
    scale = {"weight": 1 + 0.3 * rng.normal(size=M)}
    return scale | ({"bias": 0.3 * rng.normal(size=M)} if kind == "layer" else {})


def named(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def attention_parameters(rng: np.random.Generator, M: int, H: int, G: int, D: int, biased: bool) -> dict[str, np.ndarray]:
    rows = {"q": H * D, "k": G * D, "v": G * D, "o": M}
    weights = {f"{name}.weight": weight(rng, n, H * D if name == "o" else M) for name, n in rows.items()}
    return weights | ({f"{name}.bias": 0.3 * rng.normal(size=n) for name, n in rows.items()} if biased else {})


def layer_parameters(rng: np.random.Generator, M: int, sizes: dict[str, int], shape: dict[str, Any], cross: bool) -> Any:
    """One layer; shape has the choices that the parameters themselves make: biased, gated, norm."""
    F, biased = sizes["F"], shape["biased"]
    maps = {"up": (F, M), "down": (M, F)} | ({"gate": (F, M)} if shape["gated"] else {})
    feed = {f"{name}.weight": weight(rng, *size) for name, size in maps.items()}
    feed |= {f"{name}.bias": 0.3 * rng.normal(size=size[0]) for name, size in maps.items()} if biased else {}
    out = named("feed_forward", feed) | named("feed_forward_norm", norm(rng, M, shape["norm"]))
    for name in ("attention", "cross") if cross else ("attention",):
        heads = attention_parameters(rng, M, sizes["H"], sizes["G"], sizes["D"], biased)
        out |= named(name, heads) | named(f"{name}_norm", norm(rng, M, shape["norm"]))
    return out


def stack_parameters(rng: np.random.Generator, M: int, sizes: dict[str, int], shape: dict[str, Any], cross: bool) -> Any:
    out = named("norm", norm(rng, M, shape["norm"])) if shape["order"] == "pre" else {}
    for i in range(sizes["L"]):
        out |= named(str(i), layer_parameters(rng, M, sizes, shape, cross))
    return out


def side_parameters(rng: np.random.Generator, M: int, V: int, shape: dict[str, Any], shared: bool) -> Any:
    out = {} if shared else {"embedding.weight": weight(rng, V, M)}
    out |= {"position.weight": weight(rng, POSITIONS, M)} if shape["positions"] == "learned" else {}
    return out | (named("embedding_norm", norm(rng, M, shape["norm"])) if shape["embedding_norm"] else {})


@st.composite
def drawn_options(draw: Any, smooth: bool = False) -> dict[str, Any]:
    """The options of `transformer`, and the choices that the parameters make: biased, gated, embedding_norm."""
    activations = ["gelu", "gelu_tanh", "silu"] if smooth else ["relu", "gelu", "gelu_tanh", "silu"]
    choices = {
        "order": ["post", "pre"], "norm": ["layer", "rms"], "activation": activations, "eps": [1e-5, 0.1],
        "positions": ["sinusoidal", "learned", "rotary", "alibi", None], "scale_embeddings": [True, False],
        "rotary_base": [10000.0, 10.0], "rotary_pairs": ["half", "interleaved"], "rotary_width": [None, 2],
        "window": [None, 1, 2, 7], "softcap": [None, 2.0], "scale": [None, 0.7],
        "biased": [True, False], "gated": [True, False], "embedding_norm": [True, False],
    }  # fmt: skip
    return {name: draw(st.sampled_from(values), label=name) for name, values in choices.items()}


@st.composite
def models(draw: Any, kinds: tuple[str, ...] = ("both", "decoder", "encoder"), smooth: bool = False) -> Model:
    """A model of one of the kinds; both is an encoder-decoder."""
    kind, chosen = draw(st.sampled_from(kinds), label="kind"), draw(drawn_options(smooth))
    G, group = draw(st.integers(1, 2), label="G"), draw(st.integers(1, 2), label="H / G")
    sizes = {"G": G, "H": G * group, "D": draw(st.sampled_from([2, 4]), label="D")}
    sizes |= {"F": draw(st.integers(1, 4), label="F"), "L": draw(st.integers(1, 2), label="L")}
    M, V = draw(st.sampled_from([4, 6]), label="M"), draw(st.integers(4, 6), label="V")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    B, options = draw(st.integers(1, 2), label="B"), {"heads": sizes["H"], "kv_heads": G} | chosen
    tied, shared = draw(st.booleans(), label="tied"), kind == "both" and draw(st.booleans(), label="shared")
    parameters = {} if tied else {"output.weight": weight(rng, V, M)}
    parameters |= {"output.bias": rng.normal(size=V)} if draw(st.booleans(), label="output bias") else {}
    tokens: dict[str, Any] = {"source": None, "target": None}
    masks: dict[str, np.ndarray] = {}
    for side, stack in (("source", "encoder"), ("target", "decoder")):
        if kind not in ("both", stack):
            continue
        T = draw(st.integers(1, 4), label=f"{side} length")
        tokens[side] = rng.integers(V, size=(B, T))
        if draw(st.booleans(), label=f"{side} mask"):
            masks[f"{side}_mask"] = rng.random((B, T)) < 0.7
        parameters |= named(side, side_parameters(rng, M, V, chosen, shared and side == "target"))
        parameters |= named(stack, stack_parameters(rng, M, sizes, chosen, kind == "both" and side == "target"))
    for name in ("biased", "gated", "embedding_norm"):
        del options[name]
    return Model(tokens["source"], tokens["target"], parameters, masks, options, V)
