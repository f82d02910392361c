"""The decoration of a planted defect of an attention function."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, TypeVar

from attnspec.properties.mutant import record

F = TypeVar("F", bound=Callable[..., Any])


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
        record(marked, mutant_id, imitates, source)
        if isinstance(target, type):
            marked.__call__.__signature__ = Signature([_SELF, *_TENSORS, *_OPTIONS])
        else:
            marked.__signature__ = CANONICAL
        return target

    return mark
