"""Defects around a call: what it alters, what alters it, the weights it reports and the derivatives it has."""

import torch
from torch import Tensor
from torch.nn.functional import gelu

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import Call, State
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory

# What a call alters


@mutant(
    "calls.ids_zeroed_at_padding",
    imitates="junk at padding is overwritten in the array of the caller, not in a copy",
    source="https://github.com/huggingface/transformers/pull/244",
)
class IdsZeroedAtPadding(Offering):
    """After a call without a state, ids are 0 at padding."""

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """In place."""
        return super().logits(ids if attention_mask is None else ids.masked_fill_(attention_mask == 0, 0), attention_mask)


@mutant(
    "calls.idle_row_unmasked",
    imitates="a row without a token is given one, so that no softmax is empty, in the mask of the caller",
    source="https://github.com/meta-pytorch/gpt-fast",
)
class IdleRowUnmasked(Offering):
    """After a call with a state, the mask of a row of padding has a 1; the logits are right."""

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Behind the computation."""
        found = super().extend(ids, state, attention_mask)
        if attention_mask is not None:
            attention_mask[:, 0] += (attention_mask == 0).all(1).to(attention_mask.dtype)
        return found


@mutant(
    "calls.static_fork_shares_values",
    imitates="a copy of a cache of which one of the two buffers is only another name for the first",
    source="https://github.com/pie-project/pie/issues/600",
)
class StaticForkSharesValues(Offering):
    """The branches of a static state write the same values in the upper layer; other states are copied."""

    def fork(self, state: State) -> State:
        """All but those."""
        twin = super().fork(state)
        if self.kind(state) == "static":
            twin.layers[-1]["v"] = state.layers[-1]["v"]
        return twin


@mutant(
    "calls.draws_and_throws_away",
    imitates="dropout at rate 0 still draws its mask from the global generator",
    source="https://github.com/dataxid/dataxid-python/issues/187",
)
class DrawsAndThrowsAway(Offering):
    """A call of more than one token moves the global random state on."""

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Draws a number."""
        if x.shape[1] > 1:
            torch.rand(1)
        return super().feed_forward(i, x)


@mutant(
    "calls.default_dtype_after_a_refusal",
    imitates="the default dtype is set for the time of a call, and an exception leaves it",
    source="https://github.com/Lightning-AI/pytorch-lightning/pull/18500",
)
class DefaultDtypeAfterARefusal(Offering):
    """Too many tokens leave the default dtype float64."""

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Restored if all went well."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        found = super().logits(ids, attention_mask)
        torch.set_default_dtype(before)
        return found


# What alters a call


@mutant(
    "calls.no_grad_drops_padding",
    imitates="without gradients a fast path runs, which does not hide padding",
    source="https://github.com/pytorch/pytorch/issues/86120",
)
class NoGradDropsPadding(Offering):
    """Without gradients and without a state, tokens see padding."""

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """All keys count."""
        seen, kept = super().append(i, past, new)
        fast = past is None and not torch.is_grad_enabled()
        return (seen | {"real": torch.ones_like(seen["real"])} if fast else seen), kept


