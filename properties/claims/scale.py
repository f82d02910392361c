"""Claims on the scale of the scores: 1/sqrt(d_k) and nothing else."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits, statistic, within
from attnspec.properties.oracle import expected, noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest
from attnspec.properties.verdict import Inapplicable

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1 and footnote 4")
ONE_WIDTH = {"D": 4, "E": 4}  # fused kernels take values of the width of keys only, and these scales go wrong there
ARGUMENT = Source("torch.nn.functional.scaled_dot_product_attention", "argument scale")


def inverse_width(honest: Honest, x: Inputs) -> FloatArray:
    """1/D where 1/sqrt(D) is meant."""
    return honest(x.but(scale=1 / x.q.shape[3]))


def argument_ignored(honest: Honest, x: Inputs) -> FloatArray:
    """The scale argument does nothing."""
    return honest(x.but(scale=None))


def sign_ignored(honest: Honest, x: Inputs) -> FloatArray:
    """Only the size of the scale counts."""
    return honest(x.but(scale=None if x.scale is None else abs(x.scale)))


def only_if_undeclared(subject: Attention) -> None:
    """Errors: Inapplicable where the subject declares a default scale of its own."""
    if (declared := subject.profile.get("scale")) is not None:
        raise Inapplicable(f"the default scale is declared to be {declared}")


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
    twin=inverse_width,
)
def default_is_inverse_square_root(subject: Attention, case: Case) -> None:
    """Without a scale argument the scores are q.k / sqrt(d_k), with d_k the width of one head's keys.

    Not judged where another default is declared.
    """
    x = case.build()
    only_if_undeclared(subject)
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output at the default scale", why=want.why)


@claim(
    "scale.scales-queries",
    level="must",
    handle="SC2",
    idea="I19",
    source=ARGUMENT,
    needs=("scale",),
    given=Cases(scale="always", softcap="never", gains=(1.0, 0.5)),
    within="bound",
    about="scale",
    mutants=("scale.bias_scaled", "scale.ignored", "scale.inverted"),
    proof=("scale.enters-by-the-queries",),
    twin=argument_ignored,
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
    source=ARGUMENT,
    needs=("scale",),
    given=Cases(scale="always", scales=(0.0,), sizes=ONE_WIDTH, mask="never", window="never", softcap="never", gains=(1.0,)),
    within="bound",
    mutants=("scale.zero_is_default", "scale.ignored", "scale.inverted"),
    proof=("softmax.equal-entries",),
    dtypes="all",
    twin=argument_ignored,
)
def zero_scale_averages(subject: Attention, case: Case) -> None:
    """scale = 0 is a scale, not an absent one: all scores are equal and the output is the mean of the visible values."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output at scale = 0", why=want.why)


@claim(
    "scale.powers-of-two",
    level="must",
    handle="SC2",
    idea="I19",
    source=ARGUMENT,
    needs=("scale",),
    given=Cases(
        scale="always",
        scales=(0.375, 0.75, 1.5),
        softcap="never",
        empty="never",
        values={"q": ("normal", "integers"), "k": ("normal", "integers")},
        gains=(1.0, 2.0),
    ),
    within="exact",
    about="scale",
    mutants=("scale.bias_scaled", "scale.ignored", "scale.inverted"),
    proof=("scale.enters-by-the-queries",),
    dtypes="all",
    twin=argument_ignored,
)
def powers_of_two_are_exact(subject: Attention, case: Case) -> None:
    """scale = 4s gives the bits of scale = s with queries four times as large.

    A factor of four changes exponents only, wherever it enters: the scores before and after scaling are on a grid that every
    format holds, float16 also below its smallest normal number. No scale here is 1 or 1/sqrt(D), for which a subject may
    have code of its own.
    """
    x = case.build()
    assert x.scale is not None
    larger, scaled = x.but(scale=4 * x.scale), x.but(q=4 * x.q)
    same_bits(
        larger.through(subject),
        scaled.through(subject),
        "output at scale = 4s against 4q",
        live=bool(x.q.any() and x.k.any()),
        noise=noise(subject, scaled),
    )


@claim(
    "scale.negative",
    level="should",
    handle="SC2",
    idea="I19",
    source=ARGUMENT,
    needs=("scale",),
    given=Cases(scale="always", sizes=ONE_WIDTH, gains=(1.0, 0.5), empty="never"),
    within="bound",
    mutants=("scale.root_of_negative", "scale.sign_lost", "scale.ignored"),
    proof=("scale.enters-by-the-queries",),
    twin=sign_ignored,
)
def negative_scale_turns_the_order(subject: Attention, case: Case) -> None:
    """scale = -s is scale = s with queries of the opposite sign; what is hidden stays hidden.

    The formula defines it, yet nobody trains with it: should, as for scale = 0. It fails where hidden scores are multiplied
    by the scale after they were set to minus infinity.
    """
    x = case.build()
    assert x.scale is not None
    want = expected(subject.profile, x)
    within(
        x.but(q=-x.q, scale=-x.scale).through(subject),
        want.out,
        want.error,
        "output at scale = -s for queries of the opposite sign",
        why=want.why,
    )


@claim(
    "scale.padded-width",
    level="must",
    handle="SC4",
    idea="I19",
    source=ARGUMENT,
    needs=("scale",),
    given=Cases(scale="always", softcap="never", gains=(1.0, 2.0)),
    within="bound",
    mutants=("scale.ignored", "layout.width_tail"),
    proof=("scale.enters-by-the-queries",),
    twin=argument_ignored,
)
def zero_channels_change_nothing(subject: Attention, case: Case) -> None:
    """Channels of zeros appended to queries and keys change nothing while the scale is fixed.

    Kernels pad the width of a head, from 59 to 64 say; then the default scale must stay that of 59.
    """
    x = case.build()
    more = 1 + case.seed % 7
    q, k = (np.concatenate([a, np.zeros((*a.shape[:3], more))], -1) for a in (x.q, x.k))
    v = x.v if subject.profile.offers("value-width") else np.concatenate([x.v, np.zeros((*x.v.shape[:3], more))], -1)
    padded = x.but(q=q, k=k, v=v)
    want, wider = expected(subject.profile, x), expected(subject.profile, padded)
    within(
        padded.through(subject)[..., : x.v.shape[3]],
        x.through(subject),
        want.error + wider.error[..., : x.v.shape[3]],
        f"output with {more} channels of zeros",
        why=f"sum of two {want.why}",
    )


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
    twin=inverse_width,
)
def scaled_scores_have_unit_variance(subject: Attention, case: Case) -> None:
    """For independent unit-variance queries and keys the scaled scores have variance one, whatever d_k is.

    One-hot values make the output the weights; log weights minus their row mean are the scores minus theirs. Given q, the
    scores of a row have variance |q|^2 Var(k) scale^2, so that their sum of squares over it is chi-square.
    """
    x = case.build()
    only_if_undeclared(subject)
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
