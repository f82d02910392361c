"""Claims on padding of a language model's input: wherever it stands and whatever it holds, it is not there."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike
from attnspec.properties.models import LanguageModel
from attnspec.properties.programs import SIDES, Programs
from attnspec.properties.sessions import at_once, others, real_tokens, tokens

MASK = Source("https://huggingface.co/docs/transformers/glossary", "attention mask")


def _padded_is_alone(model: LanguageModel, case: Case) -> None:
    """Each row of a padded batch has the logits that it has alone, without padding."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    got = model.logits(ids, real)
    want = np.concatenate(at_once(model, [[int(i) for i in row[seen]] for row, seen in zip(ids, real, strict=True)]))
    unpadded = model.logits(ids)[real]  # what a model would give that takes padding for words
    alike(got[real], want, dtype, "logits of the real tokens of a padded batch", change=unpadded - want)


@claim(
    "mask.padded-left",
    level="must",
    handle="MK17",
    idea="I25",
    source=MASK,
    of="lm",
    needs=("padding", "left-padding"),
    given=Programs(sides=("left-padding",), rows=(3, 2, 1), tokens=(12, 7, 5, 21)),
    within="calibrated",
    mutants=(
        "position.columns_of_first_call",
        "padding.token_with_pad_id",
        "padding.heads_tiled",
    ),
)
def padding_on_the_left_is_not_there(model: LanguageModel, case: Case) -> None:
    """Rows padded on the left have the logits that each has alone."""
    _padded_is_alone(model, case)


@claim(
    "mask.padded-anywhere",
    level="must",
    handle="MK16",
    idea="I25",
    source=MASK,
    of="lm",
    needs=("padding", "padding-between"),
    given=Programs(sides=("random",), rows=(3, 2, 1), tokens=(12, 7, 5, 21)),
    within="calibrated",
    mutants=(
        "padding.batch_of_one",
        "padding.alibi_counts_columns",
        "mask.window_counts_columns",
    ),
)
def padding_in_between_is_not_there(model: LanguageModel, case: Case) -> None:
    """Rows with padding between their words have the logits that each has alone."""
    _padded_is_alone(model, case)


@claim(
    "mask.padding-content",
    level="must",
    handle="MK16",
    idea="I25",
    source=MASK,
    of="lm",
    needs=("padding", "left-padding", "batch"),  # what stands behind a token shows nothing in a causal model
    given=Programs(sides=SIDES, rows=(3, 2), tokens=(9, 12, 5)),
    within="calibrated",
    mutants=(
        "padding.right_only",
        "padding.convolution_reads_pads",
        "padding.last_column_decides",
    ),
)
def what_padding_holds_does_not_matter(model: LanguageModel, case: Case) -> None:
    """Other ids at padding leave every logit of a real token as it was."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    low, high = model.profile.get("tokens", (0, model.vocab_size))
    junk = others(model, ids, numbers.below(max(1, high - low - 1), case.seed, "junk", (B, T)))
    plain = model.logits(ids, real)
    got = model.logits(np.where(real, ids, junk), real)
    as_words = model.logits(np.where(real, ids, junk)) - model.logits(ids)
    alike(got[real], plain[real], dtype, "logits of real tokens after other ids were put at padding", change=as_words[real])


@claim(
    "mask.all-real-is-no-mask",
    level="must",
    handle="MK16",
    idea="I25",
    source=MASK,
    of="lm",
    needs=("padding",),
    given=Programs(tokens=(12, 7, 1)),
    within="calibrated",
    mutants=("mask.mask_of_ones_drops_causal",),
)
def a_mask_of_ones_is_no_mask(model: LanguageModel, case: Case) -> None:
    """A mask that says that every token is real changes nothing."""
    dtype, ids = model.profile["dtypes"][0], tokens(model, case, "ids", case.sizes.B, case.sizes.T)
    plain = model.logits(ids)
    alike(model.logits(ids, np.ones(ids.shape, dtype=bool)), plain, dtype, "logits under a mask of ones", change=plain)
