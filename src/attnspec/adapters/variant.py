"""`variant:NAME`: correct implementations that are written very differently; no claim may find fault with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from attnspec.adapters import Adapter, needed
from attnspec.properties.mutants.registry import SMALL
from attnspec.properties.variants import VARIANTS, load


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    try:
        function: Any = load(name)
    except ModuleNotFoundError as error:
        needed(error.name or "", f"variant:{name}")
        raise
    if Parameter.VAR_KEYWORD in (p.kind for p in signature(function).parameters.values()):
        function.__signature__ = SMALL  # `**options` of the six options that each of these understands
    return function, dict(getattr(function, "__attnspec__", {}))


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return f"from attnspec.properties.variants import load\nattention = load({name!r})", "attention"


TARGETS = dict.fromkeys(VARIANTS, "a correct variant")
ADAPTER = Adapter(name="variant", targets=TARGETS, load=_load, expression=_expression)
