"""`mutant:ID` and `variant:NAME`: planted defects and unusual but correct implementations, as targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter
from attnspec.properties.mutants import describe, ids, load


class _Mutants(Mapping[str, str]):
    """Listed only when asked: an adapter is made at every start."""

    def __getitem__(self, key: str) -> str:
        return describe(key).imitates

    def __iter__(self) -> Any:
        return iter(ids())

    def __len__(self) -> int:
        return len(ids())


# Every mutant starts from a correct function of these conventions; what it breaks, the claims must find.
CONVENTIONS = {
    "alignment": "top-left",
    "empty_row": "zero",
    "polarity": "attend",
    "layout": "bhtd",
    "arrays": "torch",
    "window": "left",
    "grouped": True,
    "mask": ("bool", "bias"),
    "group_order": "repeated",
}


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    function = load(name)
    return function, CONVENTIONS | getattr(function, "__attnspec__", {})


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return f"from attnspec.properties.mutants import load\nattention = load({name!r})", "attention"


ADAPTER = Adapter(name="mutant", targets=_Mutants(), load=_load, expression=_expression)
