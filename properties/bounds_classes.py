"""Precision classes: what a kind of program rounds, to which format, and how often (docs/bounds.md, 'Constants').

A bound belongs to a class. `wide` computes in one format; the others are of 16 bits: `fused` keeps everything in float32 but
the weights that multiply the values, `stored` also stores scores in 16 bits, `stored-blocks` also the running sums of an
online softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from attnspec.properties.bounds_oracle import Array

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
LARGEST = {
    "float64": float(np.finfo("float64").max),
    "float32": float(np.finfo("float32").max),
    "bfloat16": 2.0**128 - 2.0**120,
    "float16": 65504.0,
}
# What one operation may lose to underflow. Results and operands may both be flushed to zero, except in float16, where half a
# subnormal is lost: weights below 2^-14 have fewer bits there.
LOSS = {"float64": 2.0**-1021, "float32": 2.0**-125, "bfloat16": 2.0**-125, "float16": 2.0**-25}
WIDE = ("float64", "float32")
CLASSES = ("fused", "stored", "stored-blocks")  # of 16 bits, the most exact first


@dataclass(frozen=True)
class Precision:
    """A class in one dtype: the formats of inner sums, scores, weights and results, and how often each value is rounded."""

    name: str  # the dtype of inputs and results
    kind: str
    sums: str
    scores: str
    k_pre: int  # roundings of q and k scaled beforehand
    k_s: int  # of a stored score
    k_p: int  # of a stored weight
    k_b: int  # of the accumulators, per block
    k_g: int  # of stored dP and of dS, each
    k_out: int  # of the output and of gradients
    unit: float | None = None  # a roundoff for all of them, in the place of the formats' own

    @property
    def stores(self) -> bool:
        """Whether scores are stored in the format of the weights: then a backward pass may read the weights back."""
        return self.scores == self.name

    @property
    def accumulators(self) -> str:
        """The format of the sums that are rescaled from block to block."""
        return self.scores if self.k_b else self.sums

    @property
    def u_a(self) -> float:
        return self.unit or UNIT[self.sums]

    @property
    def u_s(self) -> float:
        return self.unit or UNIT[self.scores]

    @property
    def u_o(self) -> float:
        """Of results, and of stored weights."""
        return self.unit or UNIT[self.name]

    @property
    def largest(self) -> float:
        """The largest finite number of the dtype."""
        return LARGEST[self.name]

    def __str__(self) -> str:
        return f"class {self.kind}, u = 2^{int(np.log2(self.u_o))}"


def precision(kind: str, dtype: str) -> Precision:
    """The class of that name in a dtype. Errors: ValueError for a pair that docs/bounds.md does not define."""
    if kind == "wide" and dtype in WIDE:
        return Precision(dtype, kind, dtype, dtype, k_pre=2, k_s=4, k_p=2, k_b=2, k_g=2, k_out=3)
    if kind in CLASSES and dtype in UNIT and dtype not in WIDE:
        if kind == "fused":
            return Precision(dtype, kind, "float32", "float32", k_pre=2, k_s=4, k_p=1, k_b=2, k_g=1, k_out=1)
        blocks = 2 if kind == "stored-blocks" else 0
        return Precision(dtype, kind, "float32", dtype, k_pre=2, k_s=3, k_p=2, k_b=blocks, k_g=2, k_out=3)
    known = "wide in float64 and float32; fused, stored, stored-blocks in bfloat16 and float16"
    raise ValueError(f"precision={kind!r} in {dtype!r}: the classes are {known} (docs/bounds.md)")


def wide(dtype: str) -> Precision:
    """The class `wide`: everything in one dtype."""
    return precision("wide", dtype)


def default(dtype: str) -> Precision:
    """The class of a subject that promises nothing: the widest bound of its dtype."""
    return precision("wide" if dtype in WIDE else "stored-blocks", dtype)


ORACLE = wide("float64")


@dataclass(frozen=True)
class Formats:
    """A subject's class and the oracle's side by side: each number of a class as an array [F,1,1,1,1], so that both bounds
    are worked out by one set of NumPy calls. For a float64 subject F = 1, since the oracle errs as it may.
    """

    w_a: Array  # log-error of one rounding, u / (1 - u), in inner sums
    w_s: Array  # of scores
    w_p: Array  # of weights and results
    l_a: Array  # loss to underflow
    l_s: Array
    l_p: Array
    k_pre: Array
    k_s: Array
    k_p: Array
    k_b: Array
    k_g: Array
    k_out: Array
    stores: Array  # 1 where the class stores scores in the format of the weights, else 0
    blocked: Array  # 1 where k_b > 0
    prescaled: Array  # 1 where k_pre > 0


@cache
def formats(f: Precision) -> Formats:
    """The numbers of a class beside those of the oracle."""
    of = (f,) if f == ORACLE else (f, ORACLE)

    def column(values: list[float]) -> Array:
        return np.array(values, dtype=np.float64).reshape(-1, 1, 1, 1, 1)

    numbers = {
        "w_a": column([p.u_a / (1 - p.u_a) for p in of]),
        "w_s": column([p.u_s / (1 - p.u_s) for p in of]),
        "w_p": column([p.u_o / (1 - p.u_o) for p in of]),
        "l_a": column([LOSS[p.sums] for p in of]),
        "l_s": column([LOSS[p.scores] for p in of]),
        "l_p": column([LOSS[p.name] for p in of]),
        **{k: column([getattr(p, k) for p in of]) for k in ("k_pre", "k_s", "k_p", "k_b", "k_g", "k_out")},
    }
    flags = {"stores": [p.stores for p in of], "blocked": [p.k_b > 0 for p in of], "prescaled": [p.k_pre > 0 for p in of]}
    return Formats(**numbers, **{name: column([float(y) for y in values]) for name, values in flags.items()})
