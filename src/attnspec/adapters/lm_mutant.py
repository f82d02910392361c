"""`lm-mutant:ID` and `lm-variant:NAME`: planted defects of small models, and correct ones that are built very differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter
from attnspec.properties.model_mutants import describe, ids, load


class _Mutants(Mapping[str, str]):
    """Listed only when asked: an adapter is made at every start."""

    def __getitem__(self, key: str) -> str:
        return describe(key).imitates

    def __iter__(self) -> Any:
        return iter(ids())

    def __len__(self) -> int:
        return len(ids())


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    model: Any = load(name)()
    return model, {}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return "from attnspec.properties.model_mutants import load", f"load({name!r})()"


ADAPTER = Adapter(name="lm-mutant", targets=_Mutants(), load=_load, expression=_expression)
