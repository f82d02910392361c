"""Planted defects of whole models with a cache: what parallel, step by step, crop, reorder and fork can get wrong.

A mutant is a correct model with one piece replaced. It is written into the file of its family as a class without arguments of
its own, which picks the variant that it breaks by class attributes and overrides one method of it:

    @mutant("mask.window_one_wider", imitates="<= where < was meant", source="https://...")
    class WindowOneWider(Decoder):
        \"\"\"Each token sees one more.\"\"\"

        window = 5

        def visible(self, call: Call, keys: Memory) -> Tensor:
            \"\"\"As if the window were 6.\"\"\"
            return ...

- Options (`plain.Options`): positions, window, cache, kv_heads, layers, seed.
- Pieces of `plain.Decoder`: real, admit, position, embed, place, norm, project, rotate, append, repeat, score, behind, bias,
  visible, hide, softmax, mix, feed_forward, output; of a state: empty, cropped, again, picked (by reorder), copied (by fork),
  noted. Most are told the layer `i`, so that one layer alone can be broken.
- Pieces of `recurrent.Recurrent`, for layers "gru" and "linear": cell, advance; convolved, lined_up, decay.
- What `offering.Offering` adds, a decoder that offers all that a model may offer: routes, kinds of caches, searches, a loss,
  weights of attention, gradients, copies.
- Pieces of a cache (`slots.Grown`, `Static`, `Ring`): empty, append, crop; a mutant sets `cache = Broken()`. Only Static and
  Ring write in place, so only they and what overrides `append` can tell a fork that is no copy.

A function without arguments that returns a model is a mutant as well. Listing reads the sources with `ast`, so the arguments
of the decoration are literals, and the word before the dot is the file; only `load` imports torch.
"""

import ast
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from attnspec.properties.model_mutants.registry import location
from attnspec.properties.mutants.registry import Mutant

if TYPE_CHECKING:
    from attnspec.properties.model_mutants.plain import Decoder

FAMILIES = (
    *("cache", "position", "padding", "mask", "batch", "state", "cross"),  # of logits and states
    *("routes", "generate", "beams", "training", "copies", "calls"),  # of what a model may offer beside them
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


def load(mutant_id: str) -> "Callable[[], Decoder]":
    """The factory of the mutant: called without arguments, it returns a new model."""
    name = describe(mutant_id).where.rpartition("::")[2]
    found: Callable[[], Decoder] = getattr(import_module(f"{__name__}.{mutant_id.partition('.')[0]}"), name)
    return found


@cache
def _table() -> dict[str, Mutant]:
    table: dict[str, Mutant] = {}
    for found in (found for family in FAMILIES for found in _scan(family)):
        if found.id in table:
            raise ValueError(f"mutant {found.id!r} is there twice: {table[found.id].where} and {found.where}; rename one")
        table[found.id] = found
    return table


def _scan(family: str) -> list[Mutant]:
    """The mutants of one file; none where a family has no file yet."""
    path = Path(__file__).parent / f"{family}.py"
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "mutant":
                    fields = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
                    found.append(Mutant(ast.literal_eval(call.args[0]), where=location(family, node.name), **fields))
    return found
