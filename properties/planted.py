"""All planted defects: of attention functions (`mutants`) and language models (`model_mutants`). Listing imports no torch."""

from __future__ import annotations

from attnspec.properties import model_mutants, mutants
from attnspec.properties.mutants.registry import Mutant


def ids() -> list[str]:
    """Every mutant's id, those of functions first; no two are equal."""
    return [*mutants.ids(), *model_mutants.ids()]


def describe(mutant: str) -> Mutant:
    """What is recorded about one mutant."""
    return model_mutants.describe(mutant) if mutant in model_mutants.ids() else mutants.describe(mutant)


def target(mutant: str) -> str:
    """The mutant as a target of an audit."""
    return f"lm-mutant:{mutant}" if mutant in model_mutants.ids() else f"mutant:{mutant}"
