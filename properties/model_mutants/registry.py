"""The decoration of a planted defect of a model."""

from collections.abc import Callable
from typing import Any, TypeVar

from attnspec.properties.mutant import record

F = TypeVar("F", bound=Callable[..., Any])


def mutant(mutant_id: str, *, imitates: str, source: str) -> Callable[[F], F]:
    """Stores the metadata as `__mutant__` of a class, or of a function, that returns a model when it is called."""

    def mark(target: F) -> F:
        record(target, mutant_id, imitates, source)
        return target

    return mark
