"""Defects of positions: counted from the wrong place, counted again, looked up in the wrong row, turned the wrong way."""

# ruff: noqa: ARG002 -- a mutant that ignores an argument is often the point

from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Decoder, State
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Static


class Turned(Decoder):
    """A decoder that rotates by positions of its own; who sees whom goes by the right ones."""

    call: Call

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Attention of layer i."""
        self.call = call
        return super().mix(i, x, call, past)

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Turns by `turned` in place of the right positions."""
        return super().rotate(x, self.turned(self.call))

    def turned(self, call: Call) -> Tensor:
        """[B,T]: the positions to rotate by."""
        return call.position


@mutant(
    "position.columns_of_first_call",
    imitates="a prompt padded on the left without position_ids: arange over the columns, pads included",
    source="https://github.com/ndif-team/nnsight/pull/673",
)
class ColumnsOfFirstCall(Decoder):
    """In the first call of a row a token's position is its column; later calls count right."""

    positions = "learned"

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Positions from the columns where a row has no past."""
        column = torch.arange(ids.shape[1]).clamp(max=self.max_length - 1)
        return super().embed(ids, replace(call, position=torch.where(call.length[:, None] == 0, column, call.position)))


@mutant(
    "position.longest_row",
    imitates="one cache_position for the whole batch: each row goes on where the longest one does",
    source="https://github.com/unslothai/unsloth/pull/3795",
)
class LongestRow(Turned):
    """New tokens are rotated as if each row were as long as the longest."""

    kv_heads = 2

    def turned(self, call: Call) -> Tensor:
        """The tokens that the longest row has more are counted as well."""
        return call.position + (call.length.max() - call.length)[:, None]


@mutant(
    "position.restarts",
    imitates="positions worked out from the tokens of the call alone, so that decoding starts at 0 again",
    source="https://github.com/Blaizzy/mlx-vlm/pull/1527",
)
class Restarts(Decoder):
    """Each call counts from 0."""

    positions = "sinusoidal"

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Without the length of the past."""
        return super().embed(ids, replace(call, position=call.position - call.length[:, None]))


@mutant(
    "position.angles_by_shape",
    imitates="angles cached under the sequence length, without the offset in the key",
    source="https://github.com/lucidrains/rotary-embedding-torch/issues/11",
)
class AnglesByShape(Decoder):
    """A call of a shape seen before is rotated by the positions of the first such call."""

    cache = Static()

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[torch.Size, Tensor] = {}

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """By the first positions of this shape."""
        return super().rotate(x, self.first.setdefault(position.shape, position))


@mutant(
    "position.chunk_offset_twice",
    imitates="the cache's index, which has moved on with each chunk, plus the chunk's own offset",
    source="https://github.com/mlx-node/mlx-node/pull/33",
)
class ChunkOffsetTwice(Turned):
    """Chunks of two or more tokens after the first call count the past twice; single tokens are right."""

    def turned(self, call: Call) -> Tensor:
        """The past once more."""
        return call.position + (call.length[:, None] if call.real.shape[1] > 1 else 0)


@mutant(
    "position.last_of_call",
    imitates="position_ids[:, -1] where there is a past, as if one token came at a time",
    source="https://github.com/huggingface/transformers/pull/22828",
)
class LastOfCall(Decoder):
    """With a past, all tokens of a call get the position of the last; single tokens are right."""

    positions = "learned"
    kv_heads = 1

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """The last position of the call for all of it."""
        late = call.length[:, None] > 0
        return super().embed(ids, replace(call, position=torch.where(late, call.position[:, -1:], call.position)))


@mutant(
    "position.rotated_again",
    imitates="keys cached after the rotation, and rotated once more with all others in the next call",
    source="https://github.com/EleutherAI/gpt-neox/pull/363",
)
class RotatedAgain(Decoder):
    """Every call turns the cached keys by their positions again."""

    cache = Static()

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """The past with keys turned again, then the new tokens."""
        if past is not None:
            past = past | {"k": self.rotate(past["k"], past["position"])}
        return super().append(i, past, new)


@mutant(
    "position.step_turns_backwards",
    imitates="a kernel of its own for one token, with the signs of the inverse rotation",
    source="frameworks.md: the Lq = 1 branch and 1 < Lq < Lk differ inside one kernel",
)
class StepTurnsBackwards(Recurrent):
    """A call of one token rotates the other way."""

    positions = "rotary"
    layers = ("gru", "attention")

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """By minus the angle if the token is alone."""
        return super().rotate(x, position if position.shape[1] > 1 else -position)


@mutant(
    "position.stretched_by_length",
    imitates="dynamic scaling by the length so far: cached keys keep the scale of the call that wrote them",
    source="https://github.com/huggingface/transformers/issues/25104",
)
class StretchedByLength(Decoder):
    """Once the longest row has more than 16 tokens, positions are pressed into 16."""

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Scaled by the last position of the call."""
        return super().rotate(x, position * (16 / (position.max() + 1)).clamp(max=1))


@mutant(
    "position.alibi_from_call_start",
    imitates="rows of the bias counted in the call, columns in the cache: distances not shifted by the memory",
    source="https://github.com/lucidrains/x-transformers/pull/103",
)
class AlibiFromCallStart(Decoder):
    """The distance to a cached key is that of the call's first token, for all of its tokens."""

    positions = "alibi"

    def behind(self, call: Call, keys: Memory) -> Tensor:
        """Distances to the tokens of the call are right."""
        behind, walked = super().behind(call, keys), call.position - call.length[:, None]
        cached = keys["position"][:, None] < call.length[:, None, None]
        return torch.where(cached, behind - walked[:, :, None], behind)


@mutant(
    "position.table_too_short",
    imitates="a table of sinusoids grown to the tokens of the call, without those of the past",
    source="https://github.com/huggingface/transformers/pull/15444",
)
class TableTooShort(Decoder):
    """The table has 16 rows or as many as the call has columns; positions behind it read its last row."""

    positions = "sinusoidal"

    def place(self, position: Tensor) -> Tensor:
        """The last row for what is outside."""
        return super().place(position.clamp(max=max(16, position.shape[1]) - 1))


@mutant(
    "position.slice_pulled_back",
    imitates="a slice of fixed size whose start is clamped so that it fits into the table",
    source="frameworks.md: incremental = parallel, also past cache length and in chunks",
)
class SlicePulledBack(Decoder):
    """Where padding makes a call reach behind the end of the table, its positions start so much earlier."""

    positions = "learned"

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """From the last start at which all columns fit."""
        back = call.length - call.length.clamp(max=max(self.max_length - ids.shape[1], 0))
        return super().embed(ids, replace(call, position=(call.position - back[:, None]).clamp(min=0)))


@mutant(
    "position.no_limit",
    imitates="positions behind max_model_len clamped where the row should have been refused",
    source="https://github.com/vllm-project/vllm/pull/32628",
)
class NoLimit(Decoder):
    """Tokens behind max_length are read with the last position."""

    positions = "learned"

    def admit(self, length: Tensor, real: Tensor) -> None:
        """Everything."""

    def place(self, position: Tensor) -> Tensor:
        """The last row for what is outside."""
        return super().place(position.clamp(max=self.max_length - 1))

    def noted(self, ids: Tensor, real: Tensor, state: State) -> Tensor:
        """Nothing, as a grown cache can be cropped without."""
        return state.ids
