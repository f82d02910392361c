"""Claims on the weights: what softmax guarantees whatever the scores are."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.bounds_classes import WIDE
from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import between, same_bits, within
from attnspec.properties.oracle import expected, rounding, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest, mean_of_values
from attnspec.reference.attention import scores
from attnspec.reference.softmax import softmax

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1")


def clamped(honest: Honest, x: Inputs) -> FloatArray:
    """Scores above 1 count as 1."""
    seen = visible(honest.profile, x)
    score = scores(x.q, x.k, mask=seen, bias=x.bias, scale=x.scale, softcap=x.softcap)
    return softmax(np.minimum(score, 1.0)) @ np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1)


def three_quarters(honest: Honest, x: Inputs) -> FloatArray:
    """The weights of a row sum to 3/4."""
    return 0.75 * honest(x)


def sum_to_four(honest: Honest, x: Inputs) -> FloatArray:
    """The weights of a row sum to four."""
    return 4.0 * honest(x)


def first_key_heavier(honest: Honest, x: Inputs) -> FloatArray:
    """A quarter of every weight goes to the first key."""
    first = np.repeat(x.v[:, :, :1], x.q.shape[1] // x.v.shape[1], axis=1)
    return 0.75 * honest(x) + 0.25 * first


def later_queries_sharper(honest: Honest, x: Inputs) -> FloatArray:
    """Query t is multiplied by t + 1."""
    return honest(x.but(q=x.q * (1.0 + np.arange(x.q.shape[2]))[:, None]))


@claim(
    "softmax.shift-invariant",
    level="must",
    handle="SM1",
    idea="I18",
    source=Source("arXiv:1805.02867", "sec. 2"),
    given=Cases(
        softcap="never",
        scale="never",
        gains=(1.0, 2.0),
        plant=(Plant("scores", "all", value=4096.0), Plant("scores", "all", value=-65536.0)),
    ),
    within="bound",
    mutants=("softmax.no_max", "softmax.max_floor", "softmax.clamped"),
    proof=("softmax.shift-invariance",),
    twin=clamped,
)
def shift_invariant(subject: Attention, case: Case) -> None:
    """Adding a constant to every score leaves the output unchanged, however large the constant is.

    A further channel, 1 in every query and c in every key, adds scale * c to every score of a row.
    """
    x = case.build()
    ones, zeros = np.ones_like(x.q[..., :1]), np.zeros_like(x.k[..., :1])
    # Where values must be as wide as keys, they have a further channel too, of zeros.
    v = x.v if subject.profile.offers("value-width") else np.concatenate([x.v, np.zeros_like(x.v[..., :1])], -1)
    plain = x.but(q=np.concatenate([x.q, ones], -1), k=np.concatenate([x.k, zeros], -1), v=v)
    before, want = plain.through(subject), expected(subject.profile, plain)
    for plant in case.plant:
        # What 16 bits may lose grows with the scores, and float16 must hold them.
        constant = float(plant.value) / (1.0 if x.dtype in WIDE else 1024.0)
        shifted = plain.but(k=np.concatenate([x.k, zeros + constant], -1))
        allowed = want.error + expected(subject.profile, shifted).error
        what = f"output after adding scale * {constant} to every score"
        within(shifted.through(subject), before, allowed, what, why=f"sum of two {want.why}")


@claim(
    "softmax.rows-sum-to-one",
    level="must",
    handle="SM2",
    idea="I18",
    source=VASWANI,
    needs=(),
    given=Cases(identity=True, empty="never"),
    within="bound",
    mutants=("softmax.plus_one", "softmax.drops_small"),
    proof=("softmax.weights-add-to-one",),
    dtypes="all",
    twin=three_quarters,
)
def rows_sum_to_one(subject: Attention, case: Case) -> None:
    """The weights of a row that sees a key lie between 0 and 1 and sum to one.

    One-hot values make the output the weights; rounding is all that may keep the sum from one.
    """
    x = case.build()
    weights = x.through(subject)
    some = visible(subject.profile, x).any(-1)
    slack = rounding(subject.profile, x)
    between(
        weights,
        np.zeros(1),
        np.ones(1),
        slack * (weights > 0),
        "weight",
        why="weights are not negative; rounding above 1",
    )
    within(
        np.where(some, weights.sum(-1), 1.0),
        np.ones(some.shape),
        slack[..., 0],
        "sum of a row's weights",
        why="rounding of a weighted mean of ones (docs/bounds.md, scores exact)",
    )


@claim(
    "softmax.in-hull",
    level="must",
    handle="SM3",
    idea="I21",
    source=VASWANI,
    given=Cases(empty="never"),
    within="bound",
    mutants=("softmax.no_max", "layout.window_off_by_one"),
    proof=("softmax.mean-stays-in-hull",),
    dtypes="all",
    twin=sum_to_four,
)
def in_hull(subject: Attention, case: Case) -> None:
    """Each output lies between the smallest and the largest visible value of its channel."""
    x = case.build()
    out = x.through(subject)
    seen = visible(subject.profile, x)
    v = np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1)[:, :, None]
    low = np.where(seen[..., None], v, np.inf).min(-2)
    high = np.where(seen[..., None], v, -np.inf).max(-2)
    some = seen.any(-1, keepdims=True)
    between(
        np.where(some, out, 0.0),
        np.where(some, low, 0.0),
        np.where(some, high, 0.0),
        rounding(subject.profile, x),
        "output",
        why="the hull of the visible values, and the rounding of a weighted mean (docs/bounds.md, scores exact)",
    )


@claim(
    "softmax.constant-values",
    level="must",
    handle="SM4",
    idea="I18",
    source=VASWANI,
    given=Cases(values={"v": ("constant",)}, empty="never"),
    within="exact, bound",
    mutants=("layout.max_starts_at_zero", "softmax.no_max"),
    proof=("softmax.equal-entries",),
    dtypes="all",
    twin=three_quarters,
)
def constant_values(subject: Attention, case: Case) -> None:
    """Equal values are returned as they are, up to rounding; zero values give exactly zero."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output for equal values", why=want.why)
    zero = x.but(v=np.zeros_like(x.v))
    same_bits(zero.through(subject), np.zeros_like(want.out), "output for zero values", live=True)


