"""What Hypothesis draws, made a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants


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
