"""Defects of padding: seen, counted, forgotten, or looked for on one side only."""

from dataclasses import replace

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Decoder, State
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Ring, Static


def trailing(real: Tensor) -> Tensor:
    """[B,T]: True behind the last real token of a row."""
    return real.flip(1).cumsum(1).flip(1) == 0


@mutant(
    "padding.forgotten_after_the_call",
    imitates="the padding mask applied in the first decoding step only",
    source="https://github.com/OpenNMT/OpenNMT-py/pull/2532",
)
class ForgottenAfterTheCall(Decoder):
    """Later calls see the padding of earlier ones."""

    kv_heads = 2

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """All that is remembered is taken for real."""
        seen, kept = super().append(i, past, new)
        return seen, kept | {"real": torch.ones_like(kept["real"])}


@mutant(
    "padding.heads_tiled",
    imitates="mask.repeat(heads, 1, 1) where repeat_interleave was meant: heads hide by the mask of another row",
    source="https://github.com/line/lighthouse/pull/77",
)
class HeadsTiled(Decoder):
    """Head h of row b uses the mask of row (b · H + h) mod B; rows alone, or all alike, are right."""

    positions = "learned"

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """By masks laid out head by head and read row by row."""
        return super().hide(s, allowed[:, 0].repeat(self.H, 1, 1).view(s.shape))


@mutant(
    "padding.right_only",
    imitates="packing by lengths, which takes the first n columns for the n tokens of a row",
    source="https://github.com/facebookresearch/fairseq/pull/851",
)
class RightOnly(Recurrent):
    """Padding left of a token or between two is moved to the right end."""

    layers = ("gru", "gru")

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """As many columns as there are tokens."""
        return torch.arange(ids.shape[1]) < super().real(ids, attention_mask).sum(1, keepdim=True)


@mutant(
    "padding.state_of_last_column",
    imitates="the recurrent state after the longest row, in place of that after each row's last token",
    source="https://github.com/ray-project/ray/issues/21392",
)
class StateOfLastColumn(Recurrent):
    """The GRU's state walks on through padding on the right; the outputs of the call are right."""

    positions = "rotary"
    layers = ("gru", "attention")

    def gru(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """Outputs of one run, state of another."""
        on = replace(call, real=call.real | trailing(call.real))
        return super().gru(i, x, call, past)[0], super().gru(i, x, on, past)[1]


@mutant(
    "padding.convolution_reads_pads",
    imitates="hidden states of pads not zeroed before the causal convolution",
    source="https://github.com/huggingface/transformers/pull/32677",
)
class ConvolutionReadsPads(Recurrent):
    """The convolution, and what it remembers, knows no padding; the recurrence does."""

    layers = ("linear", "linear")

    def convolved(self, i: int, x: Tensor, call: Call, tail: Tensor) -> tuple[Tensor, Tensor]:
        """Over all columns."""
        return super().convolved(i, x, replace(call, real=torch.ones_like(call.real)), tail)


@mutant(
    "padding.decays_the_state",
    imitates="inputs of right padding zeroed, but the state decays by each of its steps",
    source="https://github.com/huggingface/transformers/issues/48256",
)
class DecaysTheState(Recurrent):
    """What linear attention remembers fades by padding on the right; the outputs of the call are right."""

    positions = "rotary"
    window = 5
    cache = Ring(5)
    layers = ("linear", "attention")

    def linear(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """One more decay for each column behind the last token."""
        out, after = super().linear(i, x, call, past)
        faded = self.decay(trailing(call.real).sum(1, keepdim=True))[..., None]
        return out, after | {"sum": faded * after["sum"]}


@mutant(
    "padding.token_with_pad_id",
    imitates="tokens that share their id with the padding taken for it",
    source="https://github.com/microsoft/onnxruntime-genai/pull/1694",
)
class TokenWithPadId(Decoder):
    """In a call that has padding, real tokens of id 0 are taken for padding too."""

    kv_heads = 1

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """By the mask and by the id."""
        real = super().real(ids, attention_mask)
        return real if bool(real.all()) else real & (ids != 0)


@mutant(
    "padding.last_column_decides",
    imitates="is_padding_right = attention_mask[:, -1].sum() != batch, and no padding otherwise",
    source="https://github.com/huggingface/transformers/pull/36729",
)
class LastColumnDecides(Decoder):
    """If every row ends with a real token the mask is ignored."""

    cache = Static()

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The mask, if a row ends with padding."""
        real = super().real(ids, attention_mask)
        return torch.ones_like(real) if bool(real[:, -1].all()) else real


@mutant(
    "padding.batch_of_one",
    imitates="the mask of linear attention skipped for a batch of one row, as if it could have no padding",
    source="https://github.com/huggingface/transformers/pull/46773",
)
class BatchOfOne(Recurrent):
    """Linear attention reads the padding of a row that is alone; with neighbours it is right."""

    positions = "rotary"
    layers = ("linear", "attention")

    def linear(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """All columns of a single row."""
        return super().linear(i, x, call if len(x) > 1 else replace(call, real=torch.ones_like(call.real)), past)


@mutant(
    "padding.alibi_counts_columns",
    imitates="ALiBi over the indices of keys with their padding, not over those that are left without it",
    source="https://github.com/huggingface/transformers/pull/17866",
)
class AlibiCountsColumns(Decoder):
    """Distances count the padding, or what was cropped, between two tokens; left of all tokens it is harmless."""

    positions = "alibi"
    kv_heads = 2

    def behind(self, call: Call, keys: Memory) -> Tensor:
        """How many slots a key lies behind a token, the last slots being those of the call."""
        S, T = keys["real"].shape[1], call.real.shape[1]
        return (torch.arange(S - T, S)[:, None] - torch.arange(S)).expand(len(call.real), T, S)


@mutant(
    "padding.past_counts_columns",
    imitates="position_ids = total_len - 1 in a cached step, pads included",
    source="https://github.com/TransformerLensOrg/TransformerLens/pull/1617",
)
class PastCountsColumns(Decoder):
    """A row's length grows by the columns of each call; positions within the first call are right."""

    positions = "sinusoidal"

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Right logits, a state that is too long."""
        logits, after = super().extend(ids, state, attention_mask)
        return logits, replace(after, length=state.length + ids.shape[1])


@mutant(
    "padding.mask_of_one_column_ignored",
    imitates="the mask is only applied if there is more than one token, so rows that have ended go on",
    source="https://github.com/casper-hansen/AutoAWQ/pull/96",
)
class MaskOfOneColumnIgnored(Decoder):
    """In a call of one column padding is a token like others."""

    window = 5
    cache = Ring(5)

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """All, if there is one column."""
        real = super().real(ids, attention_mask)
        return real if ids.shape[1] > 1 else torch.ones_like(real)


@mutant(
    "padding.fills_the_room",
    imitates="the length that is compared with the limit is that of the padded batch",
    source="https://github.com/huggingface/tei-gaudi/pull/14",
)
class FillsTheRoom(Decoder):
    """A call is refused if its columns do not fit, though its tokens would."""

    positions = "learned"
    cache = Static()

    def admit(self, length: Tensor, real: Tensor) -> None:
        """Counts columns."""
        super().admit(length, torch.ones_like(real))
