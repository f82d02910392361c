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

A function without arguments that returns a model is a mutant as well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from attnspec.properties.mutant import Mutants

if TYPE_CHECKING:
    from attnspec.properties.model_mutants.plain import Decoder

FAMILIES = (
    *("cache", "position", "padding", "mask", "batch", "state", "cross"),  # of logits and states
    *("routes", "generate", "beams", "training", "copies", "calls"),  # of what a model may offer beside them
)

MUTANTS = Mutants(__name__, FAMILIES)
ids, describe = MUTANTS.ids, MUTANTS.describe


def load(mutant_id: str) -> "Callable[[], Decoder]":
    """The factory of the mutant: called without arguments, it returns a new model."""
    found: Callable[[], Decoder] = MUTANTS.load(mutant_id)
    return found
