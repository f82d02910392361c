"""Claims on the scores: what changes no difference of two of them changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.bounds_classes import WIDE
from attnspec.properties.case import Case, Inputs, ValueKind
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest, without_mask

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1")
# Small integers: sums of them are exact in every dtype.
INTEGERS: Mapping[str, tuple[ValueKind, ...]] = {"q": ("integers", "one-hot"), "k": ("integers", "one-hot")}


def keys_centred(honest: Honest, x: Inputs) -> FloatArray:
    """Keys below zero count as zero."""
    return honest(x.but(k=np.maximum(x.k, 0.0)))


def absolute_channels(honest: Honest, x: Inputs) -> FloatArray:
    """Queries lose their signs."""
    return honest(x.but(q=np.abs(x.q)))


def first_channel_heavier(honest: Honest, x: Inputs) -> FloatArray:
    """The first channel counts twice."""
    twice = np.where(np.arange(x.q.shape[3]) == 0, 2.0, 1.0)
    return honest(x.but(q=x.q * twice))


def first_key_halved(honest: Honest, x: Inputs) -> FloatArray:
    """The first key is halved."""
    return honest(x.but(k=np.where(np.arange(x.k.shape[2])[:, None] == 0, x.k / 2, x.k)))


@claim(
    "softmax.key-offset",
    level="must",
    handle="SM9",
    idea="I17",
    source=VASWANI,
    given=Cases(values=INTEGERS, gains=(1.0, 2.0), softcap="never"),
    within="bound",
    mutants=("softmax.clamped", "softmax.no_max"),
    proof=("softmax.key-bias-cancels", "softmax.shift-invariance"),
    twin=keys_centred,
)
def offset_of_keys(subject: Attention, case: Case) -> None:
    """One vector added to every key changes nothing: a bias of the key projection has no effect.

    It adds q.c to all scores of a row, another number for each query. Keys and vector are small integers, so that their sum
    is exact.
    """
    x = case.build()
    size = 32.0 if x.dtype in WIDE else 4.0  # what 16 bits may lose grows with the scores
    c = size * np.trunc(numbers.normal(case.seed, "offset", (x.q.shape[3],)))
    moved = x.but(k=x.k + np.where(c == 0, size, c))
    before, after = expected(subject.profile, x), expected(subject.profile, moved)
    within(
        moved.through(subject),
        x.through(subject),
        before.error + after.error,
        "output after adding one vector to every key",
        why=f"sum of two {before.why}",
    )


@claim(
    "softmax.sign-flip",
    level="must",
    handle="SM10",
    idea="I17",
    source=VASWANI,
    given=Cases(values={"q": ("fine", "normal", "heavy"), "k": ("fine", "normal", "heavy")}, gains=(1.0, 2.0)),
    within="exact",
    mutants=("precision.keys_in_eight_bits",),
    proof=("heads.only-the-product-counts",),
    dtypes="all",
    twin=absolute_channels,
)
def sign_of_a_channel(subject: Attention, case: Case) -> None:
    """Turning the sign of a channel in queries and keys alike leaves the output bit-identical.

    Each product q_c k_c keeps its bits, so that every sum does.
    """
    x = case.build()
    width = x.q.shape[3]
    sign = np.where(numbers.below(2, case.seed, "signs", (width,)) == 0, 1.0, -1.0)
    sign[case.seed % width] = -1.0
    same_bits(
        x.but(q=x.q * sign, k=x.k * sign).through(subject),
        x.through(subject),
        "output after turning signs of channels in queries and keys",
        live=bool(x.q.any() and x.k.any()),
        noise=noise(subject, x),
    )


@claim(
    "softmax.rotation",
    level="must",
    handle="SM10",
    idea="I17",
    source=VASWANI,
    given=Cases(values=INTEGERS, gains=(1.0, 2.0), at_least={"D": 2}),
    within="bound",
    mutants=("precision.keys_in_eight_bits",),
    proof=("heads.only-the-product-counts",),
    twin=first_channel_heavier,
)
def common_rotation(subject: Attention, case: Case) -> None:
    """Turning queries and keys by one angle changes nothing: only their products count.

    Pairs (a, b) become (a + b, b - a) in the keys and half of it in the queries: a turn by 45 degrees whose stretch cancels,
    exact for small integers. An odd last channel stays.
    """
    x = case.build()

    def turned(a: FloatArray) -> FloatArray:
        even = a.shape[-1] // 2 * 2
        first, second = a[..., 0:even:2], a[..., 1:even:2]
        out = a.copy()
        out[..., 0:even:2], out[..., 1:even:2] = first + second, second - first
        return out

    halves = np.where(np.arange(x.q.shape[3]) < x.q.shape[3] // 2 * 2, 0.5, 1.0)
    moved = x.but(q=halves * turned(x.q), k=turned(x.k))
    before, after = expected(subject.profile, x), expected(subject.profile, moved)
    within(
        moved.through(subject),
        x.through(subject),
        before.error + after.error,
        "output for turned queries and keys",
        why=f"sum of two {before.why}",
    )


@claim(
    "softmax.duplicated-keys",
    level="must",
    handle="SM12",
    idea="I18",
    source=VASWANI,
    needs=("rectangular",),
    given=Cases(causal="never", window="never", gains=(1.0, 2.0)),
    within="bound",
    mutants=("softmax.epsilon", "softmax.plus_one", "layout.split_in_base_two"),
    proof=("softmax.weights-add-to-one",),
    twin=first_key_halved,
)
def all_keys_twice(subject: Attention, case: Case) -> None:
    """Every key with its value and its mask column given twice changes nothing: each half gets half of the weight."""
    x = case.build()
    everything = np.tile(np.arange(x.k.shape[2]), 2)
    twice = taken(x, everything)
    before, after = expected(subject.profile, x), expected(subject.profile, twice)
    within(
        twice.through(subject),
        x.through(subject),
        before.error + after.error,
        "output for all keys given twice",
        why=f"sum of two {before.why}",
    )


@claim(
    "softmax.duplicate-is-bias",
    level="must",
    handle="SM12",
    idea="I18",
    source=VASWANI,
    needs=("bias", "rectangular"),
    given=Cases(causal="never", window="never", mask="always", kinds=("bias",), gains=(1.0, 2.0), empty="never"),
    within="bound",
    about="bias",
    mutants=("scale.bias_scaled", "scale.cap_after_bias", "softmax.plus_one"),
    proof=("softmax.weights-add-to-one",),
    twin=without_mask,
)
def copies_are_a_bias(subject: Attention, case: Case) -> None:
    """A key given m times weighs as much as one with ln m added to its scores.

    ln m is rounded to the dtype, and so is its sum with the bias: the difference that this makes is worked out by the
    reference and taken off.
    """
    x = case.build()
    assert x.bias is not None
    keys, times = x.k.shape[2], 2 + case.seed % 3
    chosen = case.seed % keys
    copied = taken(x, np.r_[np.arange(keys), np.full(times - 1, chosen)])
    bias = x.bias.copy()
    bias[..., chosen] = numbers.rounded(bias[..., chosen] + log(times), x.dtype)
    biased = x.but(bias=bias)
    first, second = expected(subject.profile, copied), expected(subject.profile, biased)
    within(
        copied.through(subject) - (first.out - second.out),
        biased.through(subject),
        first.error + second.error,
        f"output for key {chosen} given {times} times against a bias of ln {times}",
        why=f"sum of two {first.why}",
    )


def taken(x: Inputs, keys: np.ndarray) -> Inputs:
    """The inputs with the keys, values and mask columns of these indices."""
    columns = {name: a[..., keys] for name in ("mask", "bias") if (a := getattr(x, name)) is not None}
    return x.but(k=x.k[:, :, keys], v=x.v[:, :, keys], **columns)
