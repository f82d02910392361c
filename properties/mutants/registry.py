"""What is recorded about a mutant; no torch here, so that a listing stays cheap."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Mutant:
    """A planted defect: what it imitates, where that bug was seen, and where the imitation lives."""

    id: str
    imitates: str
    source: str
    where: str


_TENSORS = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("q", "k", "v")]
_DEFAULTS = {"mask": None, "bias": None, "causal": False, "scale": None, "window": None, "softcap": None}
_MORE = {"sinks": None, "dropout": 0.0, "seed": 0, "need_weights": False, "return_lse": False}
_OPTIONS = [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in (_DEFAULTS | _MORE).items()]
CANONICAL = Signature([*_TENSORS, *_OPTIONS])
SMALL = Signature([*_TENSORS, *_OPTIONS[: len(_DEFAULTS)]])  # of functions that return the output alone
_SELF = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)


def mutant(mutant_id: str, *, imitates: str, source: str) -> Callable[[F], F]:
    """Stores the metadata as `__mutant__` and shows the canonical signature in place of `**options`."""

    def mark(target: F) -> F:
        marked: Any = target
        file = marked.__module__.rsplit(".", 1)[-1]
        marked.__mutant__ = Mutant(mutant_id, imitates, source, location(file, marked.__name__))
        if isinstance(target, type):
            marked.__call__.__signature__ = Signature([_SELF, *_TENSORS, *_OPTIONS])
        else:
            marked.__signature__ = CANONICAL
        return target

    return mark


def location(family: str, name: str) -> str:
    """Where a mutant lives, written as pytest writes it."""
    return f"properties/mutants/{family}.py::{name}"
