"""Defects of how the keys and values of the past are kept."""

# ruff: noqa: ARG002 -- every piece is told which layer it serves, for mutants that break one layer only

from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Decoder, Positions, State
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Ring, Static, joined, readable, write


@mutant(
    "cache.crop_keeps_one_more",
    imitates="crop leaves a stale token behind, which the next token sees beside itself",
    source="https://github.com/huggingface/transformers/issues/47433",
)
class CropKeepsOneMore(Decoder):
    """The memory of each layer is cropped to one token more than the row's length."""

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """One token more."""
        return super().cropped(i, past, length + 1)


@mutant(
    "cache.crop_first_layer_only",
    imitates="a layer whose memory has a form of its own, and whose crop therefore removes nothing",
    source="https://github.com/huggingface/transformers/pull/47720",
)
class CropFirstLayerOnly(Decoder):
    """The second layer keeps what was cropped, and later tokens see it beside what replaced it."""

    positions: Positions = "learned"

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """Nothing is removed behind the first layer."""
        return past if i else super().cropped(i, past, length)


@mutant(
    "cache.crop_to_nothing_keeps_all",
    imitates="length <= 0 is read as tokens to remove, so that a crop to nothing removes none",
    source="https://github.com/huggingface/transformers/issues/47433",
)
class CropToNothingKeepsAll(Decoder):
    """Cropping to 0 tokens leaves the state as it was; any other length is right."""

    positions: Positions = "alibi"

    def crop(self, state: State, length: int) -> State:
        """All of it where nothing should be left."""
        return super().crop(state, length) if length else state


@mutant(
    "cache.fork_shares_open_block",
    imitates="full blocks may be shared by branches, and the last one is shared although it is not full",
    source="https://github.com/xLLM-AI/xllm/pull/1984",
)
class ForkSharesOpenBlock(Decoder):
    """A fork is no copy unless each row ends where a block of 4 tokens does."""

    positions: Positions = "learned"
    window, cache = 6, Static()

    def copied(self, i: int, past: Memory) -> Memory:
        """The same memory where a block is open."""
        return past if (past["real"].sum(1) % 4).any() else super().copied(i, past)


@mutant(
    "cache.sequences_share_buffer",
    imitates="keys and values lie in one buffer of the model, which every sequence writes from its start",
    source="https://github.com/madroidmaq/mlx-omni-server/issues/108",
)
class SequencesShareBuffer(Decoder):
    """Two sequences in turn overwrite each other; one after the other is right."""

    cache = Static()

    def empty(self, i: int, B: int) -> Memory:
        """Keys and values of the model, not of the sequence."""
        mine = super().empty(i, B)
        k, v = vars(self).setdefault("buffers", {}).setdefault((i, B), (mine["k"], mine["v"]))
        return mine | {"k": k, "v": v}


class WrittenBeforeRead(Ring):
    """A ring whose call looks at what is left after it was written."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """What the last tokens push out is missing for the first ones."""
        kept = super().append(past, new)[1]
        return readable(kept), kept


@mutant(
    "cache.ring_written_before_read",
    imitates="a chunk is written into the ring as a whole before its first token looks",
    source="https://github.com/pytorch/executorch/pull/20346",
)
class RingWrittenBeforeRead(Decoder):
    """The first tokens of a chunk miss the end of their window; single tokens are right."""

    positions: Positions = "alibi"
    window, cache, kv_heads = 6, WrittenBeforeRead(6), 2


class HeadOfChunk(Ring):
    """A ring that stops writing when a call has filled it once."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """Of a call longer than the ring, the first tokens stay instead of the last."""
        seen = joined(readable(past), new)
        keep = new["real"] & (new["real"].cumsum(1) <= self.room)
        write(past, new, new["position"] % self.room, keep)
        return seen, past


@mutant(
    "cache.ring_keeps_head_of_long_chunk",
    imitates="a prompt longer than the cache is cut at the wrong end, while its own logits are right",
    source="https://github.com/Integral2u/SharpMind/issues/57",
)
class RingKeepsHeadOfLongChunk(Decoder):
    """What follows a chunk longer than the window does not see the end of that chunk."""

    window, cache = 5, HeadOfChunk(5)


class FullTooEarly(Ring):
    """A ring that makes room when the last free slot is about to be filled."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """The token that fills the ring does not see the first one, if it comes alone."""
        if new["real"].shape[1] == 1:
            fills = new["real"] & (new["position"] == self.room - 1)
            past = past | {"real": past["real"] & ~(fills & (past["position"] == 0))}
        return super().append(past, new)


@mutant(
    "cache.ring_full_one_step_early",
    imitates="the window slides when the total length reaches it, instead of when it exceeds it",
    source="https://github.com/huggingface/transformers/issues/37574",
)
class RingFullOneStepEarly(Decoder):
    """In single steps, the token that makes the window full loses the first key; before and after it all is right."""

    window, cache = 5, FullTooEarly(5)


class CroppedInPlace(Ring):
    """A ring that forgets the last tokens, as if it still held those that they had pushed out."""

    def crop(self, past: Memory, length: int) -> Memory | None:
        """Some of the window before the crop is missing."""
        return Static(self.room).crop(past, length)


@mutant(
    "cache.ring_cropped_in_place",
    imitates="trim moves the ring's counters back although what was overwritten is gone",
    source="https://github.com/ml-explore/mlx-lm/pull/1512",
)
class RingCroppedInPlace(Decoder):
    """After the ring has wrapped, what follows a crop sees a window with holes."""

    positions: Positions = "learned"
    window, cache = 6, CroppedInPlace(6)


class Wrapping(Static):
    """A static cache that begins again at its end."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """The token behind the last slot goes into the first."""
        write(past, new, new["position"] % self.room, new["real"])
        return readable(past), past


@mutant(
    "cache.overflow_wraps",
    imitates="the length of a call is checked, the length that it makes the row have is not",
    source="https://github.com/karpathy/nanochat/pull/627",
)
class OverflowWraps(Decoder):
    """A row may grow beyond max_length, and forgets its first tokens instead of being refused."""

    cache = Wrapping()

    def admit(self, length: Tensor, real: Tensor) -> None:
        """As if the row began with this call."""
        super().admit(torch.zeros_like(length), real)

    def noted(self, ids: Tensor, real: Tensor, state: State) -> Tensor:
        """There is no place for more tokens, and a static cache needs none."""
        return state.ids


@mutant(
    "cache.refused_call_counts",
    imitates="the position is moved before the call is refused, and not moved back",
    source="https://github.com/mdegans/drama_llama/issues/52",
)
class RefusedCallCounts(Decoder):
    """After a call that was too long, the state counts its tokens; what would still fit is refused."""

    positions: Positions = "sinusoidal"

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Counts, checks, and only then reads."""
        n = self.real(ids, attention_mask).sum(1)
        state.length += n
        self.admit(state.length, torch.zeros(len(n), 0, dtype=torch.int64))
        state.length -= n
        return super().extend(ids, state, attention_mask)


