"""Planted defects: what is recorded of one, and the registry of those of a package. No torch here: a listing stays cheap."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A planted defect: what it imitates, where that bug was seen, and where the imitation lives."""

    id: str
    imitates: str
    source: str
    where: str


class UnknownMutantError(KeyError):
    """No mutant has this id; the message names the nearest one."""

    def __init__(self, mutant_id: str, known: Sequence[str]) -> None:
        nearest = get_close_matches(mutant_id, known, n=1, cutoff=0.0)
        super().__init__(f"no mutant {mutant_id!r}; the nearest is {nearest[0]!r}")

    def __str__(self) -> str:
        return str(self.args[0])


class Mutants:
    """The mutants of one package: the functions and classes that are decorated `@mutant("family.what", imitates=, source=)`.

    Each family is a file of the package, and the word before the dot of its ids. Listing reads the files with `ast`, so the
    arguments of the decoration are literals; only `load` imports the files.
    """

    def __init__(self, package: str, families: Sequence[str]) -> None:
        self.package, self.families = package, families

    def ids(self) -> list[str]:
        """Every mutant's id, family by family in the order of the files."""
        return list(self._table)

    def describe(self, mutant_id: str) -> Mutant:
        """What is recorded about one mutant. Errors: UnknownMutantError."""
        try:
            return self._table[mutant_id]
        except KeyError:
            raise UnknownMutantError(mutant_id, self.ids()) from None

    def load(self, mutant_id: str) -> Any:
        """The function or class that is decorated. Errors: UnknownMutantError."""
        name = self.describe(mutant_id).where.rpartition("::")[2]
        return getattr(import_module(f"{self.package}.{mutant_id.partition('.')[0]}"), name)

    @cached_property
    def _table(self) -> dict[str, Mutant]:
        """Errors: ValueError where two mutants have one id."""
        table: dict[str, Mutant] = {}
        for found in (found for family in self.families for found in self._scan(family)):
            if found.id in table:
                raise ValueError(f"mutant {found.id!r} is there twice: {table[found.id].where} and {found.where}; rename one")
            table[found.id] = found
        return table

    def _scan(self, family: str) -> list[Mutant]:
        tree = ast.parse((files(self.package) / f"{family}.py").read_text(encoding="utf-8"))
        found = []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "mutant":
                        fields = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
                        where = location(f"{self.package}.{family}", node.name)
                        found.append(Mutant(ast.literal_eval(call.args[0]), where=where, **fields))
        return found


def record(target: Any, mutant_id: str, imitates: str, source: str) -> None:
    """Stores what is recorded about a mutant as its `__mutant__`."""
    target.__mutant__ = Mutant(mutant_id, imitates, source, location(target.__module__, target.__name__))


def location(module: str, name: str) -> str:
    """Where a mutant lives, written as pytest writes it."""
    return f"{module.removeprefix('attnspec.').replace('.', '/')}.py::{name}"
