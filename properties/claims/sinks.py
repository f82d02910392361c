"""Claims on attention sinks: a logit of each head that takes a share of the weights and gives nothing back."""

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

SOURCE = Source("arXiv:2309.17453", "eq. 2")


def with_sinks(case: Case) -> Inputs:
    """The inputs with a sink logit of each head."""
    return case.build().but(sinks=numbers.normal(case.seed, "sinks", (case.sizes.H,)))


def sinks_ignored(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: the sinks have no effect."""
    return honest(x.but(sinks=None))


@claim(
    "mask.sink-takes-a-share",
    level="must",
    handle="MK20",
    idea="I18",
    source=SOURCE,
    needs=("sinks",),
    given=Cases(empty="never", grid=True),
    within="bound",
    about="sinks",
    dtypes="all",
    mutants=("sinks.ignored", "sinks.once_per_key", "sinks.negated"),
    twin=sinks_ignored,
)
def sink_takes_a_share(subject: Attention, case: Case) -> None:
    """A sink adds exp(sink) to the sum that divides a row's weights, and nothing to the output."""
    x = with_sinks(case)
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output with a sink", why=want.why)


@claim(
    "mask.sink-is-a-key",
    level="must",
    handle="MK20",
    idea="I18",
    source=SOURCE,
    needs=("sinks",),
    given=Cases(empty="never", mask="never", window="never", causal="never", softcap="never"),
    within="bound",
    about="sinks",
    mutants=("sinks.ignored", "sinks.mixed_in", "sinks.scaled"),
    twin=sinks_ignored,
)
def sink_is_one_more_key(subject: Attention, case: Case) -> None:
    """A sink is one more key that scores the sink's logit for every query and whose value is zero."""
    x = with_sinks(case)
    sinks = np.asarray(x.sinks)
    scale = (x.q.shape[3] + 1) ** -0.5 if x.scale is None else x.scale
    if not subject.profile.offers("value-width"):  # then v grows by a channel too
        x = x.but(v=np.concatenate([x.v, np.zeros_like(x.v[..., :1])], -1))
    logit = np.broadcast_to(numbers.rounded(sinks / scale, case.dtype)[:, None, None], (*x.q.shape[:3], 1))
    sunk = x.but(q=np.concatenate([x.q, logit], -1), k=np.concatenate([x.k, np.zeros_like(x.k[..., :1])], -1))
    one = np.zeros_like(sunk.k[:, :, :1])
    one[..., -1] = 1.0
    key = sunk.but(
        sinks=None,
        k=np.concatenate([sunk.k, one], 2),
        v=np.concatenate([x.v, np.zeros_like(x.v[:, :, :1])], 2),
    )
    a, b = expected(subject.profile, sunk), expected(subject.profile, key)
    within(
        sunk.through(subject) - key.through(subject),
        a.out - b.out,  # not zero, as the logit is rounded to the dtype
        a.error + b.error,
        "output with a sink less the output with a key in its place",
        why=f"sum of two {a.why}",
    )
