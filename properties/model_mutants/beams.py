"""Defects of beam search: what moves with a beam, what it is worth, and in which order beams are returned."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import State
from attnspec.properties.model_mutants.registry import mutant


class Searching(Offering):
    """Tells by `rows` that a beam search for so many rows is under way; 0 otherwise."""

    rows = 0

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        self.rows = len(ids)
        try:
            return super().beams(ids, count, width)
        finally:
            self.rows = 0

    def worth(self, ids: Tensor, words: Tensor) -> Tensor:
        """log p [B,W] of words [B,W,N] after the prompt."""
        B, W, N = words.shape
        both = torch.cat([ids[:, None].expand(B, W, -1), words], dim=2).flatten(0, 1)
        logs = self.logits(both)[:, -N - 1 : -1].log_softmax(-1)
        return logs.gather(2, words.flatten(0, 1)[..., None]).sum((1, 2)).view(B, W)


@mutant(
    "beams.first_row_decides_the_reorder",
    imitates="the cache is reordered only where beams have moved, which is asked of one row for the whole batch",
    source="https://github.com/facebookresearch/fairseq2/pull/258",
)
class FirstRowDecidesTheReorder(Searching):
    """As long as the beams of the first row stay in place, those of all rows keep their keys."""

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        """Not if the first row needs none."""
        index = torch.as_tensor(index)
        width = len(index) // max(1, self.rows)
        stays = self.rows and len(index) == len(state.length) and index[:width].tolist() == list(range(width))
        return state if stays else super().reorder(state, index)


@mutant(
    "beams.row_offset_missing",
    imitates="the number of a beam within its row is used as that within the batch",
    source="https://github.com/huggingface/transformers/pull/2292",
)
class RowOffsetMissing(Searching):
    """From the second word on, every row goes on with the keys of the first row's beams."""

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        """Within the row."""
        index = torch.as_tensor(index)
        spread = self.rows and len(state.length) > self.rows
        return super().reorder(state, index % (len(index) // self.rows) if spread else index)


@mutant(
    "beams.history_stays",
    imitates="keys are moved with their beam, the words said before are not",
    source="https://github.com/bigscience-workshop/petals/issues/571",
)
class HistoryStays(Searching):
    """Each word is returned at the place that its beam had when it was chosen."""

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        """The words as they were read."""
        self.read_words: list[Tensor] = []
        words, scores = super().beams(ids, count, width)
        said = [word.view(len(ids), width, 1) for word in self.read_words[1:]]  # the first is the prompt
        return torch.cat([*said, words[..., len(said) :]], dim=2), scores

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Noted in a search."""
        if self.rows:
            self.read_words.append(ids)
        return super().extend(ids, state, attention_mask)


@mutant(
    "beams.all_start_equal",
    imitates="the beams of a row begin with equal scores, so that the best word is chosen once for each of them",
    source="https://github.com/OpenNMT/OpenNMT-py/issues/920",
)
class AllStartEqual(Searching):
    """All beams are the greedy words."""

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        """The same, `width` times."""
        words = self.generate(ids, count)[:, None].expand(-1, width, -1).clone()
        return words, self.worth(ids, words)


@mutant(
    "beams.last_word_not_scored",
    imitates="the scores that are returned are those from before the last step",
    source="https://github.com/OpenNMT/OpenNMT-py/issues/1844",
)
class LastWordNotScored(Searching):
    """log p of all words but the last; the words are right."""

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        """One word less."""
        words, scores = super().beams(ids, count, width)
        return words, self.worth(ids, words[..., :-1]) if count > 1 else torch.zeros_like(scores)


@mutant(
    "beams.order_of_the_step_before",
    imitates="finished beams are collected in the order of the beams they came from, not sorted again",
    source="https://github.com/OpenNMT/OpenNMT-py/issues/1844",
)
class OrderOfTheStepBefore(Searching):
    """Beams are in the order in which they were before their last word; words and scores are right."""

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        """Sorted by all words but the last."""
        words, scores = super().beams(ids, count, width)
        if count > 1:
            order = self.worth(ids, words[..., :-1]).argsort(dim=1, descending=True, stable=True)
            words, scores = words.take_along_dim(order[..., None], 1), scores.take_along_dim(order, 1)
        return words, scores
