"""Small models on which the statements of the lecture notes are tried; docs/figures.py says what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attnspec.reference.attention import attention, scores
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.shapes import FloatArray, IntArray


def normalised_by_the_sum(q: Any, k: Any, v: Any) -> Any:
    """The notes' second formula of the weights: the scores over their sum, without exp."""
    e = scores(q, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (e / e.sum(axis=-1, keepdims=True) @ v).astype(q.dtype)


def reversed_in_parallel(source: Sequence[int], V: int) -> list[int]:
    """Translates into the reversed source in one run: query t asks for position S-1-t and sees no output of its own."""
    S = len(source)
    position = 100.0 * np.eye(S)[None, None]  # so large that the position asked for gets all the weight
    out = attention(position[:, :, ::-1], position, np.eye(V)[np.asarray(source)][None, None])
    return [int(word) for word in out[0, 0].argmax(axis=-1)]


def masked(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    """The reference's attention as a subject with a causal flag."""
    return attention(q, k, v, causal="bottom-right" if causal else None).astype(q.dtype)


NextWords = Callable[[list[int]], list[int]]  # the word that follows each prefix


def language_model(V: int = 12, M: int = 8, longest: int = 64) -> tuple[NextWords, NextWords]:
    """A random model of one layer of causal attention, and its draft, which lacks the attention."""
    rng = np.random.default_rng(2)
    words, positions, output = (rng.normal(size=(n, M)) for n in (V, longest, V))

    def draft(tokens: list[int]) -> list[int]:
        return [int(w) for w in (words[tokens] @ output.T).argmax(axis=-1)]

    def model(tokens: list[int]) -> list[int]:
        x = words[tokens] + positions[: len(tokens)]
        read = attention(*[x[None, None]] * 3, causal="bottom-right")[0, 0]
        return [int(w) for w in ((words[tokens] + 2 * read) @ output.T).argmax(axis=-1)]

    return model, draft


def one_at_a_time(model: NextWords, length: int, V: int = 12) -> tuple[list[int], int]:
    """The reference's greedy search over the model, and how often the model ran; no word that it says is the end."""
    runs = 0

    def step(token: IntArray, state: list[int]) -> tuple[FloatArray, list[int]]:
        nonlocal runs
        runs += 1
        said = [*state, int(token[0])]
        return np.eye(V + 1)[model(said)[-1:]], said

    return [0, *map(int, greedy_search(step, [], start_id=0, end_id=V, limit=length)[0])], runs


def speculative(model: NextWords, draft: NextWords, length: int, ahead: int) -> tuple[list[int], int]:
    """Greedy decoding that lets a draft guess `ahead` words, checks them in one run, and keeps those the model says too."""
    tokens, runs = [0], 0
    while len(tokens) <= length:
        guess = list(tokens)
        for _ in range(ahead):
            guess.append(draft(guess)[-1])
        said, runs = model(guess), runs + 1
        for t in range(len(tokens) - 1, len(guess)):
            tokens.append(said[t])
            if t + 1 == len(guess) or said[t] != guess[t + 1]:
                break
    return tokens[: length + 1], runs
