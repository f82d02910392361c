"""Planted defects: attention functions that are wrong on purpose, each like a bug that really happened.

Listing them reads the sources with `ast`; only `load` imports torch.
"""

import ast
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from attnspec.properties.mutants.registry import Mutant, location

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


class UnknownMutantError(KeyError):
    """No mutant has this id; the message names the nearest one."""

    def __init__(self, mutant_id: str) -> None:
        nearest = get_close_matches(mutant_id, ids(), n=1, cutoff=0.0)
        super().__init__(f"no mutant {mutant_id!r}; the nearest is {nearest[0]!r}")

    def __str__(self) -> str:
        return str(self.args[0])


def ids() -> list[str]:
    """Every mutant's id, family by family in the order of the files."""
    return list(_table())


def describe(mutant_id: str) -> Mutant:
    """What is recorded about one mutant."""
    try:
        return _table()[mutant_id]
    except KeyError:
        raise UnknownMutantError(mutant_id) from None


def load(mutant_id: str) -> Callable[..., Any]:
    """The mutant itself; one that keeps state between calls is a new object at every load."""
    name = describe(mutant_id).where.rpartition("::")[2]
    found: Callable[..., Any] = getattr(import_module(f"{__name__}.{mutant_id.partition('.')[0]}"), name)
    return found() if isinstance(found, type) else found


@cache
def _table() -> dict[str, Mutant]:
    return {found.id: found for family in FAMILIES for found in _scan(family)}


def _scan(family: str) -> list[Mutant]:
    tree = ast.parse((Path(__file__).parent / f"{family}.py").read_text(encoding="utf-8"))
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "mutant":
                    fields = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
                    found.append(Mutant(ast.literal_eval(call.args[0]), where=location(family, node.name), **fields))
    return found
