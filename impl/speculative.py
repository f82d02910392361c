"""Speculative decoding: a small draft model guesses some words ahead, and the model checks them all in one step."""

from typing import Any, Protocol

import torch
from torch import Tensor

from attnspec.impl.decoding import Extends, Generated, log_softmax, read_prompt
from attnspec.impl.errors import require


class Rewinds(Extends, Protocol):
    """What both models must offer: CausalLM and Seq2Seq do. A state with a past has `seen` [B], its real tokens."""

    def crop(self, state: Any, length: Tensor) -> Any:
        """Keeps the first `length` [B] real tokens of each row."""


@torch.no_grad()
def speculative(
    model: Rewinds, state: Any, draft: Rewinds, draft_state: Any, prompt: Tensor, end_id: int, limit: int, *,
    ahead: int = 4, mask: Tensor | None = None,
) -> Generated:  # fmt: skip
    """Finds what greedy finds with the model, in fewer of its steps: some words at a time, those that the draft foresaw.

        d[b, j] = argmax_v draft logits after y[b] and d[b, 1] .. d[b, j-1],  j = 1 .. ahead     (1)
        g[b, j] = argmax_v model logits after y[b] and d[b, 1] .. d[b, j],  j = 0 .. ahead, in one step     (2)
        y[b] grows by g[b, 0] .. g[b, a],  a = the number of leading j with d[b, j] = g[b, j-1]     (3)

    The last word of (3) is the model's own: its correction of the draft, or one word more if all guesses were right.

    Shapes:  prompt, mask [B,P] with P >= 1; the states belong to the same B -> as greedy, with accepted, proposed [B], in
             which guesses after an end do not count.
    Units:   log_probs are the model's. Rows accept unlike numbers of words. Tokens are greedy's wherever two words are
             further apart than rounding, which is not that of single words here.
    Empty:   a row without room for guesses gets the model's word; capacities are those that greedy needs.
    Errors:  those of greedy; ValueError if ahead < 1, the vocabularies differ, a model has no crop, or a ring has been
             started with a piece < ahead.
    Source:  arXiv:2211.17192 algorithm 1; arXiv:2302.01318 algorithm 2; both at temperature 0.
    Differs: the papers draw words, from one text at a time.
    """
    require(ahead >= 1, "the draft guesses words; use 1 or more", ahead=ahead)
    for role, one in (("model", model), ("draft", draft)):
        rule = "wrong guesses are taken back, and a recurrent state cannot forget; use greedy, or a model with crop"
        require(callable(getattr(one, "crop", None)), rule, **{role: type(one).__name__})
    checking, guessing = _Reader(model, state, prompt, mask), _Reader(draft, draft_state, prompt, mask)
    logits, checking.state = read_prompt(model, state, prompt, end_id, limit, mask)
    V, of_draft = logits.shape[1], guessing.read(prompt, mask).shape[2]
    rule = "both models speak of the same words; use a draft with the model's vocabulary"
    require(of_draft == V, rule, V=V, draft=of_draft)
    text = _Text(logits, end_id, limit)
    room = text.add(logits[:, None], prompt[:, :0], text.room())
    while (most := int(room.max())) > 0:
        k = min(ahead, most - 1)
        before, guesses = text.length, _guesses(guessing, text, room, k)
        words = torch.cat([text.last(1), guesses], dim=1)
        left = text.add(checking.read(words, _real(room, k + 1)), guesses, room)
        checking.keep(text.length - 1)  # the last word is still to be read
        guessing.keep(torch.minimum(before + (room - 1).clamp(min=0, max=k) - 1, text.length - 1))
        room = left
    return text.generated()


def _guesses(draft: "_Reader", text: "_Text", room: Tensor, k: int) -> Tensor:
    """(1), k words for each row that has room for them beside one of the model's."""
    if k == 0:
        return text.tokens[:, :0]
    missing = torch.where(room > 1, text.length - draft.words, 0)[:, None]  # 2 where all guesses were right, else 1
    n, guesses = int(missing.max()), []
    ids, real = text.last(n), torch.arange(n, 0, -1, device=room.device) <= missing
    for j in range(2, k + 2):
        ids = draft.read(ids, real)[:, -1:].argmax(dim=-1)
        real = room[:, None] > j
        guesses.append(ids)
    return torch.cat(guesses, dim=1)


def _real(room: Tensor, n: int) -> Tensor:
    """A row reads as many words as it has room for."""
    return torch.arange(n, device=room.device) < room[:, None]


class _Reader:
    """A model that reads words, of which it keeps some; words [B] counts those kept of the text after the prompt."""

    def __init__(self, model: Rewinds, state: Any, prompt: Tensor, mask: Tensor | None) -> None:
        self.model, self.state = model, state
        real = torch.ones_like(prompt) if mask is None else mask
        self.past: Tensor = getattr(state, "seen", 0) + (real != 0).sum(dim=1)
        self.words = torch.zeros_like(self.past)

    def read(self, ids: Tensor, real: Tensor | None) -> Tensor:
        logits, self.state = self.model.extend(ids, self.state, real)
        return logits

    def keep(self, words: Tensor) -> None:
        self.words = words
        self.state = self.model.crop(self.state, self.past + words)


class _Text:
    """The words found so far: tokens and log_probs as in Generated, of which row b has length[b]."""

    def __init__(self, logits: Tensor, end_id: int, limit: int) -> None:
        B, device = len(logits), logits.device
        self.end_id, self.limit = end_id, limit
        self.tokens = torch.full((B, limit), end_id, device=device)
        self.log_probs = torch.zeros(B, limit, dtype=log_softmax(logits[:1]).dtype, device=device)
        self.length = torch.zeros(B, dtype=torch.long, device=device)
        self.accepted, self.proposed = self.length.clone(), self.length.clone()
        self.ended = torch.zeros(B, dtype=torch.bool, device=device)

    def room(self) -> Tensor:
        """The number of words that each row may still get."""
        return (self.limit - self.length).masked_fill(self.ended, 0)

    def last(self, n: int) -> Tensor:
        """The last n words of each row; those that it does not have are anything."""
        place = self.length[:, None] + torch.arange(-n, 0, device=self.length.device)
        return self.tokens.gather(1, place.clamp(min=0))

    def add(self, logits: Tensor, guesses: Tensor, room: Tensor) -> Tensor:
        """(2) and (3), up to the first end_id: the room that is left."""
        found, j = logits.argmax(dim=-1), torch.arange(logits.shape[1], device=room.device)
        right = (found[:, :-1] == guesses) & (j[1:] < room[:, None])
        accepted = right.cumprod(dim=1).sum(dim=1)
        ends = (found == self.end_id).long()
        taken = (j <= accepted[:, None]) & (ends.cumsum(dim=1) == ends) & (room[:, None] > 0)
        count, (row, t) = taken.sum(dim=1), taken.nonzero(as_tuple=True)
        word, place = found[row, t], self.length[row] + t
        self.tokens[row, place] = word
        self.log_probs[row, place] = log_softmax(logits[row, t]).gather(1, word[:, None])[:, 0]
        self.length = self.length + count
        self.ended = self.ended | (taken & (ends > 0)).any(dim=1)
        self.accepted += torch.minimum(accepted, count)
        proposed = (room - 1).clamp(min=0, max=guesses.shape[1])
        self.proposed += torch.where(self.ended, torch.minimum(proposed, count), proposed)
        return self.room()

    def generated(self) -> Generated:
        T = int(self.length.max())
        return Generated(self.tokens[:, :T], self.log_probs[:, :T], self.accepted, self.proposed)
