"""What Hypothesis draws, made a function of the seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


@contextmanager
def by_the_seed_alone() -> Iterator[None]:
    """Inside, the modules that happen to be loaded change nothing that Hypothesis draws.

    Hypothesis favours constants that it reads in the source of the modules loaded from outside site-packages. A test suite
    gains by that. An audit would look at other cases under pytest than in a process of its own, and in an editable
    installation than in a plain one: `--seed` would not repeat it. Hypothesis has no setting for this; a version without
    these two names is left as it is.
    """
    with ExitStack() as stack:
        if hasattr(providers, "_get_local_constants") and hasattr(providers, "CONSTANTS_CACHE"):
            none, cache = Constants(), type(providers.CONSTANTS_CACHE)(1024)
            stack.enter_context(patch.object(providers, "_get_local_constants", lambda: none))
            stack.enter_context(patch.object(providers, "CONSTANTS_CACHE", cache))
        yield


def drawn(strategy: SearchStrategy[T], examples: int, seed: str) -> list[T]:
    """So many draws of a strategy, the same ones for the same seed."""
    found: list[T] = []

    @hypothesis.seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @hypothesis.given(strategy)
    def collect(one: T) -> None:
        found.append(one)

    if examples:
        with by_the_seed_alone():
            collect()
    return found