@claim(
    "softmax.equal-scores-average",
    level="must",
    handle="SM5",
    idea="I18",
    source=VASWANI,
    given=Cases(values={"q": ("zeros", "normal"), "k": ("constant",)}, empty="never"),
    within="bound",
    mutants=("softmax.exp_linear", "softmax.skips_far_keys"),
    proof=("softmax.equal-entries",),
    dtypes="all",
    twin=first_key_heavier,
)
def equal_scores_average(subject: Attention, case: Case) -> None:
    """Where all scores are equal, the output is the mean of the visible values."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output for equal scores", why=want.why)


@claim(
    "softmax.dominant-score-selects",
    level="must",
    handle="SM5",
    idea="I20",
    source=VASWANI,
    given=Cases(
        values={"q": ("ones",), "k": ("peak",)},
        mask="never",
        causal="never",
        window="never",
        softcap="never",
        scale="never",
        gains=(4.0,),
        at_least={"S": 2},
    ),
    within="bound",
    mutants=("softmax.clamped", "softmax.exp_linear", "softmax.no_max"),
    proof=("softmax.large-scores-saturate", "softmax.pull"),
    dtypes="all",
    twin=mean_of_values,
)
def dominant_score_selects(subject: Attention, case: Case) -> None:
    """A key whose score exceeds all others by far returns its value alone.

    Queries of 4 and a key of 4 * 128 give it a score of 2048 sqrt(D); no other exceeds 46 sqrt(D): exp of the difference
    vanishes in every format, and float16 can hold the scores.
    """
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output where one key dominates", why=want.why)


@claim(
    "softmax.key-order",
    level="must",
    handle="SM13",
    idea="I27",
    source=Source("arXiv:1810.00825", "3.1"),
    given=Cases(causal="never", window="never", at_least={"S": 2}),
    within="bound",
    mutants=("layout.split_in_base_two", "softmax.over_batch"),
    proof=("softmax.permuted-attention", "softmax.permuted-rows"),
    twin=first_key_heavier,
)
def key_order(subject: Attention, case: Case) -> None:
    """Permuting keys together with their values and mask columns changes nothing."""
    x = case.build()
    order = numbers.permutation(x.k.shape[2], case.seed, "order")
    moved = x.but(k=x.k[:, :, order], v=x.v[:, :, order])
    if x.mask is not None:
        moved = moved.but(mask=x.mask[..., order])
    if x.bias is not None:
        moved = moved.but(bias=x.bias[..., order])
    want = expected(subject.profile, x)
    within(
        moved.through(subject),
        x.through(subject),
        2 * want.error,
        "output for permuted keys",
        why=f"twice the {want.why}",
    )


@claim(
    "softmax.query-order",
    level="must",
    handle="SM15",
    idea="I16",
    source=Source("arXiv:1810.00825", "3.1"),
    given=Cases(causal="never", window="never", mask="never", at_least={"T": 2}),
    within="bound",
    mutants=("softmax.over_queries", "heads.split_without_transpose", "robust.positions_before_heads"),
    proof=("softmax.permuted-attention", "softmax.permuted-rows"),
    twin=later_queries_sharper,
)
def query_order(subject: Attention, case: Case) -> None:
    """Without a mask, permuted queries give equally permuted outputs: no order is known."""
    x = case.build()
    order = numbers.permutation(x.q.shape[2], case.seed, "order")
    want = expected(subject.profile, x)
    within(
        x.but(q=x.q[:, :, order]).through(subject),
        x.through(subject)[:, :, order],
        2 * want.error[:, :, order],
        "output for permuted queries",
        why=f"twice the {want.why}",
    )
