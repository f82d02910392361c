"""Greedy search: at each step the most likely word, until the end symbol."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from attnspec.reference.dtypes import check_integers
from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank
from attnspec.reference.vocabulary import check_ids

# step(token [B], state) -> logits [B,V] of the next token, and the state after it; the old state is left as it was.
Step: TypeAlias = Callable[[IntArray, Any], tuple[FloatArray, Any]]


def greedy_search(step: Step, state: Any, start_id: int | IntArray, end_id: int, limit: int) -> IntArray:
    """Feeds the model its own most likely word until every sentence has ended.

        y[b, t] = argmax_v logits[b, t, v],  logits[b, t] = step(y[b, t-1]),  y[b, -1] = start_id      (1)
        y[b, t] = end_id after the first end_id                                          (2)

    Shapes:  start_id is a number (B = 1) or [B]; state belongs to the same B -> [B,T] with T <= limit.
    Units:   the start symbol is not part of the result, the end symbol is. Of equal logits the lowest id wins.
    Empty:   a model that never ends is cut after limit words.
    Errors:  ValueError if limit < 1 or end_id is out of range; TypeError if start_id
             is no integer; ShapeError if step does not give [B,V] or start_id has two axes.
    Source:  the lecture notes, prediction; arXiv:1409.3215 sec. 3.2 with a beam of 1.
    Differs: n/a.
    """
    check_limit("limit", limit)
    token = np.atleast_1d(check_integers("start_id", start_id, "ids are integers"))
    check_rank("start_id", token, "B")
    ended, tokens = np.zeros(token.shape, dtype=np.bool_), []
    for _ in range(limit):
        logits, state = next_logits(step, token, state)
        check_ids("end_id", np.asarray(end_id), logits.shape[1])
        token = np.where(ended, end_id, np.argmax(logits, axis=-1))
        ended = ended | (token == end_id)
        tokens.append(token)
        if np.all(ended):
            break
    return np.stack(tokens, axis=1)


def next_logits(step: Step, token: IntArray, state: Any) -> tuple[FloatArray, Any]:
    """Takes a step of the model and checks what it gives.

        logits, state' = step(token, state)                                              (1)

    Shapes:  token [B] -> logits [B,V], and the new state.
    Units:   natural-log weights.
    Empty:   B may be zero.
    Errors:  ShapeError if the logits are not [B,V].
    Source:  docs/notation.md, axes and sizes.
    Differs: n/a.
    """
    logits, state = step(token, state)
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[0] != token.shape[0]:
        rule = f"step gives [B,V], a row for each of the B={token.shape[0]} tokens"
        raise ShapeError(f"logits.shape={logits.shape}: {rule}; check step")
    return logits, state


def check_limit(name: str, number: int) -> None:
    """Refuses a count of words or of hypotheses that is less than one.

        number >= 1                                                                      (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   zero is refused.
    Errors:  ValueError if number < 1.
    Source:  a search returns at least one word.
    Differs: n/a.
    """
    if number < 1:
        raise ValueError(f"{name}={number}: it is at least 1; pass {name} >= 1")
