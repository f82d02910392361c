"""Claims on the rows of a batch of a language model: each is alone, whatever stands beside it and was read before."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, same_bits
from attnspec.properties.models import LanguageModel
from attnspec.properties.programs import Programs
from attnspec.properties.sessions import tokens

ROWS = Source("docs/conventions.md", "models")


@claim(
    "batch.row-alone",
    level="must",
    handle="IV2",
    idea="I16",
    source=ROWS,
    of="lm",
    needs=("batch",),
    given=Programs(rows=(3, 4, 2), tokens=(7, 12, 1)),
    within="calibrated",
    mutants=("batch.tokens_over_capacity",),
)
def a_row_alone_is_the_row_in_a_batch(model: LanguageModel, case: Case) -> None:
    """Each row of a batch has the logits that it has alone."""
    dtype, ids = model.profile["dtypes"][0], tokens(model, case, "ids", case.sizes.B, case.sizes.T)
    whole = model.logits(ids)
    alone = np.concatenate([model.logits(row[None]) for row in ids])
    alike(alone, whole, dtype, "logits of each row alone against those in the batch", change=whole[1:] - whole[:-1])


@claim(
    "batch.other-rows",
    level="must",
    handle="IV1",
    idea="I16",
    source=ROWS,
    of="lm",
    needs=("batch",),
    given=Programs(rows=(3, 2), tokens=(7, 12, 2)),
    within="calibrated",
    mutants=("state.running_statistics",),
)
def other_rows_do_not_matter(model: LanguageModel, case: Case) -> None:
    """Other tokens in one row of a batch, and another order of the rows, change no other row."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    ids = tokens(model, case, "ids", B, T)
    plain = model.logits(ids)
    other = ids.copy()
    other[case.seed % B] = tokens(model, case, "other", 1, T)[0]
    rest = np.arange(B) != case.seed % B
    moved = model.logits(other)
    for got, want, what in (
        (moved[rest], plain[rest], "logits of the rows beside one that was changed"),
        (model.logits(ids[::-1].copy())[::-1], plain, "logits of the rows in reverse order"),
    ):
        alike(got, want, dtype, what, change=moved - plain, among=plain)


@claim(
    "robust.same-logits-twice",
    level="should",
    handle="IV4",
    idea="I16",
    source=Source("torch.use_deterministic_algorithms"),
    of="lm",
    given=Programs(rows=(2, 1), tokens=(7, 12, 3)),
    within="exact",
    mutants=("state.running_statistics",),
)
def the_same_call_gives_the_same_bits(model: LanguageModel, case: Case) -> None:
    """The same tokens give the same bits, also after a longer and a wider call."""
    B, T = case.sizes.B, case.sizes.T
    ids = tokens(model, case, "ids", B, T)
    first = model.logits(ids)
    wider = B + 1 if model.profile.offers("batch") else B
    model.logits(tokens(model, case, "longer", wider, T + 2))
    same_bits(model.logits(ids), first, "logits of the same call after another")
