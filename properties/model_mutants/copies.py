"""Defects of models that are made from another: reloaded, with renamed words, in 16 bits."""

import torch
from safetensors.torch import load, save
from torch import Tensor

from attnspec.properties.model_mutants.offering import Offering
from attnspec.properties.model_mutants.plain import Call, Layer
from attnspec.properties.model_mutants.registry import mutant
from attnspec.properties.model_mutants.slots import Memory

# Reloaded


@mutant(
    "copies.reloaded_without_a_norm",
    imitates="a weight under another name in the file than in the model is reported as missing and drawn anew",
    source="https://github.com/huggingface/transformers/pull/44358",
)
class ReloadedWithoutANorm(Offering):
    """The last norm is all ones again."""

    def reloaded(self) -> Offering:
        """As after construction."""
        other = super().reloaded()
        return other.with_weights(other.weights | {"norm": torch.ones_like(other.weights["norm"])})


@mutant(
    "copies.reloaded_with_tied_words",
    imitates="the configuration says that output and embedding are one weight, and only one of them is written",
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/2511",
)
class ReloadedWithTiedWords(Offering):
    """The output is the embedding, which it was not."""

    def reloaded(self) -> Offering:
        """Tied."""
        other = super().reloaded()
        return other.with_weights(other.weights | {"output": other.weights["embedding"]})


@mutant(
    "copies.reloaded_squares_transposed",
    imitates="files hold matrices the other way round, and those that are square fit either way",
    source="huggingface.md: B10, save / from_pretrained",
)
class ReloadedSquaresTransposed(Offering):
    """The matrices behind attention are turned over in the last layer."""

    def reloaded(self) -> Offering:
        """Transposed once too often."""
        other, name = super().reloaded(), f"{len(self.layers) - 1}.o"
        return other.with_weights(other.weights | {name: other.weights[name].T.contiguous()})


@mutant(
    "copies.reloaded_without_the_window",
    imitates="an option that the constructor takes and the configuration file does not name",
    source="huggingface.md: small windows: decoding that crosses the window",
)
class ReloadedWithoutTheWindow(Offering):
    """The reloaded model sees all that is past; up to 5 tokens it is right."""

    window: int | None = 5

    def reloaded(self) -> Offering:
        """With the default."""
        other = super().reloaded()
        other.window = None
        return other


@mutant(
    "copies.reloaded_without_angles",
    imitates="a table that is not in the file is allocated and never filled",
    source="https://github.com/huggingface/transformers/issues/48892",
)
class ReloadedWithoutAngles(Offering):
    """The reloaded model does not know the order of words, but for what the mask says; the first logits are right."""

    filled = True

    def reloaded(self) -> Offering:
        """The table is zero."""
        other = super().reloaded()
        vars(other)["filled"] = False
        return other

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """By no angle if the table is empty."""
        return super().rotate(x, position if self.filled else torch.zeros_like(position))


@mutant(
    "copies.reloaded_from_float32",
    imitates="weights are rounded to the usual type of a file on their way to it",
    source="huggingface.md: keep float32 for bitwise and round-trip claims",
)
class ReloadedFromFloat32(Offering):
    """Logits differ in the eighth digit."""

    def reloaded(self) -> Offering:
        """float64 again, with the digits of float32."""
        file = save({name: weight.float() for name, weight in self.weights.items()})
        return self.with_weights({name: weight.double() for name, weight in load(file).items()})


@mutant(
    "copies.layers_sorted_by_name",
    imitates="the parts of a file are sorted as text, where 10 comes before 2",
    source="https://github.com/iantbutler01/ditty/pull/2",
)
class LayersSortedByName(Offering):
    """Layers behind the second one change places; a model of up to ten layers would be right."""

    layers: tuple[Layer, ...] = ("attention",) * 11

    def reloaded(self) -> Offering:
        """The i-th name in the order of text goes into layer i."""
        other, names = super().reloaded(), sorted(str(i) for i in range(len(self.layers)))
        weights = dict(other.weights)
        for i, name in enumerate(names):
            own = {key: weight for key, weight in other.weights.items() if key.startswith(f"{name}.")}
            weights |= {f"{i}.{key.partition('.')[2]}": weight for key, weight in own.items()}
        return other.with_weights(weights)


