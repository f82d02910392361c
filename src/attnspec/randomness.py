"""Randomness made repeatable: the seed of a case as whatever a function draws its dropout from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def seeded(library: str, seed: int) -> Iterator[None]:
    """Seeds the global generators that code on these arrays may draw from, and restores them afterwards."""
    # The legacy generator is the one that functions without a generator argument draw from.
    before = np.random.get_state()
    np.random.seed(seed)
    generator = _global(library)
    kept = None if generator is None else generator.get_state()
    try:
        if generator is not None:  # not torch.manual_seed, which also asks for CUDA and is slow
            generator.manual_seed(seed)
        yield
    finally:
        np.random.set_state(before)
        if generator is not None:
            generator.set_state(kept)


def _global(library: str) -> Any:
    """The generator of torch that code without one draws from, on the CPU; a call on a GPU draws from that one's own."""
    if library != "torch":
        return None
    import torch

    return torch.default_generator


def source(library: str, seed: int) -> Any:
    """A generator of the library, or a key of JAX, that starts from the seed."""
    if library == "torch":
        import torch

        return torch.Generator().manual_seed(seed)
    if library == "jax":
        import jax

        return jax.random.key(seed)
    return np.random.default_rng(seed)
