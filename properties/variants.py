"""Correct implementations of attention, written as differently as possible: no check may find fault with them.

Listing them reads the sources with `ast`; `load` imports the array library of the variant. What is not the default of a
variant (layout, alignment, empty rows, class of precision ...) it says in `__attnspec__`.
"""

import ast
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from attnspec.properties.mutants.registry import SMALL


def _public_functions(module: str) -> list[str]:
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


_FILES = ("torch", "numpy", "half", "beside", "limits", "jax")
_HOME = {name: f"variants_{file}" for file in _FILES for name in _public_functions(f"variants_{file}")}

VARIANTS: tuple[str, ...] = tuple(_HOME)


class UnknownVariantError(KeyError):
    """No variant has this name; the message names the nearest one."""

    def __init__(self, name: str) -> None:
        nearest = get_close_matches(name, VARIANTS, n=1, cutoff=0.0)
        super().__init__(f"no variant {name!r}; the nearest is {nearest[0]!r}")

    def __str__(self) -> str:
        return str(self.args[0])


def load(name: str) -> Callable[..., Any]:
    """The variant of this name, in the array library that it is written for.

    Errors: UnknownVariantError; ModuleNotFoundError if that library is not installed.
    """
    if name not in _HOME:
        raise UnknownVariantError(name)
    found: Any = getattr(import_module(f"attnspec.properties.{_HOME[name]}"), name)
    if Parameter.VAR_KEYWORD in (p.kind for p in signature(found).parameters.values()):
        found.__signature__ = SMALL  # `**options` of the six options that each of these understands
    function: Callable[..., Any] = found
    return function
