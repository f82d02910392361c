"""Recurrent encoder-decoders: without attention, with Bahdanau's and with Luong's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from attnspec.impl.additive_attention import AdditiveAttention
from attnspec.impl.errors import require
from attnspec.impl.luong_attention import LuongAttention
from attnspec.impl.recurrent import Cell, Recurrent, State, real_steps, reverse_source

__all__ = ["Alignment", "DecoderState", "Memory", "RecurrentTranslator"]

Alignment: TypeAlias = Literal["none", "additive", "dot", "general", "concat"]


class Memory(NamedTuple):
    """What the encoder hands on: its states [B,S,N], and its last ones, each array [L,B,N]."""

    states: Tensor
    context: State


@dataclass(frozen=True)
class DecoderState:
    """What a decoder knows between two words; a step makes a new one and changes nothing of the old."""

    layers: State  # each array [L,B,N]
    fed: Tensor | None  # Luong's attentional state [B,1,N], with input feeding
    source: tuple[Tensor, ...]  # states [B,S,N], their keys [B,S,A or N], mask [B,1,S]; nothing without attention

    def each(self, change: Callable[[Tensor, int], Tensor]) -> DecoderState:
        """Changes every array, given the axis of its batch."""
        fed = None if self.fed is None else change(self.fed, 0)
        layers, source = (tuple(change(x, axis) for x in arrays) for axis, arrays in ((1, self.layers), (0, self.source)))
        return DecoderState(layers, fed, source)

    def where(self, real: Tensor, old: DecoderState) -> DecoderState:
        """This state for the rows that are real [B], the old one for the others; the source is the same."""
        layers = tuple(torch.where(real[:, None], x, y) for x, y in zip(self.layers, old.layers, strict=True))
        fed = None if self.fed is None or old.fed is None else torch.where(real[:, None, None], self.fed, old.fed)
        return DecoderState(layers, fed, self.source)


class Words(NamedTuple):
    """Sentences with all padding behind the words, where the networks want it; without a mask all is words."""

    ids: Tensor  # [B,T], 0 for padding
    lengths: Tensor | None  # [B]
    places: Tensor | None  # [B,T]: where each entry of the given order stands in this one

    def put_back(self, array: Tensor) -> Tensor:
        """The array [B,T,...] in the order that was given."""
        return array if self.places is None else array.gather(1, self.places[..., None].expand_as(array))


class RecurrentTranslator(nn.Module):
    """Reads a sentence with one recurrent network and writes another with a second one, looking back if it attends.

        states, context = encoder(source.embedding(source)),  s[-1] = context            (1)
        none:      s[t] = decoder(e[t], s[t-1]),  out[t] = s[t],  e = target.embedding(target)       (2)
        additive:  c[t] = attention(s[t-1], states),  s[t] = decoder([e[t]; c[t]], s[t-1]),  out[t] = s[t]   (3)
        others:    s[t] = decoder([e[t]; out[t-1]], s[t-1]), without out[t-1] if not input_feeding,
                   c[t] = attention(s[t], states),  out[t] = tanh(Wc [c[t]; s[t]]),  out[-1] = 0             (4)
        logits[t] = output.weight out[t] + output.bias                                   (5)

    The Seq2Seq protocol: encode, logits, start, extend, reorder, fork. Attention looks with h of the last layer.

    Shapes:  source [B,S]  target [B,T], which starts with the sign for the start  masks as source and target
             -> logits [B,T,target_V]; alignment tables [B,T,S].
    Units:   V, M are words and width of the source's embedding, target_V and target_M of the target's (the same unless
             given); N is the width of states on both sides, N / 2 for each direction of a bidirectional encoder; A (N
             unless given) is the hidden width of additive and concat. Masks are 1 or True for a word; padding may stand
             anywhere, and what comes out there is zero. Logits are natural-log weights.
    Empty:   a source without words has a context of zero, and a table of zeros; T = 0 gives no logits.
    Errors:  ValueError for options, sizes or masks that do not fit; IndexError of torch for ids out of range, except in
             padding, which may be anything.
    Source:  arXiv:1409.3215 sec. 2 and, for reverse_source, 3.3; arXiv:1409.0473 sec. 3; arXiv:1508.04025 sec. 3.
    Differs: the decoder starts from the encoder's last state as it is, and the logits of (3) see s[t] only; the table of
             a reversed source has the words in their own order.
    """

    def __init__(
        self,
        V: int,
        M: int,
        N: int,
        layers: int = 1,
        cell: Cell = "lstm",
        attention: Alignment = "none",
        *,
        target_V: int | None = None,
        target_M: int | None = None,
        A: int | None = None,
        bidirectional: bool = False,
        reverse_source: bool = False,
        input_feeding: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        target_V, target_M, A = (x if y is None else y for x, y in ((V, target_V), (M, target_M), (N, A)))
        sizes = {"V": V, "M": M, "N": N, "target_V": target_V, "target_M": target_M, "A": A}
        require(min(sizes.values()) >= 1, "sizes are 1 or more; use positive numbers", **sizes)
        known = get_args(Alignment)
        require(attention in known, f"attention is one of {', '.join(known)}; pass one of these", attention=attention)
        directions = 2 if bidirectional else 1
        require(N % directions == 0, "two directions share N; use an even N", N=N)
        self.N, self.directions, self.reverse_source = N, directions, reverse_source
        self.feeds = input_feeding and attention in ("dot", "general", "concat")
        self.stepwise = self.feeds or attention == "additive"  # a step needs the result of the one before
        self.source = nn.ModuleDict({"embedding": nn.Embedding(V, M)})
        self.encoder = Recurrent(M, N // directions, layers, cell, bidirectional=bidirectional, bias=bias)
        self.target = nn.ModuleDict({"embedding": nn.Embedding(target_V, target_M)})
        self.decoder = Recurrent(target_M + (N if self.stepwise else 0), N, layers, cell, bias=bias)
        self.attention: AdditiveAttention | LuongAttention | None = None
        if attention == "additive":
            self.attention = AdditiveAttention(N, N, A, bias=bias)
        elif attention != "none":
            self.attention = LuongAttention(N, N, attention, A)
        self.output = nn.Linear(N, target_V, bias)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Memory:
        """(1): the states of the encoder in the order of the words, and its last states."""
        words = _words("source", source, source_mask)
        x = self.source["embedding"](words.ids)
        states, final = self.encoder(reverse_source(x, words.lengths) if self.reverse_source else x, words.lengths)
        states = words.put_back(reverse_source(states, words.lengths) if self.reverse_source else states)
        # [L*directions,B,N/directions]: the last states of both runs of a layer stand side by side
        context = (array.unflatten(0, (-1, self.directions)).transpose(1, 2).flatten(2) for array in final)
        return Memory(states, tuple(context))

    def start(self, memory: Memory, source_mask: Tensor | None = None) -> DecoderState:
        """The state before the first word; W h of the attention is computed here, once for a source."""
        states, context = memory
        fed = states.new_zeros(states.shape[0], 1, self.N) if self.feeds else None
        if self.attention is None:
            return DecoderState(context, None, ())
        mask = states.new_ones(states.shape[:2], dtype=torch.bool) if source_mask is None else _boolean(source_mask)
        rule = "a mask has one entry for each state; pass the mask of encode"
        require(mask.shape == states.shape[:2], rule, source_mask=mask.shape, states=states.shape)
        return DecoderState(context, fed, (states, self.attention.keys(states), mask[:, None]))

    def extend(self, target: Tensor, state: DecoderState, target_mask: Tensor | None = None) -> tuple[Tensor, DecoderState]:
        """Appends T words: logits [B,T,target_V] after each of them, and the new state."""
        logits, _, state = self._advance(target, state, target_mask)
        return logits, state

    def extend_with_table(
        self, target: Tensor, state: DecoderState, target_mask: Tensor | None = None
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """extend, and where each step looked, [B,T,S]."""
        self._check_attends()
        logits, table, state = self._advance(target, state, target_mask)
        return logits, state, table

    def logits(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """Teacher forcing: the logits after every word of target, all steps at once where no step waits for another."""
        state = self.start(self.encode(source, source_mask), source_mask)
        return self._advance(target, state, target_mask)[0]

    def logits_with_table(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """logits, and where each step looked, [B,T,S]."""
        self._check_attends()
        state = self.start(self.encode(source, source_mask), source_mask)
        return self._advance(target, state, target_mask)[:2]

    def reorder(self, state: DecoderState, index: Tensor) -> DecoderState:
        """The state of the rows index [B'], which may repeat; nothing is shared with the old one."""
        return state.each(lambda array, axis: array.index_select(axis, index))

    def fork(self, state: DecoderState) -> DecoderState:
        """A copy that shares nothing with the old one."""
        return state.each(lambda array, _: array.clone())

    def _advance(
        self, target: Tensor, state: DecoderState, target_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Logits, the table of alignments, and the state after the last word."""
        words, B = _words("target", target, target_mask), state.layers[0].shape[1]
        rule = "words are [B,T], a row for each sentence of the state; reorder the state"
        require(target.shape[0] == B, rule, target=target.shape, B=B)
        x: Tensor = self.target["embedding"](words.ids)
        out, table, state = (self._one_by_one if self.stepwise else self._step)(x, state, words.lengths)
        logits = words.put_back(self.output(out))
        if target_mask is None:
            return logits, table, state
        padding = (target_mask == 0)[..., None]
        return logits.masked_fill(padding, 0.0), words.put_back(table).masked_fill(padding, 0.0), state

    def _one_by_one(self, x: Tensor, state: DecoderState, lengths: Tensor | None) -> tuple[Tensor, Tensor, DecoderState]:
        """_step for any number of words, of which each needs the result of the one before."""
        B, T = x.shape[:2]
        real = None if lengths is None else real_steps(lengths, B, T)
        outs, tables = [x.new_zeros(B, 0, self.N)], [x.new_zeros(B, 0, state.source[0].shape[1])]  # T = 0 joins nothing
        for t in range(T):
            out, table, new = self._step(x[:, t : t + 1], state, None)
            state = new if real is None else new.where(real[:, t], state)
            outs.append(out)
            tables.append(table)
        return torch.cat(outs, dim=1), torch.cat(tables, dim=1), state

    def _step(self, x: Tensor, state: DecoderState, lengths: Tensor | None) -> tuple[Tensor, Tensor, DecoderState]:
        """(2) to (4) for one word, or for any number of them if the model is not stepwise."""
        if self.attention is None:
            out, layers = self.decoder(x, lengths, state.layers)
            return out, x.new_zeros(*x.shape[:2], 0), DecoderState(layers, None, ())
        states, keys, mask = state.source
        if isinstance(self.attention, AdditiveAttention):
            context, table = self.attention(state.layers[0][-1][:, None], states, mask, keys)
            out, layers = self.decoder(torch.cat([x, context], dim=2), lengths, state.layers)
            return out, table, DecoderState(layers, None, state.source)
        x = x if state.fed is None else torch.cat([x, state.fed], dim=2)
        s, layers = self.decoder(x, lengths, state.layers)
        context, table = self.attention(s, states, mask, keys)
        out = self.attention.join(context, s)
        return out, table, DecoderState(layers, None if state.fed is None else out, state.source)

    def _check_attends(self) -> None:
        require(self.attention is not None, "only attention gives a table; build the model with one", attention="none")


def _boolean(mask: Tensor) -> Tensor:
    require(not mask.is_floating_point(), "a mask is boolean, or 1 for a word; compare it with zero", mask=mask.dtype)
    return mask != 0


def _words(name: str, ids: Tensor, mask: Tensor | None) -> Words:
    require(ids.ndim == 2, "sentences are [B,T]; add an axis for a batch of one", **{name: ids.shape})
    if mask is None:
        return Words(ids, None, None)
    mask = _boolean(mask)
    require(mask.shape == ids.shape, "a mask has one entry for each word", **{f"{name}_mask": mask.shape, name: ids.shape})
    order = (~mask).long().argsort(dim=1, stable=True)
    return Words(ids.masked_fill(~mask, 0).gather(1, order), mask.sum(dim=1), order.argsort(dim=1))
