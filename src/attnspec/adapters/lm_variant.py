"""`lm-variant:NAME`: small models that are correct, each built in another way; no claim may find fault with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter

# By name only: the models themselves need torch.
NAMES = (
    "learned", "sinusoidal", "rotary", "alibi", "no_positions", "grouped", "multi_query", "window", "ring",
    "ring_alibi_grouped", "static", "static_learned_window", "gru", "linear", "hybrid_gru", "hybrid_linear_ring",
)  # fmt: skip


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    from attnspec.properties.model_mutants.variants import VARIANTS

    del options
    model: Any = VARIANTS[name]()
    return model, {}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return "from attnspec.properties.model_mutants.variants import VARIANTS", f"VARIANTS[{name!r}]()"


ADAPTER = Adapter(name="lm-variant", targets=dict.fromkeys(NAMES, "a correct model"), load=_load, expression=_expression)
