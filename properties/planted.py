"""All planted defects: of attention functions (`mutants`) and language models (`model_mutants`). Listing imports no torch."""

from __future__ import annotations

from attnspec.properties import model_mutants, mutants
from attnspec.properties.mutant import Mutant, Mutants, UnknownMutantError

REGISTRIES: dict[str, Mutants] = {"mutant": mutants.MUTANTS, "lm-mutant": model_mutants.MUTANTS}  # by the prefix of targets


def ids() -> list[str]:
    """Every mutant's id, those of functions first; no two are equal."""
    return [mutant for registry in REGISTRIES.values() for mutant in registry.ids()]


def describe(mutant: str) -> Mutant:
    """What is recorded about one mutant. Errors: UnknownMutantError."""
    return REGISTRIES[_prefix(mutant)].describe(mutant)


def target(mutant: str) -> str:
    """The mutant as a target of an audit. Errors: UnknownMutantError."""
    return f"{_prefix(mutant)}:{mutant}"


def _prefix(mutant: str) -> str:
    for prefix, registry in REGISTRIES.items():
        if mutant in registry.ids():
            return prefix
    raise UnknownMutantError(mutant, ids())
