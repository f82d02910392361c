"""What a cache stands for, in lists: the real tokens of each row, recomputed from the start, and what a ring has room for."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees
from tests.reference.drawn_models import Model


class Lists:
    """For each row its real tokens, the row of the source that it reads, and which of its tokens a ring still holds."""

    def __init__(self, model: Model, slots: int) -> None:
        self.model, self.slots = model, slots
        self.words: list[list[int]] = [[] for _ in model.target]
        self.source = list(range(len(model.target)))
        self.held: list[dict[int, int]] = [{} for _ in model.target]  # slot to the number of the token in it

    def extend(self, ids: np.ndarray, real: np.ndarray) -> None:
        for words, held, new in zip(self.words, self.held, [ids[b, real[b]] for b in range(len(ids))], strict=True):
            held.update({n % self.slots: n for n in range(len(words), len(words) + len(new))})
            words.extend(new.tolist())

    def reorder(self, index: np.ndarray) -> None:
        for name in ("words", "source", "held"):
            setattr(self, name, [copy.copy(getattr(self, name)[i]) for i in index])

    def can_crop(self, lengths: np.ndarray) -> bool:
        """Whether all that the windows of the next tokens reach, before these lengths, is there."""
        window, rows = self.model.options["window"], zip(self.words, self.held, lengths, strict=True)
        reached = [
            (held, n) for words, held, length in rows
            for n in range(max(0, min(length, len(words)) - window + 1 if window else 0), min(length, len(words)))
        ]  # fmt: skip
        return all(held[n % self.slots] == n for held, n in reached)

    def crop(self, lengths: np.ndarray) -> None:
        self.words = [words[:length] for words, length in zip(self.words, lengths, strict=True)]

    def fork(self) -> Lists:
        return copy.deepcopy(self)

    def check(self, got: np.ndarray, real: np.ndarray) -> None:
        """The logits of the real tokens that were read last, against the reference."""
        new = real.sum(axis=1)
        asked = np.flatnonzero(new)
        if not asked.size:
            return
        words, rows = [self.words[b] for b in asked], [self.source[b] for b in asked]
        T = max(map(len, words))
        target = np.array([[0] * (T - len(one)) + one for one in words])
        target_mask = np.arange(T) >= T - np.array([[len(one)] for one in words])
        source = None if self.model.source is None else self.model.source[rows]
        of_source = {name: one[rows] for name, one in self.model.masks.items() if name == "source_mask"}
        places = np.nonzero(np.arange(T) >= T - new[asked, None])
        options = self.model.options | of_source | {"target_mask": target_mask, "places": places}
        agrees(got[real], logits_at, source, target, self.model.parameters, **options)


def logits_at(*args: Any, places: Any, **options: Any) -> Any:
    return transformer(*args, **options)[places]
