"""`variant:NAME`: correct implementations that are written very differently; no claim may find fault with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter
from attnspec.properties.mutants.registry import CANONICAL
from attnspec.properties.variants import VARIANTS, load


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    function: Any = load(name)
    function.__signature__ = CANONICAL
    return function, dict(getattr(function, "__attnspec__", {}))


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return f"from attnspec.properties.variants import load\nattention = load({name!r})", "attention"


TARGETS = dict.fromkeys(VARIANTS, "a correct variant")
ADAPTER = Adapter(name="variant", targets=TARGETS, load=_load, expression=_expression)
