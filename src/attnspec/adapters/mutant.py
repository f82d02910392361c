"""`mutant:ID`: planted defects of attention functions, as targets."""

from __future__ import annotations

from attnspec.adapters import Listed, shipped
from attnspec.properties import mutants

# Every mutant starts from a correct function of these conventions; what it breaks, the claims must find.
CONVENTIONS = {
    "alignment": "top-left",
    "empty_row": "zero",
    "polarity": "attend",
    "layout": "bhtd",
    "arrays": "torch",
    "window": "left",
    "grouped": True,
    "mask": ("bool", "bias"),
    "group_order": "repeated",
}
TARGETS = Listed(mutants.ids, lambda mutant: mutants.describe(mutant).imitates)
ADAPTER = shipped("mutant", mutants, TARGETS, declared=CONVENTIONS)
