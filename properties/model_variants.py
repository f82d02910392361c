"""Correct models by name, each built in another way: no check may find fault with them.

Listing reads the source of `model_mutants/variants.py` with `ast`; only `load` imports torch.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnspec.properties.model_mutants.plain import Decoder

_HOME = "attnspec.properties.model_mutants"


def _names() -> tuple[str, ...]:
    """The keys of the dictionary VARIANTS, which is written out there."""
    for node in ast.parse((files(_HOME) / "variants.py").read_text(encoding="utf-8")).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id="VARIANTS"), value=ast.Dict(keys=keys)):
                return tuple(ast.literal_eval(key) for key in keys if key is not None)
    raise LookupError(f"{_HOME}.variants has no `VARIANTS: ... = {{...}}`, whose keys are the names; write it out")


VARIANTS: tuple[str, ...] = _names()


def load(name: str) -> Callable[[], Decoder]:
    """The factory of the variant: called without arguments, it returns a new model. Errors: KeyError for an unknown name."""
    found: Callable[[], Decoder] = import_module(f"{_HOME}.variants").VARIANTS[name]
    return found
