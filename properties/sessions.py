"""What a program amounts to: the model's state beside the plain lists of tokens that it should remember.

The lists are the oracle: after each step that gives logits, they must be those of reading each list at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.models import Ids, LanguageModel
from attnspec.properties.programs import Step
from attnspec.properties.subject import BoolArray, FloatArray

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


def real_tokens(case: Case, name: str, rows: int, count: int) -> BoolArray:
    """[rows,count]: which tokens of a padded call are real, on the side that the case says; one row has no padding."""
    lengths = 1 + numbers.below(count, case.seed, f"{name} lengths", (rows, 1))
    lengths[case.seed % rows] = count
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
class Session:
    """A program under way."""

    model: LanguageModel
    case: Case
    state: Any = None
    rows: Rows = field(default_factory=list)
    other: Any = None
    others: Rows = field(default_factory=list)

    def play(self) -> Iterator[Heard]:
        """Plays the case's program from a state without a past."""
        self.state, self.rows = self._begun()
        for number, step in enumerate(self.case.schedule or ()):
            yield from self._step(step, f"step {number + 1}, {step[0]} {step[1]}")

    def _begun(self) -> tuple[Any, Rows]:
        rows = self.case.sizes.B
        return self.model.start(rows), [[] for _ in range(rows)]

    def _step(self, step: Step, name: str) -> Iterator[Heard]:
        match step:
            case ("append", n):
                self.state, heard = self._read(self.state, self.rows, n, name)
                yield heard
            case ("ragged", n):
                real = real_tokens(self.case, name, len(self.rows), n)
                self.state, heard = self._read(self.state, self.rows, n, name, real)
                yield heard
            case ("reorder", n):
                index = numbers.below(len(self.rows), self.case.seed, name, (len(self.rows) + n - 1,))
                self.state = self.model.reorder(self.state, index)
                self.rows = [list(self.rows[i]) for i in index]
            case ("crop", n):
                length = max(1, min(map(len, self.rows)) - n)
                self.state = self.model.crop(self.state, length)
                self.rows = [row[:length] for row in self.rows]
            case ("fork", n):
                copy, rows = self.model.fork(self.state), [list(row) for row in self.rows]
                yield self._read(copy, rows, n, name)[1]
            case ("other", n):
                if self.other is None:
                    self.other, self.others = self._begun()
                self.other, heard = self._read(self.other, self.others, n, name)
                yield heard
            case ("restart", _):
                self.state, self.rows = self._begun()

    def _read(self, state: Any, rows: Rows, n: int, name: str, real: BoolArray | None = None) -> tuple[Any, Heard]:
        """Reads n more tokens; `rows` is what the state should remember, and grows."""
        ids = tokens(self.model, self.case, name, len(rows), n)
        shown = np.ones(ids.shape, dtype=bool) if real is None else real
        fresh = [[int(token) for token in row[seen]] for row, seen in zip(ids, shown, strict=True)]
        alone = np.concatenate(at_once(self.model, fresh))
        got, state = self.model.extend(ids, state, real)
        for row, more in zip(rows, fresh, strict=True):
            row.extend(more)
        want = [out[len(out) - len(more) :] for out, more in zip(at_once(self.model, rows), fresh, strict=True)]
        return state, Heard(f"logits of {name}", got[shown], np.concatenate(want), alone)
