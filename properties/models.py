"""What a claim sees of a language model: token ids in, logits out, and a state that remembers (DESIGN, Subjects).

logits(ids)[:, t] scores the word after ids[:, :t + 1]                                          (1)
extend(ids, state) = the last T rows of logits(all tokens so far)                                (2)
"""

from __future__ import annotations

from typing import Any, Protocol

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


class Translator(LanguageModel, Protocol):
    """A sequence-to-sequence model as claims see it: for a source that is always the same it is a language model.

    `translate` reads sources [B,S] and targets [B,T] at once; `begin` is the state of sources whose targets have no word yet.
    """

    def translate(
        self, source: Ids, target: Ids, source_mask: BoolArray | None = None, target_mask: BoolArray | None = None
    ) -> FloatArray: ...

    def begin(self, source: Ids, source_mask: BoolArray | None = None) -> Any: ...
