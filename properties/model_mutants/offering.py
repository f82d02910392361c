"""A correct decoder that offers everything that a language model may offer beside its logits (docs/conventions.md).

Other routes to the same logits, other kinds of caches, searches, a loss, weights of attention, gradients, and models made
from it: reloaded from a file, with the words in another order, in 16 bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import nll_loss
from torch.utils.checkpoint import checkpoint

from attnspec.properties.model_mutants.plain import Call, Decoder, State
from attnspec.properties.model_mutants.slots import Grown, Memory, Static


@dataclass
class Kept(State):
    """A state and the kind of cache that it is in."""

    kind: str = "grown"


class Offering(Decoder):
    """The rotary decoder with all that is optional in the protocol."""

    kinds: Mapping[str, Grown] = MappingProxyType({"grown": Grown(), "static": Static()})  # the caches a state may ask for
    in_use = "grown"  # the kind that a new state gets; another one while a state of that kind is read again

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Tensor] | None = None

    # Other ways to the same logits

    @property
    def routes(self) -> dict[str, Callable[..., Tensor]]:
        """Each takes (ids, attention_mask=None) and gives what `logits` gives."""
        return {"rows alone": self.rows_alone, "two calls": self.two_calls, "last tokens first": self.last_first}

    def rows_alone(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Row after row."""
        masks = [None] * len(ids) if attention_mask is None else attention_mask[:, None]
        return torch.cat([self.logits(row[None], mask) for row, mask in zip(ids, masks, strict=True)])

    def two_calls(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The first half, then the rest beside a state."""
        half, state, found = ids.shape[1] // 2, self.start(len(ids)), []
        for part in (slice(0, half), slice(half, None)):
            if ids[:, part].shape[1]:
                out, state = self.extend(ids[:, part], state, None if attention_mask is None else attention_mask[:, part])
                found.append(out)
        return torch.cat(found, dim=1)

    def last_first(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The rows in reverse order."""
        return self.logits(ids.flip(0), None if attention_mask is None else attention_mask.flip(0)).flip(0)

    # Other kinds of caches

    @property
    def caches(self) -> dict[str, Callable[[int], State]]:
        """Each takes a number of rows and gives a state without a past, as `start` does."""
        return {kind: partial(self.begun, kind=kind) for kind in self.kinds}

    def begun(self, batch: int, kind: str) -> State:
        with self.in_cache(kind):
            return self.kept(super().start(batch), kind)

    def start(self, batch: int) -> State:
        return self.begun(batch, self.in_use)

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        with self.in_cache(self.kind(state)):
            logits, after = super().extend(ids, state, attention_mask)
        return logits, self.kept(after, self.kind(state))

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        return self.kept(super().reorder(state, index), self.kind(state))

    def crop(self, state: State, length: int) -> State:
        with self.in_cache(self.kind(state)):
            return self.kept(super().crop(state, length), self.kind(state))

    def fork(self, state: State) -> State:
        return self.kept(super().fork(state), self.kind(state))

    def kind(self, state: State) -> str:
        return state.kind if isinstance(state, Kept) else "grown"

    def kept(self, state: State, kind: str) -> State:
        return Kept(state.length, state.ids, state.layers, kind)

    @contextmanager
    def in_cache(self, kind: str) -> Iterator[None]:
        """Caches are of this kind inside the block."""
        before = self.in_use, self.cache
        self.in_use, self.cache = kind, self.kinds[kind]
        try:
            yield
        finally:
            self.in_use, self.cache = before

    def empty(self, i: int, B: int) -> Memory:
        dtype = self.weights["embedding"].dtype
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in super().empty(i, B).items()}

    # Searches

    def generate(self, ids: Tensor, count: int, attention_mask: Tensor | None = None) -> Tensor:
        """The words [B,count] that greedy search puts after the real tokens of each row."""
        return self.words_after(ids, self.start(len(ids)), count, attention_mask)[0]

    def converse(self, turns: Sequence[Tensor], count: int) -> list[Tensor]:
        """After each turn [B,T] the words [B,count] of a greedy search, which belong to what later turns come after."""
        state, said = self.start(len(turns[0])), []
        for turn in turns:
            words, state = self.words_after(turn, state, count)
            said.append(words)
        return said

    def words_after(
        self, ids: Tensor, state: State, count: int, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """The words of a greedy search, and the state that has read all of them."""
        logits, state = self.extend(ids, state, attention_mask)
        row = torch.arange(len(ids))
        words = [self.chosen(logits[row, self.last(ids, attention_mask)])]
        for _ in range(count):
            logits, state = self.extend(words[-1][:, None], state)
            words.append(self.chosen(logits[:, -1]))
        return torch.stack(words[:count], dim=1), state

    def last(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """[B]: the column of the last real token of each row."""
        real = self.real(ids, attention_mask)
        return (real * torch.arange(1, ids.shape[1] + 1)).argmax(1)

    def chosen(self, logits: Tensor) -> Tensor:
        """[B,V] -> [B]."""
        return logits.argmax(-1)

    def beams(self, ids: Tensor, count: int, width: int) -> tuple[Tensor, Tensor]:
        """The words [B,width,count] of beam search, the best first, and the logarithms of their probabilities [B,width]."""
        B, V = len(ids), self.vocab_size
        logits, state = self.extend(ids, self.start(B))
        scores, words = logits[:, -1].log_softmax(-1)[:, None], torch.zeros(B, 1, 0, dtype=torch.int64)
        rows = torch.arange(B)[:, None]
        for t in range(count):
            scores, best = scores.flatten(1).topk(width, dim=1)
            parent, word = best // V, best % V
            words = torch.cat([words[rows, parent], word[..., None]], dim=2)
            if t + 1 < count:
                state = self.reorder(state, (rows * (1 if t == 0 else width) + parent).flatten())
                logits, state = self.extend(word.reshape(-1, 1), state)
                scores = scores[..., None] + logits[:, -1].log_softmax(-1).view(B, width, V)
        return words, scores

    # Loss, weights of attention, gradients

    def loss(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The mean of -log p(word | words before it) over all real words but the first of each row."""
        return self.summed(ids, attention_mask) / self.counted(ids, attention_mask)

    def summed(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The sum of -log p(word | words before it)."""
        scored = self.scored(ids, attention_mask)
        logs = self.logits(ids, attention_mask)[:, :-1].log_softmax(-1)
        each = nll_loss(logs.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(scored.shape)
        return each.masked_fill(~scored, 0).sum()

    def counted(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How many words that sum has."""
        return self.scored(ids, attention_mask).sum()

    def scored(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[B,T-1]: which words are scored: real ones after a real one. Padding stands at an end of the row."""
        real = self.real(ids, attention_mask)
        return real[:, 1:] & real[:, :-1]

    def attentions(self, ids: Tensor, attention_mask: Tensor | None = None) -> list[Tensor]:
        """The weights of each layer [B,H,T,T]."""
        self.heard = []
        self.logits(ids, attention_mask)
        heard, self.heard = self.heard, None
        return heard

    def softmax(self, s: Tensor) -> Tensor:
        weights = super().softmax(s)
        if self.heard is not None:
            self.heard.append(weights)
        return weights

    def gradients(self, ids: Tensor, checkpointing: bool = False) -> dict[str, Tensor]:
        """The gradients of `summed` for all weights; with checkpointing, forward passes are run again backwards."""
        before = self.weights
        self.weights = {name: weight.detach().clone().requires_grad_() for name, weight in before.items()}
        try:
            total = checkpoint(self.summed, ids, use_reentrant=False) if checkpointing else self.summed(ids)
            used = [name for name in self.weights if name != "position"]  # the table of learned positions, which it has not
            return dict(zip(used, torch.autograd.grad(total, [self.weights[name] for name in used]), strict=True))
        finally:
            self.weights = before

    def grafted(self, ids: Tensor, others: Tensor) -> Tensor:
        """The logits of a call for `others` whose upper layer goes on from what the lower one made of `ids`."""
        real, length = self.real(ids, None), torch.zeros(len(ids), dtype=torch.int64)
        call, half = Call(real, self.position(real, length), length), len(self.layers) // 2
        made = self.through(self.embed(ids, call), call, range(half))
        self.embed(others, call)  # which is read, and put away
        return self.output(self.norm(self.through(made, call, range(half, len(self.layers))), "norm"))

    def through(self, x: Tensor, call: Call, layers: range) -> Tensor:
        """[B,T,M] after these layers."""
        for i in layers:
            x = x + self.mix(i, self.norm(x, f"{i}.norm"), call, None)[0]
            x = x + self.feed_forward(i, self.norm(x, f"{i}.up.norm"))
        return x

    # Models made from it

    def reloaded(self) -> Offering:
        """The model that was written to a file and read again."""
        return self.with_weights(load(save(self.weights)))

    def renamed(self, permutation: Tensor) -> Offering:
        """The model whose word permutation[i] is what word i is here."""
        weights = dict(self.weights)
        for name in ("embedding", "output"):
            weights[name] = torch.empty_like(weights[name]).index_copy(0, permutation, weights[name])
        return self.with_weights(weights)

    def narrowed(self, dtype: str) -> Offering:
        """The model in float16 or bfloat16."""
        return self.with_weights({name: weight.to(getattr(torch, dtype)) for name, weight in self.weights.items()})

    def nudged(self, changes: dict[str, Tensor]) -> Offering:
        """The model with these changes added to weights."""
        return self.with_weights(self.weights | {name: self.weights[name] + change for name, change in changes.items()})

    def with_weights(self, weights: dict[str, Tensor]) -> Offering:
        """The same model with other weights."""
        other = copy.copy(self)
        other.weights = weights
        return other

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        return super().rotate(x, position).to(x.dtype)