# Renamed


@mutant(
    "copies.renamed_the_other_way",
    imitates="a permutation is applied where its inverse was meant, and pairs that change places do not show it",
    source="https://github.com/mead-ml/mead-baseline/pull/677",
)
class RenamedTheOtherWay(Offering):
    """Word permutation[i] is not what i was, unless the permutation is its own inverse."""

    def renamed(self, permutation: Tensor) -> Offering:
        """By the inverse."""
        return super().renamed(permutation.argsort())


@mutant(
    "copies.renamed_without_the_output",
    imitates="the embedding is resized or permuted, the output that is not tied to it is not",
    source="https://github.com/huggingface/accelerate/pull/1204",
)
class RenamedWithoutTheOutput(Offering):
    """Words are read by their new numbers and said by their old ones."""

    def renamed(self, permutation: Tensor) -> Offering:
        """Embedding only."""
        other = super().renamed(permutation)
        return other.with_weights(other.weights | {"output": self.weights["output"]})


@mutant(
    "copies.word_zero_is_nothing",
    imitates="the id of padding means no word to the model itself, wherever it stands and whatever the mask says",
    source="huggingface.md: RoBERTa-likes derive positions from pad ids in input_ids",
)
class WordZeroIsNothing(Offering):
    """Number 0 has the embedding zero, whichever word it is the number of."""

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Zero at 0."""
        return super().embed(ids, call) * (ids != 0)[..., None]


# In 16 bits


@mutant(
    "copies.narrowed_below_float16",
    imitates="a mask is filled with -1e9, which float16 can only write as minus infinity",
    source="https://github.com/ahrefs/ocannl/issues/548",
)
class NarrowedBelowFloat16(Offering):
    """In float16 a row of nothing but padding is NaN; bfloat16 and float64 are right, and so is padding beside words."""

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """Added."""
        low = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, -1e9)
        return s + low.to(s.dtype)

    def softmax(self, s: Tensor) -> Tensor:
        """Without a thought of empty rows, as there seem to be none."""
        weights = s.softmax(-1)
        if self.heard is not None:
            self.heard.append(weights)
        return weights


@mutant(
    "copies.narrowed_norm_divides_by_zero",
    imitates="the constant that keeps a norm from dividing by zero is smaller than the smallest float16",
    source="huggingface.md: B11, fp16",
)
class NarrowedNormDividesByZero(Offering):
    """Padding has the embedding zero; in float16 its norm is NaN, and all that comes after it."""

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """Zero at padding."""
        return super().embed(ids, call) * call.real[..., None]

    def norm(self, x: Tensor, name: str) -> Tensor:
        """With 1e-8."""
        return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt() * self.weights[name]


@mutant(
    "copies.narrowed_empty_rows_are_nan",
    imitates="the fused kernel that 16 bits get has no care for rows without a key, and their NaN spreads from there",
    source="https://github.com/huggingface/transformers/issues/38690",
)
class NarrowedEmptyRowsAreNan(Offering):
    """In 16 bits padding before the first word is NaN, and all that comes after it; on the right all is well."""

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """At once a token sees no later column, so that padding in front sees nothing at all."""
        allowed = super().visible(call, keys)
        return allowed.tril() if allowed.shape[1] == allowed.shape[2] else allowed

    def softmax(self, s: Tensor) -> Tensor:
        """The plain one if narrow."""
        weights = super().softmax(s)
        return weights if s.dtype == torch.float64 else s.softmax(-1)


@mutant(
    "copies.narrowed_in_place",
    imitates="half() changes the model that it is called on and returns that",
    source="huggingface.md: a second phase in ordinary float32 / bf16 / fp16",
)
class NarrowedInPlace(Offering):
    """The model itself is narrow from then on."""

    def narrowed(self, dtype: str) -> Offering:
        """Itself."""
        self.weights = super().narrowed(dtype).weights
        return self
