"""Beam search: keep the few best beginnings instead of one, and compare what they end as."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from attnspec.reference.dtypes import check_integers
from attnspec.reference.greedy_search import Step, check_limit, next_logits
from attnspec.reference.shapes import FloatArray, IntArray, check_rank
from attnspec.reference.softmax import log_sum_exp
from attnspec.reference.vocabulary import check_ids

Reorder: TypeAlias = Callable[[Any, IntArray], Any]  # reorder(state, index) gives the state of the rows index


def beam_search(
    step: Step, state: Any, start_id: int | IntArray, end_id: int, limit: int, beams: int,
    reorder: Reorder, alpha: float = 0.0, offset: float = 0.0,
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """Searches each sentence of a batch with a beam of its own.

        candidates = live hypotheses, each with every next word; s = sum of log p        (1)
        finished = best K of finished and of those among the best K candidates that end with end_id or reach limit     (2)
        live = best K candidates that do not end with end_id                             (3)
        score = s / length_penalty(length), by which (2) compares; (1) and (3) compare s     (4)

    Shapes:  start_id is a number (B = 1) or [B]; state belongs to the same B; reorder(state, index [K']) gives the state of
             the rows index -> tokens [B,K,limit], filled up with end_id, and scores [B,K], best first; K is beams.
    Units:   natural logarithm; lengths count the end symbol. Of equal candidates the one of the better hypothesis and
             lower id wins. K = 1 is greedy search if alpha <= 0; else it looks beyond the first end_id.
    Empty:   if fewer than K sentences are possible, the rest is end_id with a score of -inf.
    Errors:  ValueError if limit < 1 or beams < 1, and as in length_penalty; those of greedy_search.
    Source:  arXiv:1409.3215 sec. 3.2; arXiv:1609.08144 sec. 7 for the length penalty; transformers' generate with
             early_stopping="never" for (2).
    Differs: no coverage penalty and no pruning, and the search never stops early, which can only drop worse sentences.
    """
    check_limit("limit", limit)
    check_limit("beams", beams)
    penalties = [length_penalty(t, alpha, offset) for t in range(1, limit + 1)]
    starts = np.atleast_1d(check_integers("start_id", start_id, "ids are integers"))
    check_rank("start_id", starts, "B")
    found = [(np.zeros((0, beams, limit), dtype=np.int64), np.zeros((0, beams)))]  # B = 0 has nothing to join
    for b in range(starts.shape[0]):
        tokens, s = _search(step, reorder(state, np.array([b])), starts[b : b + 1], end_id, penalties, beams, reorder)
        found.append((tokens[None], s[None]))
    return np.concatenate([tokens for tokens, _ in found]), np.concatenate([s for _, s in found])


def length_penalty(length: int, alpha: float, offset: float = 0.0) -> FloatArray:
    """Divides scores so that long sentences are not at a disadvantage.

        length_penalty = ((offset + length) / (offset + 1))^alpha                        (1)

    Shapes:  -> a number, an array without axes.
    Units:   alpha = 0 compares sums of log p, alpha = 1 with offset = 0 their means.
    Empty:   length is at least 1, so a penalty is positive.
    Errors:  ValueError if offset < 0 or length < 1.
    Source:  arXiv:1609.08144 sec. 7, lp(Y), with offset = 5; transformers' length_penalty with offset = 0.
    Differs: the paper has no other offset.
    """
    check_limit("length", length)
    if offset < 0:
        raise ValueError(f"offset={offset}: it is at least 0; pass 0 or 5")
    return np.asarray(np.power((offset + length) / (offset + 1), alpha))


def _search(
    step: Step, state: Any, token: IntArray, end_id: int, penalties: list[FloatArray], beams: int, reorder: Reorder
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """beam_search of one sentence: live [K',t] with sums of log p [K'], finished [K,limit] with scores [K]."""
    limit = len(penalties)
    live, s = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    finished, scores = np.full((beams, limit), end_id), np.full(beams, -np.inf)
    while len(live):
        t = live.shape[1] + 1
        logits, state = next_logits(step, token, state)
        check_ids("end_id", np.asarray(end_id), logits.shape[1])
        candidates = np.reshape(s[:, None] + (logits - log_sum_exp(logits)[:, None]), -1)
        order = np.argsort(-candidates, kind="stable")
        order = order[candidates[order] > -np.inf]
        (parent, word), s = np.divmod(order, logits.shape[1]), candidates[order]
        grown = np.concatenate([live[parent], word[:, None]], axis=1)
        ended = (word == end_id) | (t == limit)
        best = np.flatnonzero(ended[:beams])
        new = np.concatenate([grown[best], np.full((len(best), limit - t), end_id)], axis=1)
        finished, scores = np.concatenate([finished, new]), np.concatenate([scores, s[best] / penalties[t - 1]])
        kept = np.argsort(-scores, kind="stable")[:beams]
        finished, scores = finished[kept], scores[kept]
        on = np.flatnonzero(~ended)[:beams]
        live, s, token, state = grown[on], s[on], word[on], reorder(state, parent[on])
    return finished, scores
