"""Claims on what must not matter: where arrays lie in memory, and options too wide to have an effect."""

from __future__ import annotations

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest, next_key


def in_memory_order(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: values that are a view are read where they do not lie."""
    return honest(x) if x.storage == "plain" else next_key(honest, x)


def ignores_the_cap(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a soft cap of more than 2^20 is taken for one of 1."""
    return honest(x.but(softcap=None if x.softcap is None else 1.0))


@claim(
    "robust.storage",
    level="must",
    handle="IV5",
    idea="I16",
    source=Source("array API standard", "design topics: copies and mutation"),
    given=Cases(storage="drawn", mask="never", window="never", scale="never", softcap="never", at_least={"S": 2}),
    within="bound",
    dtypes="all",
    mutants=("layout.values_read_as_contiguous",),
    twin=in_memory_order,
)
def storage_does_not_matter(subject: Attention, case: Case) -> None:
    """Views with strides or an offset, transposed, expanded or with NaN around them give what plain arrays give.

    Not bit for bit: a kernel may sum in another order where memory is not contiguous.
    """
    x = case.build()
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        x.but(storage="plain").through(subject),
        2 * want.error,
        f"output for {x.storage} arrays against plain ones",
        why=f"twice the {want.why}",
    )


@claim(
    "scale.wide-softcap",
    level="must",
    handle="MK15",
    idea="I20",
    source=Source("arXiv:2408.00118", "sec. 2"),
    needs=("softcap",),
    given=Cases(mask="never", window="never", softcap="never", empty="never", gains=(1.0,)),
    within="bound",
    about="softcap",
    mutants=("scale.cap_before_scale", "scale.cap_overflows"),
    twin=ignores_the_cap,
)
def wide_softcap_is_none(subject: Attention, case: Case) -> None:
    """A soft cap far above every score changes nothing."""
    x = case.build()
    capped = x.but(softcap=2.0**14)  # a number of every dtype
    one, other = expected(subject.profile, capped), expected(subject.profile, x)
    within(
        capped.through(subject) - x.through(subject),
        one.out - other.out,  # what the cap still changes
        one.error + other.error,
        f"output under a soft cap of {capped.softcap:.0f} less the output without",
        why=f"sum of two {one.why}",
    )
