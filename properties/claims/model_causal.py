"""Claims on what a token of a language model sees: what is before it, all of it, and nothing else."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike
from attnspec.properties.models import Ids, LanguageModel
from attnspec.properties.programs import Programs
from attnspec.properties.sessions import others, tokens

VASWANI = Source("arXiv:1706.03762", "3.2.3")


@claim(
    "mask.logits-causal",
    level="must",
    handle="TF11",
    idea="I25",
    source=VASWANI,
    of="lm",
    given=Programs(rows=(1,), tokens=(9, 12, 5, 2), diagnoses=("leak",)),
    within="calibrated",
    mutants=(
        "batch.tokens_over_capacity",
        "mask.blocks_see_themselves",
        "mask.only_last_block_of_keys",
    ),
    needs=("batch",),
)
def later_tokens_change_no_earlier_logit(model: LanguageModel, case: Case) -> None:
    """A change of token t changes no logit before t, and some logit from t on.

    One batch holds the sequence and, for each t, a copy with another token at t: what a row sees is told by one forward pass.
    """
    dtype, at = model.profile["dtypes"][0], np.arange(case.sizes.T)
    out = model.logits(one_changed_in_each_row(model, case))
    plain, changed = out[:1], out[1:]
    before = (at[None, :] < at[:, None])[..., None]
    moved = np.where(before, 0.0, changed - plain)
    what = "logits [changed token, position, word] before the changed token"
    alike(np.where(before, changed, plain), np.broadcast_to(plain, changed.shape), dtype, what, change=moved, among=plain)


def one_changed_in_each_row(model: LanguageModel, case: Case) -> Ids:
    """[1+T,T]: a sequence, and for each t a copy with another token at t."""
    T = case.sizes.T
    rows = np.repeat(tokens(model, case, "ids", 1, T), T + 1, axis=0)
    at = np.arange(T)
    rows[at + 1, at] = others(model, rows[at + 1, at], case.seed)
    return rows


@claim(
    "mask.prefix-alone",
    level="must",
    handle="MK21",
    idea="I25",
    source=VASWANI,
    of="lm",
    given=Programs(tokens=(12, 7, 5, 3)),
    within="calibrated",
    mutants=(
        "position.angles_by_shape",
        "mask.after_the_softmax",
        "mask.fill_too_small",
    ),
)
def a_prefix_alone_has_the_same_logits(model: LanguageModel, case: Case) -> None:
    """The first tokens read alone have the logits that they have in front of others, whatever the length of the input."""
    dtype, T = model.profile["dtypes"][0], case.sizes.T
    ids = tokens(model, case, "ids", case.sizes.B, T)
    whole = model.logits(ids)
    for length in sorted({1, T // 3, T // 2, T - 1} - {0, T}):
        alone = model.logits(ids[:, :length])
        alike(
            alone,
            whole[:, :length],
            dtype,
            f"logits of the first {length} of {T} tokens",
            change=whole[:, 1:] - whole[:, :-1],
            among=whole,
        )
