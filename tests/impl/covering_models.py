"""The models of the covering array: for each row of options weights, tokens and padding, whose bounds are sharp."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.impl.covering_array import Row, covering_array
from tests.impl.impl_models import built
from tests.reference.drawn_models import Model, named, side_parameters, stack_parameters, weight

OPTIONS: dict[str, tuple[Any, ...]] = {
    "structure": ("encoder-decoder", "decoder", "encoder"),
    "positions": ("sinusoidal", "learned", "rotary half", "rotary interleaved", "alibi", None),
    "padding": ("none", "left", "right", "both"),
    "activation": ("relu", "gelu", "gelu_tanh", "silu"),
    "kv_heads": (4, 2, 1),
    "order": ("post", "pre"), "norm": ("layer", "rms"), "last_norm": (False, True), "gated": (False, True),
    "window": (None, 3), "softcap": (None, 5.0), "biased": (True, False), "tied": (True, False), "shared": (False, True),
    "scale_embeddings": (True, False), "embedding_norm": (False, True), "output_bias": (False, True),
    "head_width": (None, 6),
}  # fmt: skip
HEADS, WIDTH, HIDDEN, WORDS, OTHER_WORDS = 4, 8, 10, 11, 13
# A small eps lets norms multiply errors without limit; the drawn models have small ones.
EPS, DEPTH = 1.0, {"encoder": 1, "decoder": 2}


def fits(row: Any) -> bool:
    """Only an encoder and a decoder can share their embeddings."""
    return not row.get("shared") or row.get("structure", "encoder-decoder") == "encoder-decoder"


ROWS = covering_array(OPTIONS, fits)


def name_of(row: Row) -> str:
    """The row's number and its values, those that are on or off by name."""
    said = [key if value is True else str(value) for key, value in row.items() if value not in (None, False)]
    return f"{ROWS.index(row)}: {', '.join(said)}"


def real_tokens(padding: str, B: int, T: int) -> np.ndarray | None:
    """A row without padding, if there are several, and rows with more and more of it."""
    if padding == "none":
        return None
    cut = np.arange(B)[:, None] if B > 1 else np.ones((1, 1), dtype=np.int64)
    left = {"left": cut, "right": 0 * cut, "both": np.minimum(cut, T // 2)}[padding]
    right = {"left": 0 * cut, "right": cut, "both": np.minimum(cut, (T - 1) // 2)}[padding]
    return (np.arange(T) >= left) & (np.arange(T) < T - right)


def model_of_row(row: Row, B: int = 3, S: int = 7, T: int = 5, size: float = 0.7) -> Model:
    """A model with the options of a row; entries have order `size` / sqrt(columns), in tables twice that."""
    rng = np.random.default_rng(ROWS.index(row) if row in ROWS else 0)
    shape = {name: row[name] for name in ("biased", "gated", "norm", "embedding_norm")}
    positions, _, pairs = (row["positions"] or "").partition(" ")
    shape |= {"order": "pre" if row["last_norm"] else "post", "positions": positions or None}
    D = row["head_width"] or WIDTH // HEADS
    sizes = {"H": HEADS, "G": row["kv_heads"], "D": D, "F": HIDDEN}
    both = row["structure"] == "encoder-decoder"
    tokens: dict[str, Any] = {"source": None, "target": None}
    masks, parameters = {}, {}
    for side, stack, length in (("source", "encoder", S), ("target", "decoder", T)):
        if not both and row["structure"] != stack:
            continue
        V = OTHER_WORDS if both and side == "source" and not row["shared"] else WORDS
        tokens[side] = rng.integers(V, size=(B, length))
        real = real_tokens(row["padding"], B, length)
        masks |= {} if real is None else {f"{side}_mask": real}
        depth = {"L": DEPTH[stack] if both else 2}
        parameters |= named(side, side_parameters(rng, WIDTH, V, shape, row["shared"] and side == "target"))
        parameters |= named(stack, stack_parameters(rng, WIDTH, sizes | depth, shape, both and side == "target"))
    parameters |= {} if row["tied"] else {"output.weight": weight(rng, WORDS, WIDTH)}
    parameters |= {"output.bias": rng.normal(size=WORDS)} if row["output_bias"] else {}
    tables = ("embedding.weight", "position.weight", "output.weight")
    parameters = {
        name: one * (size * (2 if name.endswith(tables) else 1)) if one.ndim == 2 else one for name, one in parameters.items()
    }
    kept = ("norm", "activation", "window", "softcap", "kv_heads", "order", "scale_embeddings")
    options = {name: row[name] for name in kept} | {"heads": HEADS, "eps": EPS, "positions": positions or None}
    options |= {"rotary_pairs": pairs} if pairs else {}
    return Model(tokens["source"], tokens["target"], parameters, masks, options, WORDS)


def net_of(model: Model, dtype: torch.dtype = torch.float64) -> Any:
    """The model of impl/ with the same weights."""
    if model.source is None or model.target is None or "target.embedding.weight" not in model.parameters:
        return built(model, dtype)
    return built(model, dtype, source_vocab_size=len(model.parameters["source.embedding.weight"]))
