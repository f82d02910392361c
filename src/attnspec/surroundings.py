"""What lies around a call and must not matter to it: random state, default dtype, gradient mode, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

RANDOM, DTYPE, GRADIENTS, INFERENCE, THREADS = (
    "another random state",
    "another default dtype",
    "gradients switched off",
    "inference mode",
    "two threads",
)


def names(library: str) -> tuple[str, ...]:
    """The surroundings that can be changed for functions of this array library."""
    return (RANDOM, DTYPE, GRADIENTS, INFERENCE, THREADS) if library == "torch" else (RANDOM,)


@contextmanager
def changed(library: str, name: str) -> Iterator[None]:
    """Other surroundings for the block, then the old ones again."""
    if library != "torch":
        state = np.random.get_state()
        np.random.seed(20261)
        try:
            yield
        finally:
            np.random.set_state(state)
        return
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(name not in (GRADIENTS, INFERENCE)):
        try:
            if name == RANDOM:
                torch.manual_seed(20261)
            if name == DTYPE:
                torch.set_default_dtype(torch.float32 if dtype is torch.float64 else torch.float64)
            if name == THREADS:
                torch.set_num_threads(2)
            with torch.inference_mode(name == INFERENCE):
                yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


def state(library: str) -> dict[str, Any]:
    """What a call must leave as it was, by name."""
    numbers: Any = np.random.get_state()
    found: dict[str, Any] = {"NumPy's random state": numbers[1:3]}
    if library == "torch":
        import torch

        found["torch's random state"] = torch.random.get_rng_state().numpy()
        found["torch's default dtype"] = torch.get_default_dtype()
        found["torch's gradient mode"] = torch.is_grad_enabled()
        found["torch's number of threads"] = torch.get_num_threads()
    return found


def altered(library: str, before: dict[str, Any]) -> tuple[str, ...]:
    """Names of what is not as it was."""
    after = state(library)
    return tuple(name for name, value in before.items() if not _same(value, after[name]))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)
