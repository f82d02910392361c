"""Defects of translators: which source a row reads, and how much of it.

`Translator` is a correct one in small pieces: words of the target attend to those of the source once, beside a decoder.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Decoder, State
from attnspec.properties.model_mutants.registry import mutant


class Memory(NamedTuple):
    """The words of each source [B,S,M], and which of them are real [B,S]."""

    words: Tensor
    real: Tensor


class Translating(NamedTuple):
    """The state of the decoder and the memory of each row."""

    past: State
    memory: Memory


class Translator:
    """logits(source, target) = decoder(target) + tanh(softmax(target embedding · memory) memory) output."""

    vocab_size, max_length = Decoder.vocab_size, Decoder.max_length

    def __init__(self) -> None:
        self.decoder = Decoder(positions="learned")

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """The embeddings of the source, each with a trace of its place among the real words."""
        real = torch.ones_like(source, dtype=torch.bool) if source_mask is None else source_mask.bool()
        place = (real.cumsum(1) - 1).clamp(min=0).to(torch.float64)
        return Memory(self.decoder.weights["embedding"][source] + torch.sin(place)[..., None], real)

    def logits(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """All words of the target at once."""
        return self.decoder.logits(target, target_mask) + self.read(target, self.encode(source, source_mask))

    def start(self, memory: Memory, source_mask: Tensor | None = None) -> Translating:
        """A state without a word; the memory knows which of its words are real."""
        return Translating(self.decoder.start(len(memory.words)), self.kept(memory, source_mask))

    def kept(self, memory: Memory, source_mask: Tensor | None) -> Memory:
        """What the state keeps of the memory."""
        return memory if source_mask is None else memory._replace(real=source_mask.bool())

    def extend(self, target: Tensor, state: Translating, target_mask: Tensor | None = None) -> tuple[Tensor, Translating]:
        """Further words of the target."""
        out, past = self.decoder.extend(target, state.past, target_mask)
        return out + self.read(target, state.memory), Translating(past, state.memory)

    def reorder(self, state: Translating, index: Tensor) -> Translating:
        """Other rows, each with its own source."""
        return Translating(self.decoder.reorder(state.past, index), self.picked(state.memory, index))

    def picked(self, memory: Memory, index: Tensor) -> Memory:
        """The memory of those rows."""
        return Memory(memory.words[index], memory.real[index])

    def fork(self, state: Translating) -> Translating:
        """A copy; the memory is only read."""
        return Translating(self.decoder.fork(state.past), state.memory)

    def crop(self, state: Translating, length: int) -> Translating:
        """The first words of the target, and all of the source."""
        return Translating(self.decoder.crop(state.past, length), state.memory)

    def read(self, target: Tensor, memory: Memory) -> Tensor:
        """What the words of the target read in the source [B,T,V]."""
        x = self.decoder.weights["embedding"][target]
        scores = x @ memory.words.mT / math.sqrt(x.shape[-1])
        weights = scores.masked_fill(~memory.real[:, None], -math.inf).softmax(-1)
        return torch.tanh(weights @ memory.words) @ self.decoder.weights["output"].T


@mutant(
    "cross.memory_stays",
    imitates="the decoder's cache is reordered and the encoder's output is not",
    source="huggingface.md: C12cache, cached cross-attention",
)
class MemoryStays(Translator):
    """After a reorder the rows keep the sources of their places."""

    def picked(self, memory: Memory, index: Tensor) -> Memory:
        """Those of the old places."""
        at = torch.arange(len(index)) % len(memory.words)
        return super().picked(memory, at)


@mutant(
    "cross.mask_forgotten_in_steps",
    imitates="the mask of the source is used at once and not beside a cache",
    source="huggingface.md: C12pad, encoder padding",
)
class MaskForgottenInSteps(Translator):
    """Beside a state padding of the source is read."""

    def kept(self, memory: Memory, source_mask: Tensor | None) -> Memory:
        """All words count as real."""
        del source_mask
        return memory._replace(real=torch.ones_like(memory.real))


@mutant(
    "cross.padding_read_at_once",
    imitates="padding on the left of a source is not masked",
    source="huggingface.md: C12pad, encoder padding",
)
class PaddingReadAtOnce(Translator):
    """Padding before the first word of a source is read."""

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """Real from the first column to the last real word."""
        memory = super().encode(source, source_mask)
        return memory._replace(real=memory.real.flip(1).cumsum(1).flip(1) > 0)


@mutant(
    "cross.last_word_unread",
    imitates="an off-by-one in the length of the memory",
    source="claims.md: XA2, every decoder step sees all valid memory",
)
class LastWordUnread(Translator):
    """The last word of a source is not seen, where it has more than one."""

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """One less."""
        memory = super().encode(source, source_mask)
        words = memory.real.sum(1, keepdim=True)
        last = memory.real & (memory.real.cumsum(1) == words) & (words > 1)
        return memory._replace(real=memory.real & ~last)


@mutant(
    "cross.causal_on_the_memory",
    imitates="the causal mask of the target laid over the memory",
    source="claims.md: XA2, no causal on memory",
)
class CausalOnTheMemory(Translator):
    """At once a word of the target sees the source up to its own place."""

    def logits(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Word by word of the source."""
        memory = self.encode(source, source_mask)
        seen = [Memory(memory.words[:, : t + 1], memory.real[:, : t + 1]) for t in range(target.shape[1])]
        rows = [self.read(target[:, t : t + 1], some) for t, some in enumerate(seen)]
        return self.decoder.logits(target, target_mask) + torch.cat(rows, dim=1)