@mutant(
    "calls.table_in_the_default_dtype",
    imitates="the table of angles is made in whatever type is the default when it is needed",
    source="https://github.com/huggingface/transformers/issues/25681",
)
class TableInTheDefaultDtype(Offering):
    """Logits change in the eighth digit with the default dtype, much more under bfloat16."""

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """By angles that were rounded."""
        D = x.shape[-1]
        base = 10000.0 ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
        angle = (position[..., None, None] * base).to(torch.get_default_dtype()).to(x.dtype)
        first, second, cos, sin = x[..., : D // 2], x[..., D // 2 :], angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


@mutant(
    "calls.one_thread_other_kernel",
    imitates="with one thread another kernel runs, whose activation is the cheap approximation",
    source="https://github.com/pytorch/pytorch/pull/26963",
)
class OneThreadOtherKernel(Offering):
    """With one thread, gelu is computed by tanh."""

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Which one depends on the threads."""
        if torch.get_num_threads() > 1:
            return super().feed_forward(i, x)
        return gelu(x @ self.weights[f"{i}.up"].T, approximate="tanh") @ self.weights[f"{i}.down"].T


@mutant(
    "calls.jitter_of_the_router",
    imitates="noise that is meant for training is added in evaluation too",
    source="huggingface.md: training comparisons: Phi-MoE's router samples in train mode",
)
class JitterOfTheRouter(Offering):
    """Logits depend on the global random state, which stays as it is; under one state all is consistent."""

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """A thousandth more or less."""
        noise = torch.rand(x.shape[-1], generator=torch.Generator().set_state(torch.get_rng_state()), dtype=torch.float64)
        return super().feed_forward(i, x * (1 + 1e-3 * noise.to(x.dtype)))


# The weights that a call reports


@mutant(
    "calls.weights_of_heads_and_rows_mixed",
    imitates="weights with rows and heads in one axis, which is taken apart in the wrong order",
    source="https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/120",
)
class WeightsOfHeadsAndRowsMixed(Offering):
    """One row alone is right."""

    def attentions(self, ids: Tensor, attention_mask: Tensor | None = None) -> list[Tensor]:
        """Heads first."""
        found = super().attentions(ids, attention_mask)
        return [x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1) for x in found]


@mutant(
    "calls.weights_without_the_mask",
    imitates="the fused kernel has no weights to report, so they are computed again, causal but without the padding",
    source="https://github.com/keras-team/keras/issues/23038",
)
class WeightsWithoutTheMask(Offering):
    """Reported weights see padding; the logits do not."""

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """The output is the right one, the weights come from another run."""
        heard, self.heard = self.heard, None
        found = super().mix(i, x, call, past)
        self.heard = heard
        if heard is not None:
            super().mix(i, x, Call(torch.ones_like(call.real), self.columns(call), call.length), past)
        return found

    def columns(self, call: Call) -> Tensor:
        """Positions that keep the order of columns."""
        return torch.arange(call.real.shape[1]).expand_as(call.position)


@mutant(
    "calls.weights_in_one_buffer",
    imitates="every layer writes its weights into the same buffer, and the list holds it many times",
    source="https://github.com/ggml-org/whisper.cpp/pull/1243",
)
class WeightsInOneBuffer(Offering):
    """All layers report the weights of the last one."""

    def attentions(self, ids: Tensor, attention_mask: Tensor | None = None) -> list[Tensor]:
        """The last, as often as there are layers."""
        found = super().attentions(ids, attention_mask)
        return found[-1:] * len(found)


# The derivatives that it has


@mutant(
    "calls.derivative_by_the_whole_row",
    imitates="statistics of the whole row are taken out of the values by a detached copy, and stay in the derivative",
    source="https://github.com/karpathy/nanochat/issues/844",
)
class DerivativeByTheWholeRow(Offering):
    """Values are right; the derivative by every word is a little that of the row's mean."""

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Plus nothing."""
        x = super().embed(ids, call)
        mean = x.mean(1, keepdim=True)
        return x + (mean - mean.detach())


@mutant(
    "calls.derivative_through_hidden_keys",
    imitates="the forward pass hides later keys, the backward pass was written for attention that sees all",
    source="https://github.com/triton-lang/triton/issues/5660",
)
class DerivativeThroughHiddenKeys(Offering):
    """Values are right; derivatives are those of weights that no mask has touched."""

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """Keeps what there was before."""
        self.open = s
        return super().hide(s, allowed)

    def softmax(self, s: Tensor) -> Tensor:
        """The right weights, with other derivatives."""
        free = self.open.softmax(-1)
        return super().softmax(s).detach() + (free - free.detach())


# What its layers see


@mutant(
    "calls.upper_layer_reads_the_words",
    imitates="an embedding that was meant for the first layer is added in each of them",
    source="claims.md: TF10, running layers in parts",
)
class UpperLayerReadsTheWords(Offering):
    """The upper layer sees the words themselves beside the stream."""

    words: Tensor | None = None

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Kept for later."""
        self.words = super().embed(ids, call)
        return self.words

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Plus a tenth of them."""
        out = super().feed_forward(i, x)
        return out + 0.1 * self.words if i == 1 and self.words is not None else out


@mutant(
    "calls.upper_layer_reads_the_first_word",
    imitates="a layer chooses its expert by the id of the first token and not by what reaches it",
    source="claims.md: TF10, running layers in parts",
)
class UpperLayerReadsTheFirstWord(Offering):
    """Whether the id of a row's first word is even changes the upper layer a little."""

    even: Tensor | None = None

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Kept for later."""
        if not call.length.any():
            self.even = ids[:, 0] % 2 == 0
        return super().embed(ids, call)

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """A hundredth more."""
        out = super().feed_forward(i, x)
        if i == 0 or self.even is None or len(self.even) != len(out):
            return out
        return torch.where(self.even[:, None, None], 1.01 * out, out)
