"""Claims on searches: what a language model says is what its logits say, read at once."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import alike, none_of
from attnspec.properties.models import Ids, LanguageModel
from attnspec.properties.programs import Programs
from attnspec.properties.sessions import at_once, real_tokens, tokens
from attnspec.properties.subject import FloatArray
from attnspec.properties.verdict import Inapplicable

SUTSKEVER = Source("arXiv:1409.3215", "3.2")
SAID = 6  # words of a search
BEAMS = ((4, 3), (5, 2), (1, 3))  # words of a beam, and how many beams: of few, those of a row often keep their order


def _words_are_best(model: LanguageModel, words: Ids, scored: FloatArray, what: str) -> None:
    """Each word [N,count] has the largest of the logits [N,count,V] that stand before it, as far as they can be told apart.

    Equal logits, to within what two computations of them differ by, are a tie that either may win.
    """
    dtype = model.profile["dtypes"][0]
    _in_range(words, model.vocab_size, what)
    chosen = np.take_along_axis(scored, words[..., None], axis=-1)[..., 0]
    order = np.sort(scored, axis=-1)
    alike(chosen, order[..., -1], dtype, f"logits of {what}", change=order[..., -1] - order[..., -2], among=scored)


def _in_range(words: Ids, vocab_size: int, what: str) -> None:
    none_of(tuple(str(w) for w in np.unique(words) if not 0 <= w < vocab_size), f"ids of no word among {what}")


def _said(model: LanguageModel, rows: list[list[int]], words: Ids) -> FloatArray:
    """[B,count,V]: the logits before each word that was said after each row."""
    count = words.shape[1]
    whole = at_once(model, [[*row, *(int(word) for word in said)] for row, said in zip(rows, words, strict=True)])
    return np.stack([out[-count - 1 : -1] for out in whole])


@claim(
    "cache.generated-is-greedy",
    level="must",
    handle="SQ5",
    idea="I09",
    source=SUTSKEVER,
    of="lm",
    needs=("generate",),
    given=Programs(rows=(2, 1, 12), tokens=(7, 12, 4, 1)),
    within="calibrated",
    mutants=(
        "generate.prompt_cache_cut_by_length",
        "generate.word_one_ends_the_row",
        "generate.repetition_penalty_inherited",
    ),
)
def a_search_says_what_the_logits_say(model: LanguageModel, case: Case) -> None:
    """Each word of a greedy search has the largest logit after all words before it, read at once.

    So has the next: a prompt that begins as another must not be taken for it. Many rows say many different words, some of
    which an implementation may take for the end.
    """
    B, T = case.sizes.B, case.sizes.T
    ids = tokens(model, case, "ids", B if model.profile.offers("batch") else 1, T)
    words = model.generate(ids, SAID)
    _words_are_best(model, words, _said(model, ids.tolist(), words), "words of a greedy search")
    begun = ids.copy()
    begun[:, T // 2 :] = tokens(model, case, "another end", len(ids), T)[:, T // 2 :]
    fewer = model.generate(begun, SAID // 2)
    what = "words of a shorter search after a prompt that begins as the one before"
    _words_are_best(model, fewer, _said(model, begun.tolist(), fewer), what)


@claim(
    "mask.generated-beside-padding",
    level="must",
    handle="MK17",
    idea="I09",
    source=SUTSKEVER,
    of="lm",
    needs=("generate", "generate-padded", "left-padding", "batch"),
    given=Programs(sides=("left-padding", "padding"), rows=(3, 2), tokens=(7, 12, 4)),
    within="calibrated",
    mutants=(
        "generate.last_column_read",
        "generate.pads_count_as_words",
        "generate.mask_of_the_first_row",
    ),
)
def a_padded_row_says_what_it_says_alone(model: LanguageModel, case: Case) -> None:
    """Rows padded on the left, and on the right if that is offered, are continued by a greedy search as each is alone."""
    B, T = case.sizes.B, case.sizes.T
    ids, real = tokens(model, case, "ids", B, T), real_tokens(case, "ids", B, T)
    if case.mask is not None and case.mask.pattern == "padding":
        if not model.profile.offers("generate-padded-right"):
            raise Inapplicable("padding on the right is not offered")
        real[:, 0] = True  # no row is empty
    else:
        real[:, -1] = True
    rows = [[int(i) for i in row[seen]] for row, seen in zip(ids, real, strict=True)]
    words = model.generate(ids, SAID, real)
    _words_are_best(model, words, _said(model, rows, words), "words of a greedy search beside padding")


@claim(
    "cache.second-turn",
    level="must",
    handle="CA12",
    idea="I09",
    source=SUTSKEVER,
    of="lm",
    needs=("converse",),
    given=Programs(rows=(4, 1), tokens=(5, 1, 7)),
    within="calibrated",
    mutants=(
        "generate.last_word_unread",
        "generate.said_words_not_counted",
        "generate.only_the_last_word_of_a_turn",
    ),
)
def a_later_turn_follows_all_before_it(model: LanguageModel, case: Case) -> None:
    """After each of several turns a greedy search goes on from all turns and words before it, whatever it keeps of them."""
    B, T = case.sizes.B if model.profile.offers("batch") else 1, case.sizes.T
    turns = [tokens(model, case, f"turn {number}", B, length) for number, length in enumerate((T, 3, 1, 2))]
    said = model.converse(turns, 3)
    rows: list[list[int]] = [[] for _ in range(B)]
    for number, (turn, words) in enumerate(zip(turns, said, strict=True), start=1):
        rows = [[*row, *more] for row, more in zip(rows, turn.tolist(), strict=True)]
        _words_are_best(model, words, _said(model, rows, words), f"words after turn {number}")
        rows = [[*row, *more] for row, more in zip(rows, words.tolist(), strict=True)]


@claim(
    "cache.beams-are-rescored",
    level="must",
    handle="SQ7",
    idea="I09",
    source=SUTSKEVER,
    of="lm",
    needs=("beams",),
    given=Programs(rows=(2, 1, 4), tokens=(7, 4, 1, 5)),
    within="calibrated",
    mutants=(
        "beams.first_row_decides_the_reorder",
        "beams.row_offset_missing",
        "beams.history_stays",
    ),
)
def beams_have_the_probability_of_their_words(model: LanguageModel, case: Case) -> None:
    """Beams are different, sorted by score, and score the sum of the log-probabilities of their words, read at once.

    One word of each beam is exact: the most probable words. One beam is greedy search.
    """
    dtype, T = model.profile["dtypes"][0], case.sizes.T
    B = case.sizes.B if model.profile.offers("batch") else 1
    ids = tokens(model, case, "ids", B, T)
    for count, width in BEAMS:
        words, scores = model.beams(ids, count, width)
        _in_range(words, model.vocab_size, "words of beams")
        rows = [[*row] for row in ids.tolist() for _ in range(width)]
        logs = _log_softmax(_said(model, rows, words.reshape(B * width, count)))
        each = np.take_along_axis(logs, words.reshape(B * width, count, 1), axis=-1)[..., 0]
        alike(scores.ravel(), each.sum(1), dtype, f"scores of beams of {count} words", change=each[:, -1], among=logs)
        alike(np.sort(scores)[:, ::-1], scores, dtype, "scores of beams in order", change=scores[:, :1] - scores, among=logs)
        same = [str(b) for b in range(B) if len({tuple(w) for w in words[b].tolist()}) < width]
        none_of(tuple(same), "rows in which two beams are the same words")
        if count == 1:
            best = np.sort(logs[::width, 0], axis=-1)[:, ::-1][:, :width]
            alike(scores, best, dtype, "scores of beams of one word", change=best[:, :1] - best[:, -1:], among=logs)
    words, _ = model.beams(ids, SAID, 1)
    _words_are_best(model, words[:, 0], _said(model, ids.tolist(), words[:, 0]), "words of a single beam")


def _log_softmax(x: FloatArray) -> FloatArray:
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
