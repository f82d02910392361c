"""Defects of rows: mixed up, or dependent on how many there are and on what the others hold."""

# ruff: noqa: ARG002 -- every piece is told which layer it serves, for mutants that break one layer only

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Decoder, Layer, Positions, State
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Ring, Static, joined, readable, write


@mutant(
    "batch.reorder_in_place",
    imitates="beams are copied one after the other inside one buffer, and one is overwritten before it is read",
    source="https://github.com/ggml-org/whisper.cpp/pull/1243",
)
class ReorderInPlace(Decoder):
    """A row that is taken from an earlier place gets what was just copied there; moving rows forward is right."""

    window, cache = 5, Ring(5)

    def picked(self, i: int, past: Memory, index: Tensor) -> Memory:
        """Follows the copies in the order of the rows."""
        holds = list(range(max(len(index), len(past["k"]))))
        for b, old in enumerate(index.tolist()):
            holds[b] = holds[old]
        return super().picked(i, past, torch.tensor(holds[: len(index)], dtype=torch.int64))


@mutant(
    "batch.reorder_keeps_lengths",
    imitates="keys are moved with their row, the row's offset is not",
    source="https://github.com/ml-explore/mlx-lm/pull/1141",
)
class ReorderKeepsLengths(Decoder):
    """After a reorder a row counts on from the length of the row that was in its place."""

    positions: Positions = "learned"

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        """Lengths by place."""
        moved = super().reorder(state, index)
        return replace(moved, length=state.length[torch.arange(len(moved.length)) % max(1, len(state.length))])


@mutant(
    "batch.first_row_decides_what_is_past",
    imitates="whether there is a state to go on from is asked once for the batch, not for each row",
    source="https://github.com/vllm-project/vllm/pull/51483",
)
class FirstRowDecidesWhatIsPast(Recurrent):
    """As long as the first row has read nothing, every row starts anew with each call."""

    layers: tuple[Layer, ...] = ("linear", "linear")

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Without a past where the first row has none."""
        return super().mix(i, x, call, past if call.length[:1].any() else None)


@mutant(
    "batch.crop_leaves_phantoms",
    imitates="what a shorter row gives up is zeroed instead of removed, and a zero key still has weight",
    source="https://github.com/Blaizzy/mlx-vlm/issues/1962",
)
class CropLeavesPhantoms(Decoder):
    """After a crop, slots that one row needs and another does not are seen by both, as zeros."""

    positions: Positions = "learned"
    kv_heads = 2

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """Zeros that count."""
        kept = self.cache.crop(past, length) or {}
        gone = ~kept["real"]
        k, v = (kept[name].masked_fill(gone[..., None, None], 0.0) for name in "kv")
        return {"k": k, "v": v, "position": kept["position"].masked_fill(gone, 0), "real": torch.ones_like(gone)}


class SlotsOfFirstRow(Static):
    """A static cache with one place to write for the whole batch."""

    def append(self, past: Memory, new: Memory) -> tuple[Memory, Memory]:
        """Each row is written where the first row is."""
        write(past, new, new["position"][:1].expand_as(new["position"]), new["real"])
        return readable(past), past


@mutant(
    "batch.slots_of_first_row",
    imitates="the index into the cache is taken from the first row and used for all",
    source="https://github.com/google-research/timesfm/pull/492",
)
class SlotsOfTheFirstRow(Decoder):
    """Rows of another length than the first overwrite their own keys; rows of equal length are right."""

    cache = SlotsOfFirstRow()


@mutant(
    "batch.rotation_of_first_row_only",
    imitates="a kernel for one token per row that writes the first row and leaves zeros in the others",
    source="https://github.com/ml-explore/mlx/issues/3949",
)
class RotationOfFirstRowOnly(Decoder):
    """In calls of one token, rows behind the first have queries and keys of zeros."""

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Only the first row where there is one token."""
        turned = super().rotate(x, position)
        turned[1:] *= x.shape[1] > 1
        return turned


@mutant(
    "batch.idle_row_shifts_others",
    imitates="rows without a token are taken out of a call, and those behind them are stored one place too early",
    source="https://github.com/gittensor-ai-lab/sparkinfer/issues/289",
)
class IdleRowShiftsOthers(Decoder):
    """A call in which an earlier row has padding only stores a row's keys in the place of another."""

    positions: Positions = "none"

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """Rows with tokens first, as far as what is kept goes."""
        seen, kept = super().append(i, past, new)
        order = new["real"].any(1).long().argsort(descending=True, stable=True)
        return seen, kept if past is None else joined(past, {name: x[order] for name, x in new.items()})


@mutant(
    "batch.capacity_of_longest_row",
    imitates="rows share one cursor, so that the longest leaves no room for what a shorter one still may read",
    source="https://github.com/ml-explore/mlx-lm/pull/873",
)
class CapacityOfLongestRow(Decoder):
    """A short row is refused tokens that would make the longest row of its batch too long."""

    positions: Positions = "sinusoidal"

    def admit(self, length: Tensor, real: Tensor) -> None:
        """As if all were as long as the longest."""
        super().admit(length.clamp(min=max(length.tolist(), default=0)), real)


@mutant(
    "batch.tokens_over_capacity",
    imitates="an expert takes so many tokens of a call, and those of the last rows get nothing",
    source="https://github.com/NVIDIA/Megatron-LM/pull/5542",
)
class TokensOverCapacity(Decoder):
    """The feed-forward layer leaves out what is behind the first 40 tokens of a call, counted through all rows."""

    positions: Positions = "alibi"

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Zeros for the rest, padding counted too."""
        y = super().feed_forward(i, x).flatten(0, 1)
        y[self.max_length :] = 0
        return y.view_as(x)
