"""Planted defects: attention functions that are wrong on purpose, each like a bug that really happened."""

from collections.abc import Callable
from typing import Any

from attnspec.properties.mutant import Mutants

FAMILIES = (
    "softmax",
    "scale",
    "mask",
    "rank",
    "heads",
    "gradient",
    "precision",
    "half",
    "batch",
    "layout",
    "storage",
    "state",
    "random",
    "output",
    "sinks",
    "robust",
    "shapes",
    "surroundings",
    "declared",
)

MUTANTS = Mutants(__name__, FAMILIES)
ids, describe = MUTANTS.ids, MUTANTS.describe


def load(mutant_id: str) -> Callable[..., Any]:
    """The mutant itself; one that keeps state between calls is a new object at every load."""
    found: Callable[..., Any] = MUTANTS.load(mutant_id)
    return found() if isinstance(found, type) else found
