"""What a decoder remembers between steps: the keys and values of its past, in memory allocated once, and of the source."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from attnspec.impl.errors import require
from attnspec.impl.layers import Keep, Memory
from attnspec.impl.positions import Sight


class Call(NamedTuple):
    """Where the new tokens of one call go; nothing is changed until DecoderCache.finish."""

    seen: Tensor  # [B,T], or [1,T] if all rows are alike: real tokens up to each new one, itself included
    after: Tensor  # [B]: seen after the call
    shortest: int  # the least and the largest of `after`
    longest: int
    slots: slice  # the memory that the call reads; it writes the end of it
    scattered: tuple[Tensor, Tensor, Tensor] | None  # row, token and slot of each real one, if rows are unlike


class DecoderCache:
    """The state of a decoder: slot s of row b holds the s-th real token of that row, and padding is not stored.

        keys_i[b, :, s], values_i[b, :, s] = those of real token s in layer i,  s < seen[b]     (1)

    Rows of a batch may be of unlike lengths, with padding on any side of any call. While they are alike, a step writes
    one slice and needs no mask.

    Shapes:  layers[i] [2,B,G,capacity,D], allocated by the first step  seen [B]  memories[i]: k, v [B,G,S,D].
    Units:   capacity and seen count real tokens; window as in the configuration.
    Empty:   a new cache has no past; memory beyond seen is never shown.
    Errors:  ValueError, with the cache unchanged: overflow, another B, rows or lengths that do not exist.
    Source:  arXiv:1911.02150 sec. 2.4.
    Differs: n/a. A step writes into the cache that it is given: whoever wants to keep it forks it first.
    """

    def __init__(
        self, B: int, depth: int, capacity: int, device: torch.device, window: int | None = None,
        memories: list[Memory] | None = None,
    ) -> None:  # fmt: skip
        require(B >= 1, "a batch has rows; use 1 or more", batch=B)
        self.capacity, self.window = capacity, window
        self.layers: list[Tensor | None] = [None] * depth
        self.seen = torch.zeros(B, dtype=torch.long, device=device)
        self.shortest = self.longest = 0
        self.memories = memories
        self.source_row = torch.arange(B, device=device)  # of each row of memories

    def plan(self, B: int, T: int, real: Tensor | None) -> Call:
        """Finds room for T new tokens in each row; real [B,T] says which of them are no padding."""
        rule = "a call has the rows of its state; start another state, or reorder this one"
        require(self.seen.shape[0] == B, rule, rows=B, state=self.seen.shape[0])
        alike = self.shortest == self.longest
        if real is None or bool(real.all()):
            steps = torch.arange(1, T + 1, device=self.seen.device)
            seen = self.longest + steps[None] if alike else self.seen[:, None] + steps
            after, shortest, longest = self.seen + T, self.shortest + T, self.longest + T
        else:
            seen, alike = self.seen[:, None] + real.cumsum(dim=1), False
            after = seen[:, -1]
            shortest, longest = int(after.min()), int(after.max())
        rule = "the tokens of a row must stay within the capacity; crop, or start with a larger one (at most max_length)"
        require(longest <= self.capacity, rule, length=self.longest, longer=longest, capacity=self.capacity)
        scattered = None
        if not alike:
            new = torch.ones(B, T, device=seen.device) if real is None else real
            row, t = new.nonzero(as_tuple=True)
            scattered = row, t, seen[row, t] - 1
        first = 0 if self.window is None else max(0, self.shortest - self.window)  # what no window reaches is not read
        return Call(seen, after, shortest, longest, slice(first, longest), scattered)

    def keeps(self, call: Call) -> list[Keep]:
        """For each layer, the function that writes its new keys and values and gives those that it reads."""
        return [partial(self._keep, i, call) for i in range(len(self.layers))]

    def _keep(self, i: int, call: Call, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.layers[i]
        if memory is None:
            B, G, _, D = k.shape
            memory = self.layers[i] = k.new_empty(2, B, G, self.capacity, D)
        if call.scattered is None:
            memory[0, :, :, self.longest : call.longest] = k
            memory[1, :, :, self.longest : call.longest] = v
        else:
            memory[:, :, :, self.longest : call.longest] = 0  # hidden from some rows, where NaN would spread
            row, t, slot = call.scattered
            memory[0][row, :, slot] = k[row, :, t]
            memory[1][row, :, slot] = v[row, :, t]
        return memory[0, :, :, call.slots], memory[1, :, :, call.slots]

    def finish(self, call: Call) -> None:
        """Counts the new tokens as seen."""
        self.seen, self.shortest, self.longest = call.after, call.shortest, call.longest

    def reorder(self, index: Tensor) -> "DecoderCache":
        """Takes the rows `index` [B'], as a beam search does; the result shares no memory that a step writes."""
        B = self.seen.shape[0]
        whole = index.ndim == 1 and not (index.is_floating_point() or index.dtype == torch.bool) and index.shape[0] > 0
        require(whole, "an index holds whole numbers [B']; pass rows of the state", index=index.shape, dtype=index.dtype)
        index = index.to(self.seen.device, torch.long)
        inside = bool(((index >= 0) & (index < B)).all())
        require(inside, "an index counts the rows of the state from 0; pass some of these", index=index.tolist(), rows=B)
        new = self._with_rows(index, self.longest)
        new.seen = self.seen[index]
        new.shortest, new.longest = int(new.seen.min()), int(new.seen.max())
        return new

    def crop(self, length: int) -> "DecoderCache":
        """Keeps the first `length` real tokens of each row; the result shares no memory that a step writes."""
        require(length >= 0, "a length counts tokens; use 0 or more", length=length)
        new = self._with_rows(None, min(length, self.longest))
        new.seen = self.seen.clamp(max=length)
        new.shortest, new.longest = min(length, self.shortest), min(length, self.longest)
        return new

    def fork(self) -> "DecoderCache":
        """Copies the state; the result shares no memory that a step writes."""
        return self.crop(self.longest)

    def _with_rows(self, index: Tensor | None, length: int) -> "DecoderCache":
        """A cache without counts, with the rows index, or all of them, and what their first `length` slots hold."""
        source_row = self.source_row if index is None else self.source_row[index]
        new = DecoderCache(len(source_row), 0, self.capacity, self.seen.device, self.window)
        new.source_row, new.memories = source_row, self.memories
        if index is not None and self.memories and not torch.equal(source_row, self.source_row):
            new.memories = [Memory(k[index], v[index], _rows(sight, index)) for k, v, sight in self.memories]
        for memory in self.layers:
            if memory is None:
                new.layers.append(None)
                continue
            _, _, G, capacity, D = memory.shape
            copy = memory.new_empty(2, len(source_row), G, capacity, D)
            kept = memory[:, :, :, :length]
            copy[:, :, :, :length] = kept if index is None else kept[:, index]
            new.layers.append(copy)
        return new


def _rows(sight: Sight, index: Tensor) -> Sight:
    return sight if sight.mask is None else sight._replace(mask=sight.mask[index])
