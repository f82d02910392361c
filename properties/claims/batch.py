"""Claims on the batch: rows do not know each other."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits
from attnspec.properties.oracle import noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention


@claim(
    "batch.neighbours-unseen",
    level="must",
    handle="IV1",
    idea="I03",
    source=Source("arXiv:1706.03762", "3.2.1"),
    needs=("batch",),
    given=Cases(at_least={"B": 2}, plant=(Plant("q", "other-rows"), Plant("k", "other-rows"), Plant("v", "other-rows"))),
    within="exact",
    about="batch",
    mutants=("batch.shared_max", "batch.keys_of_first", "batch.leak"),
)
def neighbours_are_unseen(subject: Attention, case: Case) -> None:
    """Changing the other rows of a batch, also to much larger content, leaves a row bit-identical."""
    x, row = case.build(), case.plant[0].t
    others = np.arange(x.q.shape[0]) != row
    changed = {}
    for plant in case.plant:
        array = getattr(x, plant.array)
        fresh = 16.0 * case.redrawn(Plant(plant.array, "other-rows", plant.t, "redrawn"), array)
        changed[plant.array] = np.where(others[:, None, None, None], fresh, array)
    before, after = x.through(subject), x.but(**changed).through(subject)
    allowed = noise(subject, x)
    same_bits(
        after[row],
        before[row],
        f"batch row {row} when the others change",
        live=bool(others.any()),
        noise=None if allowed is None else allowed[row],
    )
