"""What a decoder remembers between steps: the keys and values of its past, in memory allocated once, and of the source."""

import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.impl.errors import require
from attnspec.impl.layers import Keep, Memory
from attnspec.impl.positions import Sight, sight_by_age, sight_of_slots

# Tokens that a ring takes in one go: enough to keep matrix products busy, and few beside the windows that are in use.
PIECE = 64


class Call(NamedTuple):
    """Where the new tokens of one call go; nothing that another call sees is changed until DecoderCache.finish."""

    seen: Tensor  # [B,T], or [1,T] if all rows are alike: real tokens up to each new one, itself included
    after: Tensor  # [B], or [1]: seen after the call
    shortest: int  # the least and the largest of `after`
    longest: int
    read: slice  # the slots that the call reads
    whole: bool  # all of these are seen, but for what is ahead of a token
    scattered: tuple[Tensor, Tensor, Tensor] | None  # row, token and slot of each real one, if rows are unlike
    unwritten: slice  # slots that rows may be shown that have nothing there

    @property
    def places(self) -> Tensor:
        """Where the new tokens stand; padding stands where the token before it does."""
        return (self.seen - 1).clamp(min=0)


class DecoderCache:
    """The state of a decoder: slot n mod slots of row b holds the real token n of that row, and padding is not stored.

        slots = capacity, or min(capacity, window - 1 + piece) with a window: then memory is a ring     (1)
        keys_i[b, :, n mod slots], values_i[b, :, n mod slots] = those of real token n in layer i,  n < seen[b]     (2)
        nbytes = 2 L B G slots D (bytes of an element)                                   (3)

    Rows of a batch may be of unlike lengths, with padding on any side of any call. While they are alike, a step writes
    one slice and needs no mask, unless a ring has come round: its mask is a slice of one that is computed once.

    Shapes:  layers[i] [2,B,G,slots,D], allocated by the first step  seen [B]  memories[i]: k, v [B,G,S,D].
    Units:   capacity and seen count real tokens; window as in the configuration; piece is the number of tokens that a
             ring takes in one go, and that crop may always take back.
    Empty:   a new cache has no past; memory beyond seen is never shown.
    Errors:  ValueError, with the cache unchanged: overflow, another B, rows or lengths that do not exist, lengths that
             a ring has left behind.
    Source:  arXiv:1911.02150 sec. 2.4; arXiv:2310.06825 sec. 2 (rolling buffer).
    Differs: the second paper's ring has room for the window alone. A step writes into the cache that it is given:
             whoever wants to keep it forks it first.
    """

    def __init__(
        self, B: int, depth: int, capacity: int, device: torch.device, window: int | None = None,
        memories: list[Memory] | None = None, piece: int = PIECE,
    ) -> None:  # fmt: skip
        require(B >= 1, "a batch has rows; use 1 or more", batch=B)
        require(piece >= 1, "a ring takes tokens; use 1 or more, or leave it out", piece=piece)
        self.capacity, self.window = capacity, window
        self.slots = capacity if window is None else min(capacity, window - 1 + piece)
        self.piece = piece if self.slots < capacity else capacity
        self.layers: list[Tensor | None] = [None] * depth
        self.counts = torch.arange(1, capacity + 1, device=device)[None]  # its slices are what aligned rows have seen
        self.seen = torch.zeros(B, dtype=torch.long, device=device)
        self.written = torch.zeros(B, dtype=torch.long, device=device)  # the largest seen that crop took back
        self.shortest = self.longest = 0
        self.numbers = 0  # slots before this hold numbers in every row: NaN from elsewhere would spread if hidden
        self.by_age: Tensor | None = None
        self.memories = memories
        self.source_row = torch.arange(B, device=device)  # of each row of memories

    @property
    def nbytes(self) -> int:
        """The bytes of (3); the keys and values of the source come on top."""
        return sum(memory.nbytes for memory in self.layers if memory is not None)

    def plan(self, B: int, T: int, real: Tensor | None) -> Call:
        """Finds room for T new tokens in each row; real [B,T] says which of them are no padding."""
        rule = "a call has the rows of its state; start another state, or reorder this one"
        require(self.seen.shape[0] == B, rule, rows=B, state=self.seen.shape[0])
        alike, first = self.shortest == self.longest, self.longest
        if real is None or bool(real.all()):
            real, shortest, longest = None, self.shortest + T, self.longest + T
            seen = self.counts[:, first:longest] if alike else self.seen[:, None] + self.counts[:, :T]
        else:
            alike, seen = False, self.seen[:, None] + real.cumsum(dim=1)
            shortest, longest = torch.stack(seen[:, -1].aminmax()).tolist()
        rule = "the tokens of a row must stay within the capacity; crop, or start with a larger one (at most max_length)"
        require(longest <= self.capacity, rule, length=self.longest, longer=longest, capacity=self.capacity)
        read, shown = self._read(longest, padded=real is not None)
        scattered, unwritten = None, slice(0)
        if not alike:
            new = torch.ones(B, T, dtype=torch.bool, device=seen.device) if real is None else real
            row, t = new.nonzero(as_tuple=True)
            scattered = row, t, (seen[row, t] - 1) % self.slots
            if min(longest, self.slots) > self.numbers:  # some steps ahead, to do it once for them
                unwritten = slice(self.numbers, min(longest + PIECE, self.slots))
        after = seen[:, -1] if T else self.seen
        # A token sees all that is read if it is the last of its row, or what is before it if the window holds all.
        whole = alike and read.stop - read.start == shown and (T == 1 or (first == 0 and longest <= (self.window or longest)))
        return Call(seen, after, shortest, longest, read, whole, scattered, unwritten)

    def _read(self, longest: int, padded: bool) -> tuple[slice, int]:
        """The slots that hold what the new tokens may see, and how many tokens that is; padding sees what is before it."""
        first = 0 if self.window is None else max(0, self.shortest - self.window + (not padded))
        shown, start = longest - first, first % self.slots
        if start + shown <= self.slots:
            return slice(start, start + shown), shown
        return slice(0, self.slots), shown

    def sight(self, call: Call, config: TransformerConfig, like: Tensor) -> Sight:
        """Who sees what of the slots that the call reads: once for all layers."""
        T = call.seen.shape[1]
        if call.whole and config.positions != "alibi":
            return Sight(causal=T > 1)
        if call.scattered is None and T == 1:
            if self.by_age is None:
                self.by_age = sight_by_age(self.slots, config, like)
            start = call.read.start + self.slots - 1 - (call.longest - 1) % self.slots
            return Sight(bias=self.by_age[..., start : start + call.read.stop - call.read.start])
        last, slot = call.after[:, None] - 1, self.counts[:, call.read] - 1
        return sight_of_slots(last - (last - slot) % self.slots, call.seen, config, like)

    def keeps(self, call: Call) -> list[Keep]:
        """For each layer, the function that writes its new keys and values and gives those that it reads."""
        return [partial(self._keep, i, call) for i in range(len(self.layers))]

    def _keep(self, i: int, call: Call, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.layers[i]
        if memory is None:
            B, G, _, D = k.shape
            memory = self.layers[i] = k.new_empty(2, B, G, self.slots, D)
        if call.scattered is None:
            self._write(memory, k, v)
        else:
            if call.unwritten.stop:
                memory[:, :, :, call.unwritten] = 0
            row, t, slot = call.scattered
            memory[0][row, :, slot] = k[row, :, t]
            memory[1][row, :, slot] = v[row, :, t]
        return memory[0, :, :, call.read], memory[1, :, :, call.read]

    def _write(self, memory: Tensor, k: Tensor, v: Tensor) -> None:
        """Rows are alike: one slice, or two where the ring comes round."""
        start = self.longest % self.slots
        first = self.slots - start
        if k.shape[2] > first:
            memory[0, :, :, : k.shape[2] - first] = k[:, :, first:]
            memory[1, :, :, : k.shape[2] - first] = v[:, :, first:]
            k, v = k[:, :, :first], v[:, :, :first]
        memory[0, :, :, start : start + k.shape[2]] = k
        memory[1, :, :, start : start + k.shape[2]] = v

    def finish(self, call: Call) -> None:
        """Counts the new tokens as seen."""
        self.seen = call.after.expand(len(self.seen))
        self.shortest, self.longest = call.shortest, call.longest
        self.numbers = max(self.numbers, call.unwritten.stop, min(call.longest, self.slots))

    def reorder(self, index: Tensor) -> "DecoderCache":
        """Takes the rows `index` [B'], as a beam search does; the result shares no memory that a step writes."""
        B = self.seen.shape[0]
        whole = index.ndim == 1 and _counts(index) and index.shape[0] > 0
        require(whole, "an index holds whole numbers [B']; pass rows of the state", index=index.shape, dtype=index.dtype)
        index = index.to(self.seen.device, torch.long)
        inside = bool(((index >= 0) & (index < B)).all())
        require(inside, "an index counts the rows of the state from 0; pass some of these", index=index.tolist(), rows=B)
        new = self._with_rows(index)
        new.seen, new.written, new.source_row = self.seen[index], self.written[index], self.source_row[index]
        new.shortest, new.longest = _range(new.seen)
        if self.memories and not torch.equal(new.source_row, self.source_row):
            new.memories = [Memory(k[index], v[index], _rows(sight, index)) for k, v, sight in self.memories]
        return new

    def fork(self) -> "DecoderCache":
        """Copies the state; the result shares no memory that a step writes."""
        return self._with_rows(None)

    def crop(self, length: int | Tensor) -> "DecoderCache":
        """Keeps the first `length` real tokens of each row, a number or one for each row [B]; uses up the state."""
        if isinstance(length, Tensor):
            fits = length.shape == self.seen.shape and _counts(length)
            rule = "lengths are whole numbers [B]; pass one for each row of the state, or one number for all"
            require(fits, rule, length=length.shape, dtype=length.dtype, rows=len(self.seen))
            length = length.to(self.seen.device, torch.long)
            least, seen = int(length.min()), torch.minimum(length, self.seen)
            shortest, longest = _range(seen)
        else:
            least, seen = length, self.seen.clamp(max=length)
            shortest, longest = min(length, self.shortest), min(length, self.longest)
        require(least >= 0, "a length counts tokens; use 0 or more", length=least)
        if self.window is not None and self.slots < self.capacity:
            self._check_held(seen, self.window)
        self.seen, self.shortest, self.longest = seen, shortest, longest
        return self

    def _check_held(self, seen: Tensor, window: int) -> None:
        """Refuses lengths whose window has been overwritten, in part or in whole."""
        written = torch.maximum(self.written, self.seen)
        lost, needed = (written - self.slots).clamp(min=0), (seen - window + 1).clamp(min=0)
        held = bool(((needed >= lost) | (needed >= seen)).all())  # no past, or a window of 1, needs nothing
        least = torch.where(lost > 0, lost + window - 1, 0)
        rule = "a window before this length has left the ring; crop to `least` or to 0, or start with a larger piece"
        require(held, rule, length=seen.tolist(), least=least.tolist(), piece=self.piece)
        self.written = torch.where(seen > 0, written, 0)

    def _with_rows(self, index: Tensor | None) -> "DecoderCache":
        """A cache with the rows index, or all of them, in memory of its own; the counts are still those of this one."""
        new, filled = copy.copy(self), min(self.longest, self.slots)
        new.layers, new.numbers = [None] * len(self.layers), filled
        for i, memory in enumerate(self.layers):
            if memory is not None:
                rows = memory.shape[1] if index is None else len(index)
                own = new.layers[i] = memory.new_empty(2, rows, *memory.shape[2:])
                if index is None:
                    own[:, :, :, :filled] = memory[:, :, :, :filled]
                else:
                    torch.index_select(memory[:, :, :, :filled], 1, index, out=own[:, :, :, :filled])
        return new


def _counts(numbers: Tensor) -> bool:
    return not (numbers.is_floating_point() or numbers.dtype == torch.bool)


def _range(seen: Tensor) -> tuple[int, int]:
    least, largest = torch.stack(seen.aminmax()).tolist()
    return least, largest


def _rows(sight: Sight, index: Tensor) -> Sight:
    return sight if sight.mask is None else sight._replace(mask=sight.mask[index])
