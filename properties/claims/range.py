"""Claims on the range of the formats: large scores, and sums over many keys."""

from __future__ import annotations

from math import floor, log2

import numpy as np

from attnspec.properties import bounds
from attnspec.properties.bounds_classes import LARGEST, WIDE
from attnspec.properties.bounds_classes import precision as of_class
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected, precision, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest
from attnspec.reference.attention import scores
from attnspec.reference.softmax import softmax

FLASH = Source("arXiv:2205.14135", "3.1 and algorithm 1")
BEYOND_FLOAT16 = 2.0**19  # where scores are held in float32: eight times the largest number of float16
LONG = 100_003  # keys: more than an index of 16 bits can count, and no multiple of a block
KEYS = 1 << 12  # sixteen times what a sum of ones in bfloat16 can reach, twice what one in float16 can


def half_range(honest: Honest, x: Inputs) -> FloatArray:
    """Scores above a thousandth of the largest that occurs count as that: what saturates is mixed."""
    score = scores(x.q, x.k, mask=visible(honest.profile, x), scale=x.scale)
    limit = np.abs(score).max(initial=0.0) / 1024
    out: FloatArray = softmax(np.clip(score, -limit, limit)) @ np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1)
    return out


def stalled(honest: Honest, x: Inputs) -> FloatArray:
    """A sum of equal weights, one by one in float16, stops growing after 2^11 of them."""
    stopped: float = min(1.0, 2048.0 / x.k.shape[2])
    return honest(x) * stopped


def sixteen_bit_index(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: keys are counted in 16 bits."""
    wrapped = np.arange(x.k.shape[2]) % (1 << 16)
    return honest(x.but(k=x.k[:, :, wrapped], v=x.v[:, :, wrapped]))


@claim(
    "softmax.large-scores",
    level="must",
    handle="SM19",
    idea="I20",
    source=FLASH,
    given=Cases(
        causal="never",
        mask="never",
        window="never",
        softcap="never",
        values={"q": ("normal", "fine"), "k": ("normal", "fine")},
        gains=(1.0,),
        at_least={"S": 2},
    ),
    within="bound",
    mutants=("softmax.no_max", "softmax.clamped", "softmax.global_max", "half.exp_overflows"),
    proof=("softmax.large-scores-saturate",),
    dtypes="all",
    twin=half_range,
)
def large_scores(subject: Attention, case: Case) -> None:
    """Scores near the largest number of the format that holds them give the right output, finite.

    Queries and keys are multiplied by a power of two, so that the sum of |q_c k_c| is between 1/8 and 1/4 of that number. A
    subject that is declared to hold scores in float32 must bear scores of 2^18 and more also for float16, past its 65504;
    where nothing is declared it may hold them in the dtype, and then such scores overflow by nature (docs/bounds.md, P1). The
    first key is zero: no row has negative scores only, which code that hides keys by -1e30 could not tell from hidden ones.
    """
    x = case.build()
    x.k[:, :, 0] = 0.0
    held = precision(subject.profile, x.dtype).scores
    scale = x.scale or subject.profile.get("scale") or 0.0
    limit = BEYOND_FLOAT16 if x.dtype == "float16" and held == "float32" else LARGEST[held] / 4
    times = x.q.shape[1] // x.k.shape[1]
    largest = (np.abs(x.q) @ np.repeat(np.abs(x.k), times, axis=1).swapaxes(-1, -2)).max() * max(1.0, abs(scale))
    exponent = floor(log2(limit) - log2(largest)) if largest else 0
    large = x.but(q=np.ldexp(x.q, exponent // 2), k=np.ldexp(x.k, exponent - exponent // 2))
    want = expected(subject.profile, large)
    within(large.through(subject), want.out, want.error, "output for large scores", why=want.why)


@claim(
    "softmax.many-equal-keys",
    level="must",
    handle="SM18",
    idea="I18",
    source=Source("arXiv:2205.14135", "algorithm 1"),
    needs=("rectangular",),
    given=Cases(
        causal="never",
        mask="never",
        window="never",
        softcap="never",
        scale="never",
        grouped="never",
        sizes={"B": 1, "H": 1, "G": 1, "T": 1, "S": KEYS, "D": 1, "E": 1},
        values={"q": ("zeros",), "k": ("ones",), "v": ("ones",)},
        gains=(1.0,),
        draws=2,
    ),
    within="bound",
    mutants=("half.denominator_one_by_one", "half.values_added_one_by_one", "half.sum_overflows"),
    proof=("softmax.weights-add-to-one",),
    dtypes="all",
    twin=stalled,
)
def many_equal_keys(subject: Attention, case: Case) -> None:
    """The mean of 4096 equal values is that value, up to a few roundings.

    A sum of equal weights, one by one in 16 bits, stops at 2^8 or 2^11 terms, which hides in the bound for random values.
    Right code of every class is exact up to the inner sums, in blocks too: numerator and denominator are the same sums of
    ones, and a block of 16 keys or more is not lost in them. So the bound is that of one block. Where float32 sums are
    promised (class fused), the sum of the values may leave the range of the dtype: each is 64 then.
    """
    x = case.build()
    promised = subject.profile.get("precision", {}).get(x.dtype) == "fused"
    x = x.but(v=64.0 * x.v) if promised else x
    kind = "wide" if x.dtype in WIDE else "stored"
    allowed = bounds.forward(x.q, x.k, x.v, visible=np.ones((1, KEYS), dtype=bool), precision=of_class(kind, x.dtype)).error
    why = f"bound E of docs/bounds.md (Forward), class {kind}, {KEYS} keys"
    within(x.through(subject), x.v[:, :, :1], allowed, "mean of equal values", why=why)


@claim(
    "softmax.long-context",
    level="must",
    handle="RB4",
    idea="I18",
    source=Source("docs/bounds.md", "Forward: terms that grow with the number of keys"),
    needs=("rectangular",),
    given=Cases(
        causal="never",
        mask="never",
        window="never",
        softcap="never",
        scale="never",
        grouped="never",
        sizes={"B": 1, "H": 1, "G": 1, "T": 2, "S": LONG, "D": 2, "E": 2},
        values={"q": ("ones",), "k": ("normal",), "v": ("normal",)},
        gains=(1.0,),
        draws=1,
    ),
    within="bound",
    mutants=("shapes.sixteen_bit_positions",),
    dtypes="float32",
    twin=sixteen_bit_index,
)
def long_context(subject: Attention, case: Case) -> None:
    """Over 100 003 keys the error is no larger than the bound, which grows with their number.

    Three keys count most: the first, the one after 2^16, and the last. What is not read at one end, or twice, shows.
    """
    x = case.build()
    factor = subject.profile.get("scale") or x.q.shape[3] ** -0.5
    stands_out = 2.0 ** floor(log2(16 / abs(factor * x.q.shape[3])))  # a score between 8 and 16
    x.k[:, :, [0, 1 << 16, -1]] = stands_out if factor > 0 else -stands_out
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, f"output over {LONG} keys", why=want.why)
