"""Claims on heads: each is attention of its own, and grouped heads share keys and values in one order."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention


def one_head(x: Inputs, h: int) -> Inputs:
    """The inputs of query head h alone, with the key/value head that it reads."""
    g = h // (x.q.shape[1] // x.k.shape[1])

    def slice_of(a: np.ndarray | None) -> np.ndarray | None:
        return a if a is None or a.ndim < 3 or a.shape[-3] == 1 else a[..., h : h + 1, :, :]

    return x.but(q=x.q[:, h : h + 1], k=x.k[:, g : g + 1], v=x.v[:, g : g + 1], mask=slice_of(x.mask), bias=slice_of(x.bias))


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
