"""`lm-mutant:ID`: planted defects of small models, as targets."""

from __future__ import annotations

from attnspec.adapters import Listed, shipped
from attnspec.properties import model_mutants

TARGETS = Listed(model_mutants.ids, lambda mutant: model_mutants.describe(mutant).imitates)
ADAPTER = shipped("lm-mutant", model_mutants, TARGETS, factories=True)
