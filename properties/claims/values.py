"""Claims on the values: the output is linear in them, and each channel is on its own."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest

VASWANI = Source("arXiv:1706.03762", "3.2.1, eq. 1")
LINEAR = ("grad.linear-map",)


def absolute_step(honest: Honest, x: Inputs) -> FloatArray:
    """Outputs are multiples of 1/4, whatever the size of the values."""
    return np.rint(4 * honest(x)) / 4


def squared(honest: Honest, x: Inputs) -> FloatArray:
    """The values are squared."""
    return honest(x.but(v=x.v**2))


def channels_mixed(honest: Honest, x: Inputs) -> FloatArray:
    """Each channel is the mean of itself and the next."""
    out = honest(x)
    return (out + np.roll(out, 1, axis=-1)) / 2


@claim(
    "softmax.values-scale",
    level="must",
    handle="SM7",
    idea="I21",
    source=VASWANI,
    given=Cases(values={"q": ("normal",), "k": ("normal",)}, gains=(0.5, 1.0), scale="never", empty="never"),
    within="exact",
    mutants=("half.bfloat16_as_float16",),
    proof=LINEAR,
    dtypes="all",
    twin=absolute_step,
)
def values_scale(subject: Attention, case: Case) -> None:
    """Values times a power of two give the output times that power, bit for bit.

    Only exponents change. So that nothing underflows either way, in no sum and no block of keys, all values are 4, 8 or 12
    (nothing cancels), and the scores are of a few units. float16 goes up by 2^6 only, so that sums of values fit.
    """
    x = case.build()
    v = 4.0 * (1 + numbers.below(3, case.seed, "v/positive", x.v.shape))
    power = 2.0**6 if x.dtype == "float16" else 2.0**20 if case.seed % 2 else 2.0**-20
    plain, scaled = x.but(v=v), x.but(v=power * v)
    out = plain.through(subject)
    what = f"output for values times 2^{np.log2(power):.0f}"
    same_bits(scaled.through(subject), power * out, what, live=out.size > 0, noise=noise(subject, scaled))


@claim(
    "softmax.values-add",
    level="must",
    handle="SM7",
    idea="I21",
    source=VASWANI,
    given=Cases(values={"v": ("integers",)}, gains=(1.0, 2.0), empty="never"),
    within="bound",
    mutants=("precision.values_in_eight_bits", "state.noise"),
    proof=LINEAR,
    twin=squared,
)
def values_add(subject: Attention, case: Case) -> None:
    """The output for the sum of two arrays of values is the sum of their outputs."""
    x = case.build()
    other = x.but(v=np.trunc(numbers.normal(case.seed, "v/other", x.v.shape) * 2.0))
    both = x.but(v=x.v + other.v)
    terms = [expected(subject.profile, one) for one in (x, other, both)]
    within(
        both.through(subject),
        x.through(subject) + other.through(subject),
        terms[0].error + terms[1].error + terms[2].error,
        "output for a sum of values against the sum of outputs",
        why=f"sum of three {terms[0].why}",
    )


@claim(
    "softmax.channels-independent",
    level="must",
    handle="SM8",
    idea="I21",
    source=VASWANI,
    given=Cases(at_least={"D": 2, "E": 2}, plant=(Plant("v", "all", value="redrawn"),), gains=(1.0, 2.0)),
    within="exact",
    mutants=("precision.values_in_eight_bits",),
    dtypes="all",
    twin=channels_mixed,
)
def channels_are_independent(subject: Attention, case: Case) -> None:
    """Changing the other channels of the values leaves an output channel bit-identical.

    The shapes stay, and with them the order of every sum: what a channel holds cannot enter another.
    """
    x = case.build()
    kept = case.seed % x.v.shape[3]
    other = case.redrawn(case.plant[0], x.v)
    other[..., kept] = x.v[..., kept]
    changed = x.but(v=other)
    same_bits(
        changed.through(subject)[..., kept],
        x.through(subject)[..., kept],
        f"output channel {kept} after changing the other channels",
        live=bool((other != x.v).any()),
        noise=None if (allowed := noise(subject, x)) is None else allowed[..., kept],
    )
