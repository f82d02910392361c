"""Defects of who sees whom: causal order, windows, masks put on too late or too weakly, statistics over the whole call."""

import torch
from torch import Tensor

from attnspec.properties.model_mutants.plain import Call, Decoder
from attnspec.properties.model_mutants.recurrent import Recurrent
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory, Ring, Static


def everything(call: Call, keys: Memory) -> Tensor:
    """[B,T,S]: all real keys, earlier or later."""
    return keys["real"][:, None].expand(-1, call.real.shape[1], -1)


@mutant(
    "mask.top_left_with_a_past",
    imitates="tril(0) on [T,S]: the causal mask of a chunk starts at the first cached key",
    source="https://github.com/hyprstream/hyprstream/pull/1521",
)
class TopLeftWithAPast(Decoder):
    """Token t of a chunk with a past sees the first t + 1 keys of the cache only; single tokens are right."""

    kv_heads = 2

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Aligned with the first key, if there are more keys than tokens."""
        allowed, T, S = super().visible(call, keys), call.real.shape[1], keys["real"].shape[1]
        return allowed & (torch.arange(S) <= torch.arange(T)[:, None]) if S > T > 1 else allowed


@mutant(
    "mask.cached_call_not_causal",
    imitates="causal mask only if cache is None: a prompt read into a cache sees its own future",
    source="https://github.com/Mikyx-1/TinyLLM/pull/18",
)
class CachedCallNotCausal(Decoder):
    """Tokens of a call with a cache see each other both ways; without a cache, and one by one, they are right."""

    cache = Static()

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Everything, if the keys come from the cache."""
        return everything(call, keys) if keys["real"].shape[1] > call.real.shape[1] else super().visible(call, keys)


@mutant(
    "mask.one_ahead_after_sixteen",
    imitates="an earlier row of a chunk sees later ones once the cached history fills the kernel's chunk of keys",
    source="https://github.com/tenstorrent/tt-metal/issues/48899",
)
class OneAheadAfterSixteen(Decoder):
    """With 16 tokens or more in the past, each token of a chunk sees the next one as well."""

    positions = "alibi"
    window = 6
    cache = Ring(6)
    kv_heads = 2

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """The next token too, in rows with a long past."""
        ahead = keys["real"][:, None] & (self.behind(call, keys) == -1) & (call.length >= 16)[:, None, None]
        return super().visible(call, keys) | ahead


