"""Likely causes: which planted defects give the same pattern of held and violated claims.

The pattern of each planted defect is a row of the kill matrix, which a test recomputes.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files


@cache
def kill_matrix() -> dict[str, list[str]]:
    """Claims that each mutant violates in a quick audit; empty while the matrix is being made for the first time."""
    file = files("attnspec.properties.mutants") / "kill_matrix.json"
    return dict(json.loads(file.read_text())["killed_by"]) if file.is_file() else {}


def likely_causes(violated: set[str], held: set[str], most: int = 2) -> list[tuple[str, int, int]]:
    """Mutants ranked by how many of the claims that were exercised they agree on: (id, agreeing, exercised).

    Only mutants that violate a claim that is violated here are causes at all.
    """
    exercised = violated | held
    ranked = []
    for mutant, killers in kill_matrix().items():
        pattern = set(killers) & exercised
        if pattern & violated:
            ranked.append((mutant, len(exercised) - len(pattern ^ violated), len(exercised)))
    ranked.sort(key=lambda row: (-row[1], row[0]))
    return ranked[:most]
