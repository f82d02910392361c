"""Claims on models made from a language model: read from a file, with the words in another order, in 16 bits."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, none_of
from attnspec.properties.models import LanguageModel
from attnspec.properties.programs import Programs
from attnspec.properties.sessions import real_tokens, tokens
from attnspec.properties.subject import FloatArray

OFFERED = Source("docs/conventions.md", "models")
LARGE = 1e3  # logits beyond this are near what float16 holds inside of a model


@claim(
    "robust.save-and-load",
    level="must",
    handle="TR4",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("reloaded",),
    given=Programs(rows=(2, 1), tokens=(7, 12), draws=1),
    within="calibrated",
    mutants=(
        "copies.reloaded_without_a_norm",
        "copies.reloaded_with_tied_words",
        "copies.reloaded_squares_transposed",
    ),
)
def a_model_read_from_a_file_is_the_same(model: LanguageModel, case: Case) -> None:
    """A model that was written to a file and read again has the same logits."""
    dtype, B = model.profile["dtypes"][0], case.sizes.B if model.profile.offers("batch") else 1
    ids = tokens(model, case, "ids", B, case.sizes.T)
    plain = model.logits(ids)
    alike(model.reloaded().logits(ids), plain, dtype, "logits of the model read from a file", change=plain)


@claim(
    "embed.words-renamed",
    level="must",
    handle="TF9",
    idea="I02",
    source=OFFERED,
    of="lm",
    needs=("renamed",),
    given=Programs(rows=(2, 1), tokens=(7, 12, 3), draws=2),
    within="calibrated",
    mutants=(
        "copies.renamed_the_other_way",
        "copies.renamed_without_the_output",
        "copies.word_zero_is_nothing",
    ),
)
def names_of_words_do_not_matter(model: LanguageModel, case: Case) -> None:
    """With the rows of its embedding and output in another order, a model says the same of the same words.

    Words with a meaning of their own, such as padding, keep their ids.
    """
    dtype, B = model.profile["dtypes"][0], case.sizes.B if model.profile.offers("batch") else 1
    low, high = model.profile.get("tokens", (0, model.vocab_size))
    order = np.arange(model.vocab_size)
    order[low:high] = low + numbers.permutation(high - low, case.seed, "words")
    ids = tokens(model, case, "ids", B, case.sizes.T)
    plain = model.logits(ids)
    got = model.renamed(order).logits(order[ids])
    what = "logits after the words were renamed"
    alike(got[..., order], plain, dtype, what, change=plain[..., order] - plain)


@claim(
    "robust.half-precision",
    level="must",
    handle="RB5",
    idea="I28",
    source=OFFERED,
    of="lm",
    needs=("narrowed",),
    given=Programs(sides=("left-padding", "padding"), rows=(3, 2), tokens=(7, 12), draws=1),
    within="exact",
    mutants=(
        "copies.narrowed_below_float16",
        "copies.narrowed_norm_divides_by_zero",
        "copies.narrowed_empty_rows_are_nan",
    ),
)
def sixteen_bits_are_finite(model: LanguageModel, case: Case) -> None:
    """In bfloat16 and float16 logits are finite where they are of moderate size in the model's own dtype.

    Also beside padding, and in a row that has nothing else: a NaN there spoils a loss, though it is multiplied by 0.
    """
    B, T = case.sizes.B if model.profile.offers("batch") else 1, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    side = "left-padding" if case.mask is not None and case.mask.pattern == "left-padding" else "padding"
    padded = case.mask is not None and model.profile.offers(side) and model.profile.offers("batch")
    if padded:
        real[(case.seed + 1) % B] = False
    for dtype in ("bfloat16", "float16"):
        narrow = model.narrowed(dtype)
        _as_finite(narrow.logits(ids), model.logits(ids), f"logits in {dtype}")
        if padded:
            _as_finite(narrow.logits(ids, real), model.logits(ids, real), f"logits in {dtype} beside padding")


def _as_finite(narrow: FloatArray, wide: FloatArray, what: str) -> None:
    """No number is lost that is of moderate size in the wide dtype."""
    moderate = np.isfinite(wide) & (np.abs(wide) < LARGE)
    lost = narrow[moderate & ~np.isfinite(narrow)]
    none_of(tuple(sorted({str(x) for x in lost})), f"{what} that are no number")
