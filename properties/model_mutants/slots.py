"""Three caches of keys and values: grown by concatenation, static, and a ring.

A layer's memory maps names to tensors with the rows of a batch on axis 0. That of an attention layer has a slot for each key:

    k, v [B,S,G,D]      position [B,S]  real tokens before that of the slot      real [B,S]  False: padding, dropped or empty

Where a key stands among the slots means nothing; its position and `real` say who may see it.
"""

# ruff: noqa: ARG002 -- a cache has the methods of the others, whichever arguments it needs

import torch
from torch import Tensor

Memory = dict[str, Tensor]

NAN = float("nan")


class Grown:
    """A slot for every token, padding too."""

    room = 0  # slots of a state without a past

    def empty(self, B: int, G: int, D: int) -> Memory:
        """Memory without a past; nothing may be computed from what was not written, so it is NaN."""
        k, v = (torch.full((B, self.room, G, D), NAN, dtype=torch.float64) for _ in "kv")
        position = torch.zeros(B, self.room, dtype=torch.int64)
        return {"k": k, "v": v, "position": position, "real": torch.zeros(B, self.room, dtype=torch.bool)}

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """The keys that the new tokens may look at, and the memory after them; may use up the past."""
        both = joined(past, new)
        return both, both

    def crop(self, past: Memory, length: int) -> Memory | None:
        """The memory of the first `length` tokens of each row, slots that no row needs cut off; None where it is lost."""
        real = past["real"] & (past["position"] < length)
        S = int(real.any(0).nonzero().max()) + 1 if real.any() else 0
        return {name: x[:, :S] for name, x in (past | {"real": real}).items()}


class Static(Grown):
    """A slot for each position, allocated in advance and written in place; padding has none."""

    def __init__(self, room: int = 40) -> None:
        self.room = room

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """Writes each real token into the slot of its position."""
        write(past, new, new["position"], new["real"])
        return readable(past), past

    def crop(self, past: Memory, length: int) -> Memory | None:
        """Memory of the same size, NaN again behind the first tokens."""
        real = past["real"] & (past["position"] < length)
        k, v = (past[name].masked_fill(~real[..., None, None], NAN) for name in "kv")
        return {"k": k, "v": v, "position": past["position"].clone(), "real": real}


class Ring(Grown):
    """The last `room` tokens of each row: that at position p is in slot p mod room, over the one it pushes out."""

    def __init__(self, room: int) -> None:
        self.room = room

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """The first new tokens still see what the last ones push out, so what is seen is joined before it is written."""
        seen = joined(readable(past), new)
        position, real = new["position"], new["real"]
        last = position.masked_fill(~real, -1).amax(1, keepdim=True)
        write(past, new, position % self.room, real & (position > last - self.room))
        return seen, past

    def crop(self, past: Memory, length: int) -> Memory | None:
        """What the window before the crop needs has been pushed out."""
        return None


def joined(past: Memory, new: Memory) -> Memory:
    """The slots of the past, then the new ones."""
    return {name: torch.cat([past[name], new[name]], dim=1) for name in past}


def write(past: Memory, new: Memory, slot: Tensor, keep: Tensor) -> None:
    """Writes the new tokens that are kept into their slots [B,T], in place."""
    row, t = keep.nonzero(as_tuple=True)
    for name, memory in past.items():
        memory[row, slot[row, t]] = new[name][row, t]


def readable(past: Memory) -> Memory:
    """Zeros in the slots that hold nothing, as 0 · NaN would reach the output though a weight is 0."""
    k, v = (past[name].masked_fill(~past["real"][..., None, None], 0.0) for name in "kv")
    return past | {"k": k, "v": v}
