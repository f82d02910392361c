"""Defects of what recurrent layers remember, alone and beside attention."""

# ruff: noqa: ARG002 -- every piece is told which layer it serves, for mutants that break one layer only

from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Layer, Positions, State
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Ring


class Gru(Recurrent):
    """Two GRU layers."""

    layers: tuple[Layer, ...] = ("gru", "gru")


class Linear(Recurrent):
    """Two layers of linear attention."""

    layers: tuple[Layer, ...] = ("linear", "linear")


class GruAndAttention(Recurrent):
    """A GRU below attention with a grown cache."""

    positions: Positions = "rotary"
    layers: tuple[Layer, ...] = ("gru", "attention")


class LinearAndRing(Recurrent):
    """Linear attention below attention in a ring."""

    positions: Positions = "rotary"
    window, cache = 5, Ring(5)
    layers: tuple[Layer, ...] = ("linear", "attention")


@mutant(
    "state.chunk_keeps_first_token",
    imitates="of the states after each drafted token, the first is kept although more were accepted",
    source="https://github.com/vllm-project/vllm/pull/56531",
)
class ChunkKeepsFirstToken(Gru):
    """A chunk behind a past is answered well, but the state after it is that after its first token."""

    def gru(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """The state after one token."""
        out, kept = super().gru(i, x, call, past)
        return out, {"h": out[:, 0]} if call.length.any() else kept


@mutant(
    "state.short_chunk_loses_tail",
    imitates="a chunk shorter than the convolution's memory fills it up with zeros instead of what was there",
    source="https://github.com/vllm-project/vllm/pull/56196",
)
class ShortChunkLosesTail(Linear):
    """After a chunk of 2 tokens the convolution, which needs 3 from the past, has a 0 in front of them."""

    def convolved(self, i: int, x: Tensor, call: Call, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros for what the chunk is short of; single tokens shift what was there."""
        y, kept = super().convolved(i, x, call, tail)
        if 1 < x.shape[1] < self.C - 1:
            kept[:, : self.C - 1 - x.shape[1]] = 0
        return y, kept


@mutant(
    "state.tail_after_convolution",
    imitates="the first call stores what left the convolution, where a step needs what went in",
    source="https://github.com/state-spaces/mamba/pull/1027",
)
class TailAfterConvolution(LinearAndRing):
    """Calls of more than one token leave outputs of the convolution for the next call's inputs."""

    def convolved(self, i: int, x: Tensor, call: Call, tail: Tensor) -> tuple[Tensor, Tensor]:
        """The last outputs."""
        y, kept = super().convolved(i, x, call, tail)
        if x.shape[1] > 1:
            last = call.real.sum(1)[:, None] + torch.arange(self.C - 1)
            kept = self.lined_up(y, call, tail)[0][torch.arange(len(x))[:, None], last]
        return y, kept


@mutant(
    "state.one_token_start_reads_old_slot",
    imitates="a first call of one token is taken for a step, which reads the slot that a prompt would have cleared",
    source="https://github.com/vllm-project/vllm/pull/51483",
)
class OneTokenStartReadsOldSlot(GruAndAttention):
    """A sequence that starts with a single token goes on from the sequence before it."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """The slot that was left, if the call looks like a step."""
        if past is None or self.layers[i] == "attention":
            return super().mix(i, x, call, past)
        slots = vars(self).setdefault("slots", {})
        step = x.shape[1] == 1 and not call.length.any()
        out, slots[len(x)] = super().mix(i, x, call, slots.get(len(x), past) if step else past)
        return out, slots[len(x)]


@mutant(
    "state.kept_on_module",
    imitates="recurrent layers hold their state themselves, whichever cache they are given",
    source="huggingface.md: RecurrentGemma before 5.x keeps its cache INSIDE the module",
)
class KeptOnModule(GruAndAttention):
    """The GRU goes on from the last call of the model, not from the state of this sequence; a first call starts anew."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Its own state, if that has as many rows."""
        if past is None or self.layers[i] == "attention":
            return super().mix(i, x, call, past)
        mine = vars(self).setdefault("mine", {})
        out, mine[len(x)] = super().mix(i, x, call, mine.get(len(x), past) if call.length.any() else past)
        return out, mine[len(x)]


@mutant(
    "state.slot_by_number_modulo",
    imitates="the slot of a sequence is its number modulo how many there are, so that two live ones may share one",
    source="https://github.com/kekzl/imp/pull/500",
)
class SlotByNumberModulo(Linear):
    """The third sequence clears and writes the state of the first; two are kept apart."""

    started = 0

    def start(self, batch: int) -> State:
        """One of two slots, cleared."""
        state, self.started = super().start(batch), self.started + 1
        slot: list[Memory] = vars(self).setdefault("slots", {}).setdefault((batch, self.started % 2), state.layers)
        for mine in (x for memory in slot for x in memory.values()):
            mine.zero_()
        return replace(state, layers=slot)

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Written in place."""
        out, after = super().mix(i, x, call, past)
        return out, after if past is None else {name: past[name].copy_(new) for name, new in after.items()}


@mutant(
    "state.crop_leaves_recurrent",
    imitates="rejected tokens are cut from the keys, while the recurrent state that has read them stays",
    source="https://github.com/ml-explore/mlx-lm/pull/1486",
)
class CropLeavesRecurrent(GruAndAttention):
    """A crop reaches the attention layer only."""

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """The GRU keeps its state."""
        return super().cropped(i, past, length) if self.layers[i] == "attention" else past


@mutant(
    "state.crop_to_checkpoint",
    imitates="the state found for a prefix is that of its last checkpoint, and the tokens behind it are not read again",
    source="https://github.com/vllm-project/vllm/pull/45477",
)
class CropToCheckpoint(Linear):
    """A crop restores the state after a multiple of 4 tokens, whatever the length."""

    def again(self, state: State, length: int) -> State:
        """The length that was asked for, with an older state."""
        return replace(super().again(state, length), layers=super().again(state, length - length % 4).layers)


@mutant(
    "state.rollback_of_last_call_ignored",
    imitates="undoing exactly the last call asks for the state before it, which no slot holds; success is reported",
    source="https://github.com/ggml-org/llama.cpp/issues/26695",
)
class RollbackOfLastCallIgnored(Gru):
    """A crop to the length before the last call leaves the state as it is; to any other length it is right."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Remembers where the call began."""
        out, after = super().mix(i, x, call, past)
        return out, after | {"began": call.length}

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """Nothing happens where all of the last call should go."""
        return past if "began" in past and bool((past["began"] == length).all()) else None


@mutant(
    "state.reorder_skips_recurrent",
    imitates="beam search reorders the cache that it knows by name, not the recurrent one",
    source="https://github.com/huggingface/transformers/issues/46612",
)
class ReorderSkipsRecurrent(LinearAndRing):
    """Rows of the recurrent state stay where they are."""

    def picked(self, i: int, past: Memory, index: Tensor) -> Memory:
        """As many rows as are asked for, from the first on."""
        stay = torch.arange(len(index)) % max(1, len(next(iter(past.values()))))
        return super().picked(i, past, index if self.layers[i] == "attention" else stay)


@mutant(
    "state.fork_shares_state",
    imitates="two sequences share a recurrent state, and the copy made for the second is not the one that is written",
    source="https://github.com/pie-project/pie/issues/600",
)
class ForkSharesState(GruAndAttention):
    """The branches of a fork write one recurrent state; their keys are their own."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """The GRU's state is written in place."""
        out, after = super().mix(i, x, call, past)
        return out, after if past is None or "h" not in past else {"h": past["h"].copy_(after["h"])}

    def copied(self, i: int, past: Memory) -> Memory:
        """The same state for both."""
        return past if "h" in past else super().copied(i, past)


@mutant(
    "state.prompt_state_in_bfloat16",
    imitates="what the kernel for prompts returns as its last state has the type of its input, not that of the state",
    source="https://github.com/vllm-project/vllm/issues/13466",
)
class PromptStateInBfloat16(Linear):
    """After a call of more than one token the sum is rounded to bfloat16; single steps keep float64."""

    def linear(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """Rounded on the way out."""
        out, kept = super().linear(i, x, call, past)
        return out, kept | {"sum": kept["sum"].bfloat16().double()} if x.shape[1] > 1 else kept


@mutant(
    "state.running_statistics",
    imitates="statistics of what was read that are updated in evaluation too",
    source="frameworks.md: two calls on one object",
)
class RunningStatistics(Gru):
    """Every call makes the logits of later calls a little larger."""

    calls = 0

    def output(self, x: Tensor) -> Tensor:
        """Scaled by what has been counted."""
        out = super().output(x) * (1 + self.calls / 16)
        self.calls += 1
        return out
