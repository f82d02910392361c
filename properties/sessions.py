"""What a program amounts to: the model's state beside the plain lists of tokens that it should remember.

The lists are the oracle: after each step that gives logits, they must be those of reading each list at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.compare import none_of
from attnspec.properties.models import Ids, LanguageModel
from attnspec.properties.programs import Step
from attnspec.properties.subject import BoolArray, FloatArray
from attnspec.properties.verdict import Inapplicable, Refused

Rows = list[list[int]]
FEW = 3  # different tokens where they are to be repeated


def tokens(model: LanguageModel, case: Case, name: str, rows: int, count: int) -> Ids:
    """[rows,count]: ids that the model takes for words; all of a row different, as far as there are so many, or very few.

    Equal tokens tie where attention selects, which hides what is wrong with positions and brings out what is wrong with ties.
    """
    low, high = model.profile.get("tokens", (0, model.vocab_size))
    if case.values["ids"].kind == "ties":
        return np.asarray(low + numbers.below(min(FEW, high - low), case.seed, name, (rows, count)))
    order = np.stack([numbers.permutation(high - low, case.seed, f"{name} {row}") for row in range(rows)])
    return np.asarray(low + order[:, np.arange(count) % (high - low)])


def others(model: LanguageModel, ids: Ids, by: Ids | int) -> Ids:
    """Another word for each id, the one that is 1 + `by` words further. Errors: Inapplicable if there is only one."""
    low, high = model.profile.get("tokens", (0, model.vocab_size))
    if high - low < 2:
        raise Inapplicable("the model takes one word only, and no token can be another")
    return np.asarray(low + (ids - low + 1 + by % (high - low - 1)) % (high - low))


def real_tokens(case: Case, name: str, rows: int, count: int) -> BoolArray:
    """[rows,count]: which tokens of a padded call are real, on the side that the case says.

    Of several rows one has no padding, and one may have nothing else; a row alone has some of both, as far as there is room.
    """
    lengths = numbers.below(count + 1, case.seed, f"{name} lengths", (rows, 1))
    if rows == 1:
        lengths = np.clip(lengths, 1, max(1, count - 1))
    else:
        lengths[case.seed // 2 % rows] = count  # the sides take turns with the seeds of fixed cases
    at = np.arange(count)
    side = case.mask.pattern if case.mask else "padding"
    if side == "left-padding":
        return np.asarray(at >= count - lengths)
    if side == "padding":
        return np.asarray(at < lengths)
    order = np.argsort(numbers.words(case.seed, f"{name} holes", rows * count).reshape(rows, count), axis=1)
    return np.asarray(order < lengths)


def at_once(model: LanguageModel, rows: Rows) -> list[FloatArray]:
    """The logits [tokens,V] of each row, read alone or beside rows of its length: no padding, no state."""
    found: list[FloatArray] = [np.zeros((0, model.vocab_size)) for _ in rows]
    together = model.profile.offers("batch")
    lengths = {len(row) for row in rows if row}
    for length in sorted(lengths):
        members = [i for i, row in enumerate(rows) if len(row) == length]
        for some in [members] if together else [[i] for i in members]:
            out = model.logits(np.array([rows[i] for i in some], dtype=np.int64))
            for i, one in zip(some, out, strict=True):
                found[i] = one
    return found


@dataclass(frozen=True)
class Heard:
    """Logits of the real tokens of one step, row after row [tokens,V], beside those of reading each list at once.

    `alone` are the logits of the same tokens without a past: what a model without memory would give.
    """

    what: str
    got: FloatArray
    want: FloatArray
    alone: FloatArray


@dataclass
class Sequence:
    """A state of the model, and the tokens of each row that it should remember."""

    state: Any
    rows: Rows


class Session:
    """A program under way: one sequence is read on, others wait."""

    def __init__(self, model: LanguageModel, case: Case, cache: str | None = None) -> None:
        """`cache` names another kind than the usual one."""
        self.model, self.case, self.cache = model, case, cache
        self.now = self._begun()
        self.waiting: deque[Sequence] = deque()

    def play(self) -> Iterator[Heard]:
        """Plays the case's program from a state without a past."""
        for number, step in enumerate(self.case.schedule or ()):
            name = f"step {number + 1}, {step[0]} {step[1]}"
            try:
                yield from self._step(step, name)
            except Refused as refused:  # each kind of step is offered by itself, and there is room for the tokens
                none_of((str(refused),), f"refusals at {name}")

    def _begun(self) -> Sequence:
        rows = self.case.sizes.B
        state = self.model.start(rows) if self.cache is None else self.model.start_in(self.cache, rows)
        return Sequence(state, [[] for _ in range(rows)])

    def _step(self, step: Step, name: str) -> Iterator[Heard]:
        now = self.now
        match step:
            case ("append", n):
                yield self._read(now, n, name)
            case ("ragged", n):
                yield self._read(now, n, name, real_tokens(self.case, name, len(now.rows), n))
            case ("reorder", n):
                index = numbers.below(len(now.rows), self.case.seed, name, (len(now.rows) + n - 1,))
                now.state = self.model.reorder(now.state, index)
                now.rows = [list(now.rows[i]) for i in index]
            case ("crop", n):
                length = max(0, max(map(len, now.rows)) - n)
                now.state = self.model.crop(now.state, length)
                now.rows = [row[:length] for row in now.rows]
            case ("fork", n):
                copy = Sequence(self.model.fork(now.state), [list(row) for row in now.rows])
                self.waiting.append(copy)
                yield self._read(copy, n, name)
            case ("begin", n):
                self.waiting.append(now)
                self.now = self._begun()
                yield self._read(self.now, n, name)
            case ("other", n):
                self.waiting.append(now)
                self.now = self.waiting.popleft()
                yield self._read(self.now, n, name)
            case ("restart", _):
                self.now = self._begun()

    def _read(self, sequence: Sequence, n: int, name: str, real: BoolArray | None = None) -> Heard:
        """Reads n more tokens with a sequence."""
        rows = sequence.rows
        if 0 < self.model.max_length < max(map(len, rows), default=0) + n:
            raise Inapplicable(f"more tokens than max_length, {self.model.max_length}")
        ids = tokens(self.model, self.case, name, len(rows), n)
        shown = np.ones(ids.shape, dtype=bool) if real is None else real
        fresh = [[int(token) for token in row[seen]] for row, seen in zip(ids, shown, strict=True)]
        alone = np.concatenate(at_once(self.model, fresh))
        got, sequence.state = self.model.extend(ids, sequence.state, real)
        for row, more in zip(rows, fresh, strict=True):
            row.extend(more)
        want = [out[len(out) - len(more) :] for out, more in zip(at_once(self.model, rows), fresh, strict=True)]
        return Heard(f"logits of {name}", got[shown], np.concatenate(want), alone)
