"""Claims on the scale of the scores: 1/sqrt(d_k) and nothing else."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import statistic, within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1 and footnote 4")


@claim(
    "scale.sqrt-dk",
    level="must",
    handle="SC1",
    idea="I19",
    source=VASWANI,
    given=Cases(
        causal="never",
        mask="never",
        window="never",
        softcap="never",
        scale="never",
        grouped="never",
        gains=(1.0, 2.0),
        at_least={"S": 2, "D": 2},
    ),
    within="bound",
    mutants=("scale.inverse_width", "scale.missing", "scale.model_width"),
    proof=("scale.variance-of-dot-product",),
)
def default_is_inverse_square_root(subject: Attention, case: Case) -> None:
    """Without a scale argument the scores are q.k / sqrt(d_k), with d_k the width of one head's keys."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output at the default scale", why=want.why)


@claim(
    "scale.scales-queries",
    level="must",
    handle="SC2",
    idea="I19",
    source=Source("torch.nn.functional.scaled_dot_product_attention", "argument scale"),
    needs=("scale",),
    given=Cases(scale="always", softcap="never", gains=(1.0, 0.5)),
    within="bound",
    about="scale",
    mutants=("scale.bias_scaled", "scale.ignored", "scale.inverted"),
    proof=("scale.enters-by-the-queries",),
)
def argument_scales_queries(subject: Attention, case: Case) -> None:
    """scale = 4s is scale = s with queries four times as large."""
    x = case.build()
    assert x.scale is not None
    larger, scaled = x.but(scale=4 * x.scale), x.but(q=4 * x.q)
    first, second = expected(subject.profile, larger), expected(subject.profile, scaled)
    within(
        larger.through(subject),
        scaled.through(subject),
        first.error + second.error,
        "output at scale = 4s against 4q",
        why=f"sum of two {first.why}",
    )


@claim(
    "scale.zero-averages",
    level="should",
    handle="SC2",
    idea="I19",
    source=Source("torch.nn.functional.scaled_dot_product_attention", "argument scale"),
    needs=("scale",),
    given=Cases(scale="always", scales=(0.0,), mask="never", window="never", softcap="never", gains=(1.0,)),
    within="bound",
    mutants=("scale.zero_is_default", "scale.ignored", "scale.inverted"),
    proof=("softmax.equal-entries",),
)
def zero_scale_averages(subject: Attention, case: Case) -> None:
    """scale = 0 is a scale, not an absent one: all scores are equal and the output is the mean of the visible values."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output at scale = 0", why=want.why)


# 64 rows of 16 keys: the sum of squares below follows chi-square with 64 * 15 degrees of freedom, relative standard
# deviation sqrt(2/960) = 0.046. Seven deviations: a correct subject is beyond them less than once in 10^11 draws, and the
# draws are fixed by the seed, so that a pass stays a pass.
_ROWS, _KEYS = 64, 16
_DEVIATION = 7 * (2 / (_ROWS * (_KEYS - 1))) ** 0.5


@claim(
    "scale.unit-variance",
    level="must",
    handle="SC3",
    idea="I19",
    source=Source("arXiv:1706.03762", "footnote 4"),
    needs=("batch", "rectangular"),
    given=Cases(
        causal="never",
        mask="never",
        window="never",
        softcap="never",
        scale="never",
        grouped="never",
        identity=True,
        sizes={"B": _ROWS, "H": 1, "G": 1, "T": 1, "S": _KEYS, "D": _KEYS},
        values={"q": ("normal",), "k": ("normal",)},
        gains=(1.0,),
    ),
    within="statistic",
    mutants=("scale.missing", "scale.inverse_width", "scale.inverted"),
    proof=("scale.variance-of-dot-product", "scale.variance-is-quadratic"),
)
def scaled_scores_have_unit_variance(subject: Attention, case: Case) -> None:
    """For independent unit-variance queries and keys the scaled scores have variance one, whatever d_k is.

    One-hot values make the output the weights; log weights minus their row mean are the scores minus theirs. Given q, the
    scores of a row have variance |q|^2 Var(k) scale^2, so that their sum of squares over it is chi-square.
    """
    x = case.build()
    weights = x.through(subject)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(weights)
        centred = log - log.mean(-1, keepdims=True)
    variance = (x.q**2).sum(-1, keepdims=True) * numbers.VARIANCE / x.q.shape[-1]
    measured = float((centred**2 / variance).sum() / (_ROWS * (_KEYS - 1)))
    statistic(
        measured,
        1 - _DEVIATION,
        1 + _DEVIATION,
        "variance of the scaled scores",
        why=f"chi-square with {_ROWS * (_KEYS - 1)} degrees of freedom, seven standard deviations",
    )