@mutant(
    "cache.kept_in_float32",
    imitates="the cache has a type of its own instead of that of the model",
    source="https://github.com/TransformerLensOrg/TransformerLens/pull/1260",
)
class KeptInFloat32(Decoder):
    """Cached keys and values are rounded to float32 in a float64 model."""

    cache, kv_heads = Static(), 2

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """Rounded where there is a cache."""
        k, v = (new[name].float().double() for name in "kv")
        return super().append(i, past, new if past is None else new | {"k": k, "v": v})


@mutant(
    "cache.last_key_lost_at_block_boundary",
    imitates="where a block is full, how many blocks there are and how long the last one is do not fit together",
    source="https://github.com/pegainfer-project/pegainfer/issues/291",
)
class LastKeyLostAtBlockBoundary(Decoder):
    """A call that starts at a multiple of 8 tokens does not see the token before it; later calls do."""

    positions: Positions = "learned"
    kv_heads = 1

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Without the last key of a full block."""
        past = call.length[:, None, None]
        lost = (past > 0) & (past % 8 == 0) & (keys["position"][:, None] == past - 1)
        return super().visible(call, keys) & ~lost


@mutant(
    "cache.growth_clears_upper_layer",
    imitates="the buffer of all layers is made longer in place, which keeps the first layer only",
    source="https://github.com/karpathy/nanochat/issues/187",
)
class GrowthClearsUpperLayer(Decoder):
    """The call that crosses 8 slots leaves zeros for the past of the second layer; a first call may be longer."""

    positions: Positions = "none"

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """Zeros, still visible, where the buffer grows."""
        if i and past is not None and past["k"].shape[1] <= 8 < past["k"].shape[1] + new["k"].shape[1]:
            past = past | {name: torch.zeros_like(past[name]) for name in "kv"}
        return super().append(i, past, new)


@mutant(
    "cache.step_tiles_heads",
    imitates="the path for one token repeats the key heads as a whole instead of each in turn",
    source="frameworks.md: GQA = repeated heads (needs Hkv > 1); the Lq = 1 branch differs inside one kernel",
)
class StepTilesHeads(Decoder):
    """In single steps query head h reads key head h mod G instead of h // (H // G)."""

    kv_heads = 2

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """Heads that are repeated already, in the wrong order."""
        seen, kept = super().append(i, past, new)
        if past is not None and new["k"].shape[1] == 1:
            seen = seen | {name: seen[name].repeat(1, 1, self.H // self.kv_heads, 1) for name in "kv"}
        return seen, kept


@mutant(
    "cache.alibi_lost_in_steps",
    imitates="the bias is built for the new tokens only, so that for one of them it is a zero that broadcasts",
    source="https://github.com/keras-team/keras-hub/pull/2862",
)
class AlibiLostInSteps(Decoder):
    """Without any bias in single steps; longer calls are right."""

    positions: Positions = "alibi"

    def bias(self, behind: Tensor) -> Tensor:
        """Zeros for one token."""
        return super().bias(behind if behind.shape[1] > 1 else torch.zeros_like(behind))


@mutant(
    "cache.last_draft_not_stored",
    imitates="a draft whose tokens are all accepted leaves no key for the last of them, as it was never read as input",
    source="https://github.com/lablup/mlxcel/pull/1002",
)
class LastDraftNotStored(Decoder):
    """Of a chunk behind a past, the last token is answered but not remembered."""

    window = 5

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """One slot less after such a chunk."""
        seen, kept = super().append(i, past, new)
        if past is not None and past["real"].any() and new["k"].shape[1] > 1:
            kept = {name: x[:, :-1] for name, x in kept.items()}
        return seen, kept


@mutant(
    "cache.upper_layer_counts_twice",
    imitates="one counter for all layers, which the first has moved on when the second asks for its offset",
    source="https://github.com/fla-org/flash-linear-attention/issues/747",
)
class UpperLayerCountsTwice(Decoder):
    """Positions of the second layer are late by the length of the call, which shows when calls differ in length."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """The call counted already."""
        late = replace(call, position=call.position + x.shape[1])
        return super().mix(i, x, late if i and past is not None else call, past)
