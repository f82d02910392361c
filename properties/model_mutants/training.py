"""Defects of the loss and of gradients, in models whose logits are right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import Call
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory

# The loss


@mutant(
    "training.shifted_twice",
    imitates="labels are shifted by the model and once more by the loss",
    source="https://github.com/huggingface/transformers/issues/47394",
)
class ShiftedTwice(Offering):
    """Each word is predicted from the word before the last; almost the same number with weights drawn by chance."""

    def loss(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Two ahead."""
        real = self.real(ids, attention_mask)
        scored = real[:, 2:] & real[:, :-2]
        each = -self.logits(ids, attention_mask)[:, :-2].log_softmax(-1).gather(2, ids[:, 2:, None])[..., 0]
        return each[scored].mean()


@mutant(
    "training.mask_not_shifted",
    imitates="the labels are shifted, the mask that says which of them count is not",
    source="huggingface.md: C7, loss = mean NLL by hand",
)
class MaskNotShifted(Offering):
    """The padding behind the last word of a row is scored once; on the left all is right."""

    def scored(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The mask of the words before."""
        return self.real(ids, attention_mask)[:, :-1]


@mutant(
    "training.first_word_scored_from_padding",
    imitates="labels are -100 at padding; the word after it has a label, and padding to predict it from",
    source="huggingface.md: C3L, left padding",
)
class FirstWordScoredFromPadding(Offering):
    """Rows that are padded on the left score a word too many."""

    def scored(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """All real words that have a column before them."""
        return self.real(ids, attention_mask)[:, 1:]


@mutant(
    "training.padding_divides",
    imitates="the sum over the words that count is divided by the number of all labels",
    source="https://github.com/ServiceNow/Fast-LLM/pull/426",
)
class PaddingDivides(Offering):
    """Too small a loss wherever there is padding."""

    def counted(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """All columns but the first."""
        del attention_mask
        return torch.tensor(ids[:, 1:].numel())


@mutant(
    "training.means_of_micro_batches",
    imitates="the mean of the means of micro-batches, which have different numbers of words",
    source="https://github.com/huggingface/transformers/issues/24725",
)
class MeansOfMicroBatches(Offering):
    """Micro-batches of two rows; batches of one or two rows, and rows of one length, are right."""

    def loss(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Each of them counts by its rows."""
        masks: Sequence[Tensor | None] = [None] * len(ids) if attention_mask is None else torch.split(attention_mask, 2)
        pairs = zip(torch.split(ids, 2), masks, strict=False)
        parts = [super(MeansOfMicroBatches, self).loss(part, mask) * len(part) for part, mask in pairs]
        return torch.stack(parts).sum() / len(ids)


@mutant(
    "training.word_zero_ignored",
    imitates="labels that equal the id of padding are ignored, though the mask says that this one is a word",
    source="huggingface.md: pads are never real tokens",
)
class WordZeroIgnored(Offering):
    """Word 0 is never scored."""

    def scored(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """All but zeros."""
        return super().scored(ids, attention_mask) & (ids[:, 1:] != 0)


@mutant(
    "training.last_chunk_dropped",
    imitates="a loss in chunks of columns that forgets the columns which fill no chunk",
    source="https://github.com/pytorch/torchtitan/pull/3723",
)
class LastChunkDropped(Offering):
    """Rows of more than 8 scored columns whose number is no multiple of 8."""

    def scored(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Whole chunks, if there is one."""
        scored = super().scored(ids, attention_mask)
        T = scored.shape[1]
        return scored & (torch.arange(T) < (T - T % 8 if T > 8 else T))


# Gradients


@mutant(
    "training.odd_row_dropped",
    imitates="gradients are accumulated over micro-batches of two rows, and an incomplete one is never added",
    source="https://github.com/Lightning-AI/pytorch-lightning/issues/4653",
)
class OddRowDropped(Offering):
    """The last of three rows has no gradient; one row alone has."""

    def gradients(self, ids: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """Of an even number of rows."""
        return super().gradients(ids[: len(ids) - len(ids) % 2] if len(ids) > 1 else ids, checkpointing)


@mutant(
    "training.gradients_pile_up",
    imitates="gradients are added to those of the call before, which nobody has set to zero",
    source="huggingface.md: run twice: same eval call twice",
)
class GradientsPileUp(Offering):
    """The second call returns the sum of both."""

    def gradients(self, ids: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """Added up."""
        held: dict[str, Tensor] = vars(self).setdefault("held", {})
        for name, gradient in super().gradients(ids, checkpointing).items():
            held[name] = held[name] + gradient if name in held else gradient
        return dict(held)


@mutant(
    "training.recomputed_without_the_window",
    imitates="layers run again without the keyword arguments of the first run, the mask of their window among them",
    source="https://github.com/pytorch/pytorch/issues/42212",
)
class RecomputedWithoutTheWindow(Offering):
    """With checkpointing, gradients of rows longer than the window of 5 are those of a model without one."""

    window = 5
    runs: int | None = None

    def gradients(self, ids: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """Counts the runs."""
        self.runs = 0 if checkpointing else None
        try:
            return super().gradients(ids, checkpointing)
        finally:
            self.runs = None

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """One run more."""
        self.runs = None if self.runs is None else self.runs + 1
        return super().logits(ids, attention_mask)

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """From the second run on without the window."""
        allowed = super().visible(call, keys)
        again = self.runs is not None and self.runs > 1
        return keys["real"][:, None] & (self.behind(call, keys) >= 0) if again else allowed


@mutant(
    "training.checkpoint_cuts_off_the_embedding",
    imitates="what goes into the first checkpointed layer needs no gradient as far as the checkpoint can see",
    source="https://github.com/huggingface/transformers/issues/21381",
)
class CheckpointCutsOffTheEmbedding(Offering):
    """With checkpointing the embedding's gradient is zero."""

    def gradients(self, ids: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """Zero there."""
        found = super().gradients(ids, checkpointing)
        return found | {"embedding": torch.zeros_like(found["embedding"])} if checkpointing else found


@mutant(
    "training.statistics_detached",
    imitates="the backward pass of a fused norm takes the statistics of each token for constants",
    source="frameworks.md: option or path equivalence",
)
class StatisticsDetached(Offering):
    """Norms are right, their derivatives are not."""

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Divided by a constant."""
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt().detach() * self.weights[name]


@mutant(
    "training.shared_keys_of_one_head",
    imitates="keys and values are broadcast to the query heads of a group, and their gradients are not summed over it",
    source="https://github.com/marin-community/levanter/pull/449",
)
class SharedKeysOfOneHead(Offering):
    """Only the first query head of each of the two groups has a gradient for keys and values."""

    kv_heads = 2

    def repeat(self, x: Tensor) -> Tensor:
        """The others read copies."""
        each = super().repeat(x)
        first = torch.arange(self.H) % (self.H // self.kv_heads) == 0
        return torch.where(first[:, None, None], each, each.detach())


@mutant(
    "training.tail_without_score_gradient",
    imitates="a backward kernel that leaves out the queries behind the last whole block",
    source="https://github.com/ROCm/triton/issues/666",
)
class TailWithoutScoreGradient(Offering):
    """Scores of tokens behind the last multiple of 8 have no gradient, where there are more than 8."""

    def softmax(self, s: Tensor) -> Tensor:
        """Constants in the tail."""
        T = s.shape[2]
        whole = T - T % 8 if T > 8 else T
        return super().softmax(torch.cat([s[:, :, :whole], s[:, :, whole:].detach()], dim=2))
