"""BLEU: how many of a translation's phrases are in a reference translation, and whether it is long enough."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from attnspec.reference.shapes import FloatArray

Words: TypeAlias = Sequence[str]
Smoothing: TypeAlias = Literal["none", "floor", "add-k", "exp"]


def bleu(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], smoothing: Smoothing = "none",
    effective_order: bool = False,
) -> FloatArray:  # fmt: skip
    """Scores a corpus: the geometric mean of the precisions of phrases of 1 to 4 words, times the brevity penalty.

        BLEU = BP exp(1/N sum_{n=1..N} log p_n),  p_n = matches_n / total_n,  N = 4      (1)

    With smoothing "floor", p_n = 0.1 / total_n where nothing matches; with "exp", 1 / (2^i total_n) for the i-th such n;
    with "add-k", (matches_n + 1) / (total_n + 1) for n > 1. effective_order counts as N only orders with total_n > 0.

    Shapes:  hypotheses [B] sentences, references [B] lists of sentences -> a number, an array without axes.
    Units:   a share of 1; programs often report 100 times as much. Sentences are lists of words: cut them as you declare.
    Empty:   no word in common, or an order without a match and without smoothing, gives 0.
    Errors:  those of modified_precision; ValueError if smoothing is none of the four.
    Source:  Papineni et al., "BLEU" (ACL 2002), sec. 2.3; Chen and Cherry (WMT 2014), methods 1 to 3, for the smoothing.
    Differs: the paper has no smoothing. If no word matches, sacrebleu's rule is kept: 0 with any smoothing.
    """
    if smoothing not in ("none", "floor", "add-k", "exp"):
        raise ValueError(f"smoothing={smoothing!r}: it is one of none, floor, add-k, exp; pass one of these")
    counts = [modified_precision(hypotheses, references, n) for n in range(1, 5)]
    precisions = _smoothed(counts, smoothing)
    if effective_order:
        precisions = [p for p, (_, total) in zip(precisions, counts, strict=True) if total or smoothing == "add-k"]
    if counts[0][0] == 0 or 0 in precisions:
        return np.zeros(())
    length = sum(len(words) for words in hypotheses)
    closest = [min((abs(len(r) - len(h)), len(r)) for r in rs)[1] for h, rs in zip(hypotheses, references, strict=True)]
    return np.asarray(brevity_penalty(length, sum(closest)) * np.exp(np.mean(np.log(np.array(precisions)))))


def modified_precision(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], n: int
) -> tuple[int, int]:  # fmt: skip
    """Counts the phrases of n words that a reference has too, each at most as often as one reference has it.

        matches = sum_hypotheses sum_phrases min(count(phrase), max_references count(phrase))     (1)
        total = sum_hypotheses max(0, words - n + 1)                                     (2)

    Shapes:  hypotheses [B] sentences, references [B] lists of sentences -> matches, total.
    Units:   phrases.
    Empty:   a sentence of fewer than n words has no phrase.
    Errors:  ValueError if n < 1, the corpus is empty, the two differ in length, or a hypothesis has no reference;
             TypeError if a sentence is a string.
    Source:  Papineni et al., "BLEU" (ACL 2002), sec. 2.1, 2.1.1.
    Differs: numerator and denominator are given apart, for they are added up over the corpus first.
    """
    _check(hypotheses, references, n)
    matches = total = 0
    for words, accepted in zip(hypotheses, references, strict=True):
        counts, limits = _phrases(words, n), [_phrases(reference, n) for reference in accepted]
        matches += sum(min(m, max(limit.get(phrase, 0) for limit in limits)) for phrase, m in counts.items())
        total += sum(counts.values())
    return matches, total


def brevity_penalty(length: int, reference_length: int) -> FloatArray:
    """Makes a corpus pay for being shorter than its references.

        BP = min(1, exp(1 - reference_length / length))                                  (1)

    Shapes:  -> a number, an array without axes.
    Units:   a share of 1; lengths count words, of each reference the closest one, and the shorter of two equally close.
    Empty:   a corpus without a word has 0.
    Errors:  ValueError if a length is negative.
    Source:  Papineni et al., "BLEU" (ACL 2002), sec. 2.2.2, 2.3.
    Differs: the paper does not say which of two equally close references counts.
    """
    if min(length, reference_length) < 0:
        raise ValueError(f"length={length}, reference_length={reference_length}: they count words; pass numbers from 0 up")
    if length == 0:
        return np.zeros(())
    return np.asarray(np.minimum(1.0, np.exp(1 - reference_length / length)))


def _smoothed(counts: list[tuple[int, int]], smoothing: Smoothing) -> list[float]:
    """p_n of each order; 0 where an order has no phrase at all."""
    precisions, zeros = [], 0
    for n, (m, total) in enumerate(counts, start=1):
        k = int(smoothing == "add-k" and n > 1)
        zeros += int(m == 0 and total > 0)
        instead = {"exp": 0.5**zeros, "floor": 0.1}.get(smoothing, 0.0) if m + k == 0 else m + k
        precisions.append(instead / (total + k) if total + k else 0.0)
    return precisions


def _phrases(words: Words, n: int) -> dict[tuple[str, ...], int]:
    phrases = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return {phrase: phrases.count(phrase) for phrase in phrases}


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], n: int) -> None:
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        rule = "a corpus has a hypothesis, and each hypothesis has a list of at least one reference"
        raise ValueError(f"{len(hypotheses)} hypotheses, {len(references)} lists of references: {rule}; pair them up")
    for words in (*hypotheses, *(reference for accepted in references for reference in accepted)):
        if isinstance(words, str):
            raise TypeError(f"sentence={words!r}: it is a sequence of words; pass its split()")
    if n < 1:
        raise ValueError(f"n={n}: a phrase has at least 1 word; pass n >= 1")
