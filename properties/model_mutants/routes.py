"""Defects of other routes to the same logits, and of other kinds of caches, where `logits` and `start` are right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import Call, State
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Grown, Memory, Ring, Static, joined, readable, write


class Kernel(Offering):
    """Offers one route more, "kernel", in which the pieces may tell by `inside` that they run."""

    inside = False

    @property
    def routes(self) -> dict[str, Callable[..., Tensor]]:
        return super().routes | {"kernel": self.kernel}

    def kernel(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The logits, computed by the kernel."""
        self.inside = True
        try:
            return self.logits(ids, attention_mask)
        finally:
            self.inside = False


@mutant(
    "routes.first_row_drops_the_mask",
    imitates="whether there is padding is asked of one row; if it has none, the fast path without a mask runs for all",
    source="huggingface.md: most sdpa bugs exist only with attention_mask=None",
)
class FirstRowDropsTheMask(Kernel):
    """A full first row beside rows that are padded on the left."""

    def kernel(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Without the mask if the first row needs none."""
        full = attention_mask is None or bool((attention_mask[:1] != 0).all())
        return super().kernel(ids, None if full else attention_mask)


@mutant(
    "routes.second_call_top_left",
    imitates="a fused causal flag lines up the first query with the first key, where the last belongs to the last",
    source="https://github.com/pytorch/executorch/pull/21749",
)
class SecondCallTopLeft(Kernel):
    """The second of two calls sees the past from its beginning; the states of users are read well."""

    def two_calls(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """By the kernel."""
        self.inside = True
        try:
            return super().two_calls(ids, attention_mask)
        finally:
            self.inside = False

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """By the number of the slot, not by its position."""
        allowed = super().visible(call, keys)
        T, S = allowed.shape[1:]
        if not self.inside or T == 1:
            return allowed
        return allowed & (torch.arange(S) <= torch.arange(T)[:, None])


@mutant(
    "routes.packed_rows_share_a_boundary",
    imitates="rows are packed into one sequence, whose offsets are off by one, so that a row begins with its neighbour's end",
    source="https://github.com/Dao-AILab/flash-attention/issues/1104",
)
class PackedRowsShareABoundary(Kernel):
    """All rows but the first see the last real token of the row before."""

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """One key more, in front."""
        seen, kept = super().append(i, past, new)
        if not self.inside:
            return seen, kept
        row = torch.arange(len(new["real"]))
        last = (new["real"] * torch.arange(1, new["real"].shape[1] + 1)).argmax(1)
        before = {name: x[row - 1, last[row - 1]][:, None] for name, x in new.items()}
        before["real"] = before["real"] & (row > 0)[:, None]
        return joined(before | {"position": torch.zeros_like(before["position"])}, seen), kept


@mutant(
    "routes.partial_block_is_full",
    imitates="a block mask counts the last block, which the row does not fill, among those that need no mask",
    source="https://github.com/pytorch/pytorch/issues/141126",
)
class PartialBlockIsFull(Kernel):
    """Tokens behind the last multiple of 8 see each other, later ones too; rows of 8, 16 or fewer than 8 are right."""

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Without the order of time in the last block."""
        allowed = super().visible(call, keys)
        T = allowed.shape[1]
        if not self.inside or T < 8:
            return allowed
        tail = torch.arange(T) >= T - T % 8
        return allowed | (tail[:, None] & tail & keys["real"][:, None])


@mutant(
    "routes.sorted_rows_put_back_wrongly",
    imitates="rows are sorted by length and put back with the same permutation instead of its inverse",
    source="https://github.com/mead-ml/mead-baseline/pull/677",
)
class SortedRowsPutBackWrongly(Kernel):
    """Three rows that change places in a circle; two rows, or rows of one length, are right."""

    def kernel(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Longest rows first."""
        order = self.real(ids, attention_mask).sum(1).argsort(descending=True, stable=True)
        return super().kernel(ids[order], None if attention_mask is None else attention_mask[order])[order]


@mutant(
    "routes.mask_kept_by_shape",
    imitates="block masks are dear and kept for the next call; the key has the shape and not the padding",
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/2982",
)
class MaskKeptByShape(Kernel):
    """The second batch of a shape gets the mask of the first."""

    def kernel(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """That of the shape, if there was one."""
        kept: dict[torch.Size, Tensor] = vars(self).setdefault("masks", {})
        return super().kernel(ids, kept.setdefault(ids.shape, self.real(ids, attention_mask).clone()))


@mutant(
    "routes.chunks_take_the_first_mask",
    imitates="a long prompt is read in chunks, each with the first columns of the mask instead of its own",
    source="huggingface.md: cheap extras that would have paid: prefill_chunk_size",
)
class ChunksTakeTheFirstMask(Kernel):
    """Chunks of 4 columns; from the second on they have the padding of the first."""

    def kernel(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """With a cache."""
        state, found = self.start(len(ids)), []
        for part in torch.split(ids, 4, dim=1):
            mask = None if attention_mask is None else attention_mask[:, : part.shape[1]]
            logits, state = self.extend(part, state, mask)
            found.append(logits)
        return torch.cat(found, dim=1)


class Unwritten(Static):
    """A static cache that hands out whole blocks of 8 slots."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """Slots of the last block that hold nothing yet have keys of zeros, and count."""
        seen, kept = super().append(past, new)
        written = seen["real"].sum(1, keepdim=True)
        block = torch.arange(self.room) < (written + 7) // 8 * 8
        return seen | {"real": seen["real"] | block}, kept


@mutant(
    "routes.static_sees_unwritten_slots",
    imitates="a static cache returns all of its slots, and the zeros that were never written are not masked",
    source="https://github.com/huggingface/transformers/pull/30414",
)
class StaticSeesUnwrittenSlots(Offering):
    """In a static cache a token sees zeros up to the next multiple of 8."""

    kinds: Mapping[str, Grown] = MappingProxyType({"grown": Grown(), "static": Unwritten()})


class OneShort(Static):
    """A static cache without a slot for the last position."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """The last slot is written twice."""
        write(past, new, new["position"].clamp(max=self.room - 1), new["real"])
        return readable(past), past


@mutant(
    "routes.static_one_slot_short",
    imitates="room is made for the tokens before the last one, whose index is then pulled back",
    source="https://github.com/pytorch/executorch/pull/2689",
)
class StaticOneSlotShort(Offering):
    """In a static cache the 40th token takes the place of the 39th."""

    kinds: Mapping[str, Grown] = MappingProxyType({"grown": Grown(), "static": OneShort(39)})


@mutant(
    "routes.static_states_share_memory",
    imitates="the buffers of a static cache are allocated once per shape and handed to every sequence",
    source="https://github.com/kekzl/imp/pull/500",
)
class StaticStatesShareMemory(Offering):
    """Two static states of as many rows write the same values in the upper layer; alone each is right."""

    def begun(self, batch: int, kind: str) -> State:
        """The values of the last layer are those of the first state of this size."""
        state = super().begun(batch, kind)
        if kind == "static":
            buffers: dict[int, Tensor] = vars(self).setdefault("buffers", {})
            state.layers[-1]["v"] = buffers.setdefault(batch, state.layers[-1]["v"])
        return state


@mutant(
    "routes.static_keeps_its_batch",
    imitates="a static cache is allocated for a number of rows, and a reorder to more of them writes only those",
    source="huggingface.md: C2static, and StaticCache in generate()",
)
class StaticKeepsItsBatch(Offering):
    """After a reorder of a static state to more rows, those behind the old number have the keys of the last old one."""

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        """Lengths are right."""
        moved = super().reorder(state, index)
        B, more = len(state.length), len(moved.length)
        if self.kind(state) != "static" or not 0 < B < more:
            return moved
        there = torch.arange(more).clamp(max=B - 1)
        return replace(moved, layers=[{name: x[there] for name, x in memory.items()} for memory in moved.layers])


class FullOneLate(Ring):
    """A ring that is filled exactly by its first call, and takes itself for not yet full."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """Then its slots are turned by one, so that the next token pushes out the newest and not the oldest."""
        seen = joined(readable(past), new)
        position, real = new["position"], new["real"]
        count = real.sum(1, keepdim=True)
        exactly = (count == self.room) & ~past["real"].any(1, keepdim=True)
        last = position.masked_fill(~real, -1).amax(1, keepdim=True)
        write(past, new, (position + exactly) % self.room, real & (position > last - self.room))
        return seen, past


@mutant(
    "routes.windowed_full_one_late",
    imitates="the index into the rolling buffer is right before it is full and after, not in between",
    source="https://github.com/huggingface/transformers/pull/47708",
)
class WindowedFullOneLate(Offering):
    """In the windowed cache a prompt of exactly 5 tokens loses its last one to the next token."""

    window = 5
    kinds: Mapping[str, Grown] = MappingProxyType({"grown": Grown(), "windowed": FullOneLate(5)})
