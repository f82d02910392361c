"""Errors that end a command: each says the value, the rule and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """The command was given something that it cannot use: exit code 2, nothing ran."""


class CannotRun(Exception):
    """The target was found but cannot run plain float32 self-attention at T = S = 2: exit code 3 (engine 3)."""


def nearest(word: str, names: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of the names, or a full stop."""
    names = list(names)
    close = difflib.get_close_matches(word.lower(), [n.lower() for n in names], n=1, cutoff=0.4)
    return f"; did you mean {next(n for n in names if n.lower() == close[0])!r}?" if close else "."
