"""Claims on heads: each is attention of its own, and grouped heads share keys and values in one order."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest


def one_head(x: Inputs, h: int) -> Inputs:
    """The inputs of query head h alone, with the key/value head that it reads."""
    g = h // (x.q.shape[1] // x.k.shape[1])

    def slice_of(a: np.ndarray | None) -> np.ndarray | None:
        return a if a is None or a.ndim < 3 or a.shape[-3] == 1 else a[..., h : h + 1, :, :]

    return x.but(q=x.q[:, h : h + 1], k=x.k[:, g : g + 1], v=x.v[:, g : g + 1], mask=slice_of(x.mask), bias=slice_of(x.bias))


def mixed_with_next(honest: Honest, x: Inputs) -> FloatArray:
    """Each head is the mean of its own output and the next head's."""
    out = honest(x)
    return (out + np.roll(out, 1, axis=1)) / 2


def later_heads_smaller(honest: Honest, x: Inputs) -> FloatArray:
    """Head h gives its output divided by h + 1."""
    out = honest(x)
    return out / (1 + np.arange(out.shape[1]))[:, None, None]


def tiled(honest: Honest, x: Inputs) -> FloatArray:
    """Query head h reads key/value head h % G."""
    times = x.q.shape[1] // x.k.shape[1]
    return honest(x.but(k=np.tile(x.k, (1, times, 1, 1)), v=np.tile(x.v, (1, times, 1, 1))))


@claim(
    "heads.independent",
    level="must",
    handle="MH1",
    idea="I22",
    source=Source("arXiv:1706.03762", "3.2.2"),
    needs=("heads",),
    given=Cases(at_least={"H": 2}, grouped="never"),
    within="bound",
    about="heads",
    mutants=("heads.bias_first_head", "heads.mask_first_head", "heads.split_without_transpose"),
    twin=mixed_with_next,
)
def heads_are_independent(subject: Attention, case: Case) -> None:
    """All heads together give what each head gives alone."""
    x = case.build()
    together, want = x.through(subject), expected(subject.profile, x)
    for h in range(x.q.shape[1]):
        within(
            together[:, h : h + 1],
            one_head(x, h).through(subject),
            2 * want.error[:, h : h + 1],
            f"head {h} among the others against head {h} alone",
            why=f"twice the {want.why}",
        )


@claim(
    "heads.grouped-repeat",
    level="must",
    handle="MH5",
    idea="I22",
    source=Source("arXiv:2305.13245", "2.2"),
    needs=("heads", "grouped"),
    given=Cases(grouped="always"),
    within="bound",
    about="grouped",
    mutants=("heads.mask_by_group", "heads.tiled", "heads.index_clamped"),
    twin=tiled,
)
def grouped_heads_are_repeated(subject: Attention, case: Case) -> None:
    """With fewer key/value heads, query head h reads key/value head h // (H/G): repeated in place, not tiled."""
    x = case.build()
    times = x.q.shape[1] // x.k.shape[1]
    repeated = x.but(k=np.repeat(x.k, times, axis=1), v=np.repeat(x.v, times, axis=1))
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        repeated.through(subject),
        2 * want.error,
        "output of grouped heads against repeated ones",
        why=f"twice the {want.why}",
    )


@claim(
    "heads.order",
    level="must",
    handle="MH3",
    idea="I22",
    source=Source("arXiv:1706.03762", "3.2.2"),
    needs=("heads",),
    given=Cases(at_least={"H": 2}),
    within="bound",
    about="heads",
    mutants=("heads.leak", "heads.split_without_transpose"),
    proof=("heads.concat-is-sum",),
    twin=later_heads_smaller,
)
def heads_have_no_order(subject: Attention, case: Case) -> None:
    """Permuting the heads of queries, keys, values and mask permutes the heads of the output.

    Grouped heads are permuted by whole groups and turned round within each, so that a query head keeps its key/value head.
    """
    x = case.build()
    heads, groups = x.q.shape[1], x.k.shape[1]
    group = numbers.permutation(groups, case.seed, "heads")
    order = (group[:, None] * (heads // groups) + np.arange(heads // groups)[::-1]).ravel()

    def moved(a: np.ndarray | None) -> np.ndarray | None:
        return a if a is None or a.ndim < 3 or a.shape[-3] == 1 else a[..., order, :, :]

    permuted = x.but(q=x.q[:, order], k=x.k[:, group], v=x.v[:, group], mask=moved(x.mask), bias=moved(x.bias))
    want = expected(subject.profile, x)
    within(
        permuted.through(subject),
        x.through(subject)[:, order],
        2 * want.error[:, order],
        "output for permuted heads",
        why=f"twice the {want.why}",
    )
