"""Claims on what may come back beside the output: the weights, and the log-sum-exp of each row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.scores import taken
from attnspec.properties.compare import between, same_bits, within
from attnspec.properties.oracle import expected, expected_lse, expected_weights, rounding, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray, Result
from attnspec.properties.twins import Honest

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1")
FLASH = Source("arXiv:2307.08691", "3.1")


def doubled_weights(honest: Honest, x: Inputs) -> Result:
    """The weights beside the output sum to two."""
    return Result(honest(x), x.dtype, 2 * honest.weights(x))


def wrong_with_weights(honest: Honest, x: Inputs) -> FloatArray:
    """The output is halved where the weights are asked for."""
    return honest(x) / 2 if "weights" in honest.need else honest(x)


def off_by_one(honest: Honest, x: Inputs) -> Result:
    """The log-sum-exp lacks one."""
    return Result(honest(x), x.dtype, lse=honest.lse(x) - 1)


def zero_where_empty(honest: Honest, x: Inputs) -> Result:
    """The log-sum-exp of an empty row is zero."""
    lse = honest.lse(x)
    return Result(honest(x), x.dtype, lse=np.where(np.isneginf(lse), 0.0, lse))


def base_two(honest: Honest, x: Inputs) -> Result:
    """The log-sum-exp is a logarithm to the base 2."""
    return Result(honest(x), x.dtype, lse=honest.lse(x) / np.log(2.0))


@claim(
    "softmax.returned-weights",
    level="must",
    handle="SM2",
    idea="I18",
    source=VASWANI,
    needs=("weights",),
    given=Cases(empty="never", sinks="drawn", grid=True),
    within="exact, bound",
    mutants=(
        "output.weights_averaged",
        "output.weights_not_divided",
        "output.weights_tail_unwritten",
        "output.weights_transposed",
        "output.weights_unmasked",
        "sinks.not_in_the_weights",
    ),
    proof=("softmax.weights-add-to-one", "mask.minus-infinity-hides"),
    dtypes="all",
    twin=doubled_weights,
)
def returned_weights(subject: Attention, case: Case) -> None:
    """The weights beside the output lie in [0, 1], sum to one, are zero where hidden, and give the output.

    What a sink takes is missing from the sum.
    """
    x = case.build()
    result, seen = x.result(subject, "weights"), visible(subject.profile, x)
    weights = result.weights
    assert weights is not None
    hidden = np.where(seen, 0.0, weights)
    same_bits(hidden, np.zeros_like(hidden), "weight of a hidden key", live=not bool(seen.all()))
    ones = rounding(subject.profile, x.but(v=np.ones_like(x.v)))
    between(weights, np.zeros(1), np.ones(1), ones * (weights > 0), "weight", why="rounding above 1, none below 0")
    some = seen.any(-1) & (x.sinks is None)
    total = np.where(some, weights.sum(-1), 1.0)
    within(total, np.ones(some.shape), ones[..., 0], "sum of a row's weights", why="rounding of a weighted mean of ones")
    want, each = expected(subject.profile, x), expected_weights(subject.profile, x)
    within(weights, each.out, each.error, "weights", why=each.why)
    v = np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1)
    within(
        result.out,
        weights @ v,
        want.error + each.error @ np.abs(v),
        "output against the returned weights times the values",
        why=f"{want.why}, and the bound of the weights times |v|",
    )


@claim(
    "softmax.weights-beside-output",
    level="must",
    handle="MH8",
    idea="I22",
    source=Source("torch.nn.MultiheadAttention.forward", "argument need_weights"),
    needs=("weights",),
    given=Cases(),
    within="bound",
    mutants=("output.asking_drops_causal", "output.asking_gives_nan", "output.asking_rounds"),
    twin=wrong_with_weights,
)
def weights_change_nothing(subject: Attention, case: Case) -> None:
    """Asking for the weights does not change the output, though other code may compute it."""
    x = case.build()
    want = expected(subject.profile, x)
    within(
        x.result(subject, "weights").out,
        x.through(subject),
        2 * want.error,
        "output with and without the weights",
        why=f"twice the {want.why}",
    )


def dropped_weights(honest: Honest, x: Inputs) -> Result:
    """Under dropout every weight beside the output is scaled as if it had been kept."""
    return Result(honest(x), x.dtype, honest.weights(x) / (1 - x.dropout))


@claim(
    "softmax.weights-before-dropout",
    level="should",
    handle="SM2",
    idea="I18",
    source=Source("keras.layers.MultiHeadAttention", "argument return_attention_scores"),
    needs=("weights", "dropout"),
    given=Cases(empty="never"),
    within="bound",
    about="dropout",
    mutants=("output.weights_after_dropout",),
    twin=dropped_weights,
)
def weights_are_not_dropped(subject: Attention, case: Case) -> None:
    """The weights beside the output are those before dropout: they sum to one also in training.

    torch.nn.MultiheadAttention returns them after dropout; who plots or reuses them gets noise that sums to anything.
    """
    x = case.build().but(dropout=0.5)
    want, weights = expected_weights(subject.profile, x.but(dropout=0.0)), x.result(subject, "weights").weights
    assert weights is not None
    within(weights, want.out, want.error, "weights under dropout", why=want.why)


@claim(
    "softmax.log-sum-exp",
    level="must",
    handle="SM17",
    idea="I18",
    source=FLASH,
    needs=("lse",),
    given=Cases(),
    within="bound",
    mutants=("output.lse_base_two", "output.lse_unscaled", "output.lse_without_max", "half.lse_in_sixteen_bits"),
    proof=("softmax.blocks-are-the-whole",),
    dtypes="all",
    twin=off_by_one,
)
def log_sum_exp_is_right(subject: Attention, case: Case) -> None:
    """The log-sum-exp beside the output is that of the visible scores, as a natural logarithm."""
    x = case.build()
    want, lse = expected_lse(subject.profile, x), x.result(subject, "lse").lse
    assert lse is not None
    some = visible(subject.profile, x).any(-1)
    got, right = np.where(some, lse, 0.0), np.where(some, want.out, 0.0)
    within(got, right, np.where(some, want.error, 0.0), "log-sum-exp", why=want.why)


@claim(
    "softmax.empty-log-sum-exp",
    level="should",
    handle="SM17",
    idea="I25",
    source=FLASH,
    needs=("lse", "mask"),
    given=Cases(mask="always", empty="always", window="never", causal="never"),
    within="exact",
    about="empty",
    mutants=("output.lse_zero_if_empty",),
    dtypes="all",
    twin=zero_where_empty,
)
def empty_log_sum_exp(subject: Attention, case: Case) -> None:
    """The log-sum-exp of a query that sees no key is -inf, the logarithm of zero: then parts can be merged.

    Should: flash-attn returns +inf there, on purpose.
    """
    x = case.build()
    lse = x.result(subject, "lse").lse
    assert lse is not None
    empty = ~visible(subject.profile, x).any(-1)
    same_bits(np.where(empty, lse, 0.0), np.where(empty, -np.inf, 0.0), "log-sum-exp of an empty row", live=bool(empty.any()))


@claim(
    "softmax.merge",
    level="must",
    handle="SM17",
    idea="I18",
    source=FLASH,
    needs=("lse", "rectangular"),
    given=Cases(causal="never", window="never", empty="never", at_least={"S": 2}, gains=(1.0, 2.0)),
    within="bound",
    mutants=("output.lse_base_two", "output.lse_by_group", "output.lse_without_max"),
    proof=("softmax.blocks-are-the-whole", "softmax.merge-is-associative"),
    twin=base_two,
)
def halves_merge(subject: Attention, case: Case) -> None:
    """Attention to two parts of the keys, joined by their log-sum-exp, is attention to all of them.

        out = sum_i w_i out_i,  w = softmax(lse_1, lse_2)

    The parts meet at every place in turn, a single key on one side included.
    """
    x = case.build()
    keys = np.arange(x.k.shape[2])
    cut = 1 + case.seed % (keys.size - 1)
    parts = [Part.of(subject, taken(x, some)) for some in (keys[:cut], keys[cut:])]
    joined, allowed = merged(*parts)
    whole = expected(subject.profile, x)
    within(
        joined,
        x.through(subject),
        allowed + whole.error,
        f"output of keys 0..{cut - 1} and the others, joined",
        why="the bounds of three outputs, and the weights of the parts within the bounds of their log-sum-exp",
    )


@dataclass(frozen=True)
class Part:
    """Attention to some of the keys: zero with a log-sum-exp of -inf where a query sees none of them."""

    out: FloatArray
    lse: FloatArray
    error: FloatArray
    lse_error: FloatArray

    @classmethod
    def of(cls, subject: Attention, x: Inputs) -> Part:
        result, want, lse = x.result(subject, "lse"), expected(subject.profile, x), expected_lse(subject.profile, x)
        assert result.lse is not None
        some = visible(subject.profile, x).any(-1, keepdims=True)
        return cls(
            np.where(some, result.out, 0.0),
            np.where(some, result.lse[..., None], -np.inf),
            np.where(some, want.error, 0.0),
            np.where(some, lse.error[..., None], 0.0),
        )


def merged(one: Part, other: Part) -> tuple[FloatArray, FloatArray]:
    """The joined output and what it may be off by.

    A weight is a sigmoid of the difference of two log-sum-exps, whose slope is at most 1/4; what one part gains the other
    loses, so that this acts on the difference of the parts. Where one part is empty, the other has all of the weight.
    """
    top = np.maximum(one.lse, other.lse)
    parts = [np.exp(part.lse - np.where(np.isneginf(top), 0.0, top)) for part in (one, other)]
    share = parts[0] / np.where(np.isneginf(top), 1.0, parts[0] + parts[1])
    moved = np.where(
        np.isneginf(one.lse) | np.isneginf(other.lse), 0.0, np.minimum((one.lse_error + other.lse_error) / 4, 1.0)
    )
    error = np.minimum(share + moved, 1.0) * one.error + np.minimum(1 - share + moved, 1.0) * other.error
    return share * one.out + (1 - share) * other.out, error + moved * np.abs(one.out - other.out)
