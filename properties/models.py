"""What a claim sees of a language model: token ids in, logits out, and a state that remembers (DESIGN, Subjects).

logits(ids)[:, t] scores the word after ids[:, :t + 1]                                          (1)
extend(ids, state) = the last T rows of logits(all tokens so far)                                (2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from attnspec.properties.subject import BoolArray, FloatArray, Profile

Ids = npt.NDArray[np.int64]

FEATURES = {
    "cache": "start and extend: a state that remembers the tokens read",
    "chunks": "several tokens at a time beside a state",
    "batch": "more than one row",
    "padding": "an attention mask",
    "left-padding": "padding before the tokens of a row",
    "padding-between": "padding between the tokens of a row",
    "cached-padding": "an attention mask beside a state",
    "reorder": "other rows of a state",
    "crop": "a state that forgets its last tokens",
    "fork": "a copy of a state",
    "overflow": "a limit on the tokens of a row",
    "source-padding": "an attention mask of the source of a translator",
    "left-source-padding": "padding before the words of a source",
    "source-padding-between": "padding between the words of a source",
    "routes": "other ways to the same logits",
    "caches": "other kinds of caches",
    "reordered-caches": "other rows of a state in other kinds of caches",
    "forked-caches": "a copy of a state in other kinds of caches",
    "default-dtype": "another default dtype around a call",
    "generate": "the words of a greedy search",
    "generate-padded": "a greedy search after rows that are padded on the left",
    "generate-padded-right": "a greedy search after rows that are padded on the right",
    "converse": "a greedy search after each of several turns",
    "beams": "beam search with the probability of each beam",
    "loss": "the loss of its tokens",
    "padded-loss": "the loss of rows that are padded on the right",
    "padded-loss-left": "the loss of rows that are padded on the left",
    "attentions": "the attention weights of its layers",
    "jacobian": "the derivative of logits by the embeddings of its tokens",
    "grafted": "its upper layers on what the lower ones made in another call",
    "gradients": "gradients of its weights",
    "checkpointing": "gradients that run the forward pass again",
    "reloaded": "the same model, written to a file and read again",
    "renamed": "the same model with its words in another order",
    "nudged": "the same model with weights that are a little different",
    "narrowed": "the same model in 16 bits",
}


class LanguageModel(Protocol):
    """A language model as claims see it.

    `ids` are int64 [B,T]; `mask` is True for a real token and covers the tokens of the call. Positions count real tokens.
    What comes back is an exact widening to float64 of the logits [B,T,V] in the model's own dtype. `extend`, `reorder` and
    `crop` may use up the state that they are given; `fork` copies it.

    Errors: Refused if the model does not offer what is asked; BadResult if it returns something else than logits.
    """

    profile: Profile
    vocab_size: int
    max_length: int

    def logits(self, ids: Ids, mask: BoolArray | None = None) -> FloatArray: ...

    def start(self, batch: int) -> Any: ...

    def extend(self, ids: Ids, state: Any, mask: BoolArray | None = None) -> tuple[FloatArray, Any]: ...

    def reorder(self, state: Any, index: Ids) -> Any: ...

    def crop(self, state: Any, length: int) -> Any: ...

    def fork(self, state: Any) -> Any: ...

    def start_in(self, cache: str, batch: int) -> Any:
        """A state without a past in a cache of another kind, one of `profile["caches"]`."""
        ...

    def by_route(self, route: str, ids: Ids, mask: BoolArray | None = None) -> FloatArray:
        """The same logits in another way, one of `profile["routes"]`."""
        ...

    def generate(self, ids: Ids, count: int, mask: BoolArray | None = None) -> Ids:
        """[B,count]: the words of a greedy search after each row; padding stands on the left."""
        ...

    def converse(self, turns: Sequence[Ids], count: int) -> list[Ids]:
        """[B,count] after each turn: the words of a greedy search after all that was read and said."""
        ...

    def beams(self, ids: Ids, count: int, width: int) -> tuple[Ids, FloatArray]:
        """[B,width,count] and log p [B,width]: beam search without a length penalty, the best first."""
        ...

    def loss(self, ids: Ids, mask: BoolArray | None = None) -> float:
        """The mean of -log p(word | words before it) over real words but the first; padding stands on the right."""
        ...

    def attentions(self, ids: Ids, mask: BoolArray | None = None) -> list[FloatArray]:
        """The attention weights of each layer that has any [B,H,T,T]."""
        ...

    def jacobian(self, ids: Ids) -> FloatArray:
        """[T,T] of one row: how far the embedding of the word at s moves the logits at t, to first order: influence[s,t]."""
        ...

    def grafted(self, ids: Ids, others: Ids) -> FloatArray:
        """The logits of a call for `others` whose upper layers go on from what the lower ones made of `ids`."""
        ...

    def gradients(self, ids: Ids, *, checkpointing: bool = False) -> dict[str, FloatArray]:
        """The gradients, by weight, of the sum of -log p(word | words before it)."""
        ...

    def reloaded(self) -> LanguageModel: ...

    def renamed(self, permutation: Ids) -> LanguageModel:
        """The model whose word permutation[i] is what word i is here."""
        ...

    def narrowed(self, dtype: str) -> LanguageModel: ...

    def nudged(self, changes: dict[str, FloatArray]) -> LanguageModel:
        """The model with these changes added to weights, by the names that `gradients` gives them."""
        ...

    def surrounded(self, around: str, ids: Ids, mask: BoolArray | None = None) -> tuple[FloatArray, tuple[str, ...]]:
        """The logits in other surroundings, one of `profile["surroundings"]`, and those that the call altered."""
        ...

    def altered(self, what: Literal["arrays", "settings"]) -> tuple[str, ...]:
        """Names of what calls changed since this was asked last: arrays that are not theirs, settings of the library."""
        ...


class Translator(LanguageModel, Protocol):
    """A sequence-to-sequence model as claims see it: for a source that is always the same it is a language model.

    `translate` reads sources [B,S] and targets [B,T] at once; `begin` is the state of sources whose targets have no word yet.
    """

    def translate(
        self, source: Ids, target: Ids, source_mask: BoolArray | None = None, target_mask: BoolArray | None = None
    ) -> FloatArray: ...

    def begin(self, source: Ids, source_mask: BoolArray | None = None) -> Any: ...