@mutant(
    "mask.only_last_block_of_keys",
    imitates="causal masking in the last iteration over blocks of keys, and not in the earlier ones",
    source="https://github.com/ROCm/rocMLIR/pull/2165",
)
class OnlyLastBlockOfKeys(Decoder):
    """From 8 tokens in a call on: of each block of 8, the first 4 tokens see each other both ways."""

    positions = "learned"

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Up to the end of the first half of a token's own block of 8."""
        reach = call.position.maximum(call.position // 8 * 8 + 3)
        whole = keys["real"][:, None] & (keys["position"][:, None] <= reach[:, :, None])
        return whole if call.real.shape[1] >= 8 else super().visible(call, keys)


@mutant(
    "mask.mask_of_ones_drops_causal",
    imitates="is_causal only where no mask is given, and a mask without padding dropped as superfluous",
    source="https://github.com/huggingface/transformers/pull/41966",
)
class MaskOfOnesDropsCausal(Decoder):
    """A mask of ones lets the tokens of a call see each other both ways; no mask, or one with padding, is right."""

    positions = "learned"
    kv_heads = 1
    ones = False

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Notes whether a mask of ones was given."""
        real = super().real(ids, attention_mask)
        self.ones = attention_mask is not None and bool(real.all())
        return real

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """Everything, under a mask of ones."""
        return everything(call, keys) if self.ones else super().visible(call, keys)


@mutant(
    "mask.window_wider_in_chunks",
    imitates="triu(diagonal=-window) for the prompt, the last `window` keys for a step",
    source="https://github.com/mistralai/mistral-inference/issues/60",
)
class WindowWiderInChunks(Decoder):
    """Tokens that come together see one more than a token that comes alone."""

    window = 5

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """6 in a call of two tokens or more."""
        behind = self.behind(call, keys)
        return keys["real"][:, None] & (behind >= 0) & (behind < (6 if call.real.shape[1] > 1 else 5))


@mutant(
    "mask.window_counts_columns",
    imitates="a window over the indices of keys, which rows with padding reach later",
    source="https://github.com/huggingface/transformers/pull/40324",
)
class WindowCountsColumns(Decoder):
    """Padding, or what was cropped, between two tokens takes up room in the window."""

    positions = "learned"
    window = 6

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """The last 6 slots, those of the call being the last ones."""
        S, T = keys["real"].shape[1], call.real.shape[1]
        return super().visible(call, keys) & (torch.arange(S - T, S)[:, None] - torch.arange(S) < 6)


@mutant(
    "mask.after_the_softmax",
    imitates="the mask multiplies the weights, whose sum has counted the hidden keys",
    source="https://github.com/lucidrains/memory-compressed-attention/issues/2",
)
class AfterTheSoftmax(Decoder):
    """Hidden keys, later tokens and padding among them, take their share of the weights."""

    positions = "alibi"

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """Logarithms of the weights, hidden ones left out."""
        return super().hide(s - s.logsumexp(-1, keepdim=True), allowed)

    def softmax(self, s: Tensor) -> Tensor:
        """Weights that do not sum to 1."""
        return s.exp()


@mutant(
    "mask.fill_too_small",
    imitates="-1e5 in place of minus infinity, where real scores can be lower still",
    source="https://github.com/TransformerLensOrg/TransformerLens/issues/318",
)
class FillTooSmall(Decoder):
    """A hidden key has the score -12: next to nothing, unless the scores that are seen are low."""

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """A finite score."""
        return s.masked_fill(~allowed, -12.0)


@mutant(
    "mask.blocks_see_themselves",
    imitates="the chunk form of linear attention masks between its chunks only, so the whole differs from chunk by chunk",
    source="https://github.com/fla-org/flash-linear-attention/issues/494",
)
class BlocksSeeThemselves(Recurrent):
    """Linear attention sees the later tokens of a block of 4, if they come in the same call."""

    layers = ("linear", "linear")

    def behind(self, call: Call, keys: Memory) -> Tensor:
        """No token of the same block is ahead."""
        behind, own, other = super().behind(call, keys), call.position // 4, keys["position"] // 4
        return torch.where(own[:, :, None] == other[:, None], behind.clamp(min=0), behind)


@mutant(
    "mask.norm_over_time",
    imitates="layer normalisation over features and the whole sequence",
    source="https://github.com/anicolson/DeepXi/issues/18",
)
class NormOverTime(Recurrent):
    """The last norm divides by the root of the mean square of all tokens of the call; single tokens are right."""

    layers = ("gru", "gru")

    def norm(self, x: Tensor, name: str) -> Tensor:
        """One root for a row of the call."""
        if name != "norm":
            return super().norm(x, name)
        return x * (x.square().mean((1, 2), keepdim=True) + 1e-6).rsqrt() * self.weights[name]


@mutant(
    "mask.scale_of_the_call",
    imitates="dynamic quantisation with one scale for all tokens where one for each was meant",
    source="https://github.com/vllm-project/vllm/pull/20937",
)
class ScaleOfTheCall(Decoder):
    """Before the last feed-forward layer a call of two tokens or more is rounded to 8 bits by its largest number."""

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Of rounded activations."""
        if i == 0 or x.shape[1] == 1:
            return super().feed_forward(i, x)
        step = x.abs().amax((1, 2), keepdim=True) / 127
        return super().feed_forward(i, (x / step).round() * step)


@mutant(
    "mask.experts_choose_tokens",
    imitates="expert choice: who passes through an expert depends on tokens still to come",
    source="https://github.com/piotrpiekos/MoSA/issues/3",
)
class ExpertsChooseTokens(Recurrent):
    """The last feed-forward layer takes the half of a call's tokens that suits it best; single tokens always."""

    positions = "rotary"
    layers = ("gru", "attention")

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """Nothing for those that are not chosen."""
        fit = x @ self.weights[f"{i}.up"][0]
        chosen = fit >= fit.median(1, keepdim=True).values
        return super().feed_forward(i, x) * (chosen | torch.tensor(i == 0))[..., None]
