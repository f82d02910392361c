"""What lies around a call and must not matter to it: random state, default dtype, gradient mode, threads.

One thing around it does matter, and within limits: autocast.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from attnspec.properties.subject import AUTOCAST

RANDOM, DTYPE, NARROW, GRADIENTS, INFERENCE, THREADS = (
    "another random state",
    "another default dtype",
    "a default dtype of 16 bits",
    "gradients switched off",
    "inference mode",
    "two threads",
)


# What a script writes before a call, and after it; a line that ends in a colon is a block around it.
WRITTEN = {
    DTYPE: ("torch.set_default_dtype(torch.float64)", "torch.set_default_dtype(torch.float32)"),
    NARROW: ("torch.set_default_dtype(torch.bfloat16)", "torch.set_default_dtype(torch.float32)"),
    GRADIENTS: ("with torch.no_grad():", ""),
    INFERENCE: ("with torch.inference_mode():", ""),
    THREADS: ("torch.set_num_threads(2)", "torch.set_num_threads(1)"),
    AUTOCAST: ('with torch.autocast("cpu", torch.bfloat16):', ""),
}


def names(library: str) -> tuple[str, ...]:
    """The surroundings that can be changed for functions of this array library and must not matter."""
    return (RANDOM, DTYPE, NARROW, GRADIENTS, INFERENCE, THREADS) if library == "torch" else (RANDOM,)


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
            if name == NARROW:
                torch.set_default_dtype(torch.bfloat16)
            if name == THREADS:
                torch.set_num_threads(2)
            with ExitStack() as around:
                around.enter_context(torch.inference_mode(name == INFERENCE))
                for device in ("cpu", "cuda") if name == AUTOCAST else ():
                    if device == "cpu" or torch.cuda.is_available():
                        around.enter_context(torch.autocast(device, torch.bfloat16))
                yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


class Settings:
    """The settings of a library that a call must leave as they are; cheap enough to look at around every call."""

    def __init__(self, library: str) -> None:
        self.torch = sys.modules.get("torch") if library == "torch" else None
        self.before = self._now()

    def _now(self) -> dict[str, Any]:
        if (torch := self.torch) is None:
            return {}
        return {
            "torch's default dtype": torch.get_default_dtype(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's number of threads": torch.get_num_threads(),
        }

    def put_back(self) -> tuple[str, ...]:
        """Names of the settings that are not as they were; now they are again."""
        after = self._now()
        altered = tuple(name for name, value in self.before.items() if value != after[name])
        if altered and (torch := self.torch) is not None:
            dtype, gradients, threads = self.before.values()
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(gradients)
            torch.set_num_threads(threads)
        return altered


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
