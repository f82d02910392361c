"""Claims on translators: every word of the target sees all of the source, its own, and nothing of the padding."""

from __future__ import annotations

import numpy as np

from attnspec.properties import bounds_models, numbers
from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, nonzero
from attnspec.properties.models import Translator
from attnspec.properties.programs import SIDES, Programs
from attnspec.properties.sessions import others, real_tokens, tokens

VASWANI = Source("arXiv:1706.03762", "3.2.3")
LENGTH = 7  # words of a source


@claim(
    "cross.source-padding",
    level="must",
    handle="XA3",
    idea="I28",
    source=VASWANI,
    of="seq2seq",
    needs=("source-padding", "batch"),
    given=Programs(sides=SIDES, of_source=True, rows=(3, 2), tokens=(4, 7, 1)),
    within="calibrated",
    mutants=(
        "cross.mask_forgotten_in_steps",
        "cross.padding_read_at_once",
        "cross.last_word_unread",
    ),
)
def padding_of_the_source_is_not_there(model: Translator, case: Case) -> None:
    """Rows whose sources are padded have the logits that each has with its own words alone, at once and word by word."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    source, target = tokens(model, case, "source", B, LENGTH), tokens(model, case, "ids", B, T)
    real = real_tokens(case, "source", B, LENGTH)
    first = {"padding": 0, "left-padding": LENGTH - 1}.get(case.mask.pattern if case.mask else "padding", LENGTH // 2)
    real[~real.any(1), first] = True  # no source is empty
    want = np.concatenate([model.translate(source[b : b + 1, real[b]], target[b : b + 1]) for b in range(B)])
    as_words = model.translate(source, target) - want
    alike(model.translate(source, target, real), want, dtype, "logits beside padded sources", change=as_words)
    junk = np.where(real, source, np.roll(source, 1, axis=0))
    alike(model.translate(junk, target, real), want, dtype, "logits after other ids were put at padding", change=as_words)
    if model.profile.offers("cache"):
        got, _ = model.extend(target[:, :1], model.begin(source, real))
        alike(got, want[:, :1], dtype, "logits of the first word beside padded sources", change=as_words[:, :1])


@claim(
    "cross.source-is-seen",
    level="must",
    handle="XA2",
    idea="I28",
    source=VASWANI,
    of="seq2seq",
    needs=("batch",),
    given=Programs(rows=(1,), tokens=(5, 3, 1)),
    within="calibrated",
    mutants=(
        "cross.last_word_unread",
        "cross.causal_on_the_memory",
    ),
)
def every_word_sees_all_of_the_source(model: Translator, case: Case) -> None:
    """Another word anywhere in the source moves the logits of every word of the target, the first one too."""
    dtype, T = model.profile["dtypes"][0], case.sizes.T
    source = np.repeat(tokens(model, case, "source", 1, LENGTH), LENGTH + 1, axis=0)
    at = np.arange(LENGTH)
    source[at + 1, at] = others(model, source[at + 1, at], 0)
    out = model.translate(source, np.repeat(tokens(model, case, "ids", 1, T), LENGTH + 1, axis=0))
    moved = np.abs(out[1:] - out[:1]).max(-1)
    seen = np.where(moved > bounds_models.allowed(out, dtype), moved, 0.0)
    nonzero(seen, np.ones(seen.shape, dtype=bool), "change of logits [changed word of the source, word of the target]")


@claim(
    "cross.rows-keep-their-source",
    level="must",
    handle="XA4",
    idea="I28",
    source=VASWANI,
    of="seq2seq",
    needs=("cache", "batch"),
    given=Programs(rows=(3, 4, 2), tokens=(5, 2, 7)),
    within="calibrated",
    mutants=(
        "cross.memory_stays",
        "cross.causal_on_the_memory",
    ),
)
def rows_keep_their_source(model: Translator, case: Case) -> None:
    """Word by word, and after rows were chosen and repeated, each row translates its own source."""
    dtype, B, T = model.profile["dtypes"][0], case.sizes.B, case.sizes.T
    source, target = tokens(model, case, "source", B, LENGTH), tokens(model, case, "ids", B, T)
    want = model.translate(source, target)
    other = model.translate(np.roll(source, 1, axis=0), target) - want
    state = model.begin(source)
    for t in range(T):
        got, state = model.extend(target[:, t : t + 1], state)
        alike(got, want[:, t : t + 1], dtype, f"logits of word {t + 1}", change=other[:, t : t + 1], among=want)
    if model.profile.offers("reorder"):
        index = numbers.below(B, case.seed, "rows", (B + 1,))
        more = tokens(model, case, "more", B + 1, 1)
        got, _ = model.extend(more, model.reorder(state, index))
        whole = model.translate(source[index], np.concatenate([target[index], more], axis=1))
        alike(got, whole[:, -1:], dtype, "logits after the rows were reordered", change=other, among=whole)
