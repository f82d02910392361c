"""The decoration of a planted defect of a model; no torch here, so that a listing stays cheap."""

from collections.abc import Callable
from typing import Any, TypeVar

from attnspec.properties.mutants.registry import Mutant

F = TypeVar("F", bound=Callable[..., Any])


def mutant(mutant_id: str, *, imitates: str, source: str) -> Callable[[F], F]:
    """Stores the metadata as `__mutant__` of a class, or of a function, that returns a model when it is called."""

    def mark(target: F) -> F:
        marked: Any = target
        file = marked.__module__.rsplit(".", 1)[-1]
        marked.__mutant__ = Mutant(mutant_id, imitates, source, location(file, marked.__name__))
        return target

    return mark


def location(family: str, name: str) -> str:
    """Where a mutant lives, written as pytest writes it."""
    return f"properties/model_mutants/{family}.py::{name}"
