"""What every language model says of itself, checked before it is asked for anything."""

from __future__ import annotations

import operator
from typing import Any

from attnspec.errors import UsageError
from attnspec.properties.verdict import first_line


def checked_model(model: Any, target: str) -> Any:
    """The model. Errors: UsageError if it lacks what every language model has, or what it says cannot be."""
    for name, rule in (("logits", "logits(ids) -> [B,T,V]"), ("vocab_size", "vocab_size, how many words there are")):
        if not hasattr(type(model), name) and not hasattr(model, name):  # of a property it is not asked here: it may raise
            raise UsageError(f"target {target!r}: a language model has {rule}; {type(model).__name__} has no {name!r}")
    if hasattr(model, "start") != hasattr(model, "extend"):
        raise UsageError(f"target {target!r}: start(batch) and extend(ids, state) come together; one of them is missing")
    words = _whole(_said(model, "vocab_size", target), f"target {target!r}: vocab_size", "1 or more")
    if words < 1:
        raise UsageError(f"target {target!r}: vocab_size={words} is not 1 or more")
    most = _said(model, "max_length", target)
    if most is not None and _whole(most, f"target {target!r}: max_length", "0 or more") < 0:
        raise UsageError(f"target {target!r}: max_length={most} is not 0 or more; where there is no limit, leave it out")
    tokens = _said(model, "tokens", target)
    if tokens is not None and not _is_range(tokens, words):
        raise UsageError(
            f"target {target!r}: tokens={tokens!r} is no range (low, high) of ids with 0 <= low < high <= vocab_size={words}"
        )
    return model


def _said(model: Any, name: str, target: str) -> Any:
    try:
        return getattr(model, name, None)
    except Exception as error:
        raise UsageError(f"target {target!r}: {name} raises {first_line(error)}") from None


def _whole(value: Any, name: str, rule: str) -> int:
    try:
        number = int(value)
        whole = bool(number == value)
    except Exception:  # of whatever was put there
        whole = False
    if not whole:
        raise UsageError(f"{name}={value!r} ({type(value).__name__}) is not a whole number, {rule}")
    return number


def _is_range(tokens: Any, words: int) -> bool:
    try:
        low, high = (operator.index(end) for end in tokens)
    except (TypeError, ValueError):
        return False
    return 0 <= low < high <= words
