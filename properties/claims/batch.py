"""Claims on the batch: rows do not know each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest, leaks_from_batch

ATTENTION = Source("arXiv:1706.03762", "3.2.1")


def keys_of_first(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: every batch row reads the keys of the first."""
    return honest(x.but(k=np.broadcast_to(x.k[:1], x.k.shape)))


def taken(x: Inputs, rows: Any) -> Inputs:
    """These batch rows of the inputs, in this order; masks without a batch axis of their own stay."""
    mask, bias = (a[rows] if a is not None and a.ndim == 4 and a.shape[0] == x.q.shape[0] else a for a in (x.mask, x.bias))
    return x.but(q=x.q[rows], k=x.k[rows], v=x.v[rows], mask=mask, bias=bias)


@claim(
    "batch.neighbours-unseen",
    level="must",
    handle="IV1",
    idea="I03",
    source=ATTENTION,
    needs=("batch",),
    given=Cases(at_least={"B": 2}, plant=(Plant("q", "other-rows"), Plant("k", "other-rows"), Plant("v", "other-rows"))),
    within="exact",
    about="batch",
    dtypes="all",
    mutants=("batch.shared_max", "batch.keys_of_first", "batch.leak"),
    twin=leaks_from_batch,
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


@claim(
    "batch.order",
    level="must",
    handle="IV1",
    idea="I03",
    source=ATTENTION,
    needs=("batch",),
    given=Cases(at_least={"B": 2}),
    within="bound",
    about="batch",
    mutants=("batch.keys_of_first", "batch.mask_of_first", "batch.causal_in_first"),
    twin=keys_of_first,
)
def permuted_batch_permutes_outputs(subject: Attention, case: Case) -> None:
    """The rows of a batch in another order give the same outputs in that order.

    Not bit for bit: a row that starts at another address may be summed in another order.
    """
    x = case.build()
    order = numbers.permutation(x.q.shape[0], case.seed, "batch")
    want = expected(subject.profile, x)
    within(
        taken(x, order).through(subject),
        x.through(subject)[order],
        2 * want.error[order],
        "output for batch rows in another order",
        why=f"twice the {want.why}",
    )


@claim(
    "batch.alone",
    level="must",
    handle="IV2",
    idea="I03",
    source=ATTENTION,
    needs=("batch",),
    given=Cases(at_least={"B": 2}),
    within="bound",
    about="batch",
    mutants=("batch.leak", "batch.keys_of_first", "batch.shared_max"),
    twin=leaks_from_batch,
)
def row_alone_is_row_in_batch(subject: Attention, case: Case) -> None:
    """A row of a batch gives what it gives in a batch of its own."""
    x = case.build()
    row = slice(case.seed % x.q.shape[0], case.seed % x.q.shape[0] + 1)
    want = expected(subject.profile, x)
    within(
        x.through(subject)[row],
        taken(x, row).through(subject),
        2 * want.error[row],
        f"batch row {row.start} against that row alone",
        why=f"twice the {want.why}",
    )
