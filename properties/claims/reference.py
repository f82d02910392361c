"""Claims against the float64 reference: the plainest oracle, with the bound that makes it trustworthy."""

from __future__ import annotations

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention
from attnspec.properties.twins import next_key


@claim(
    "reference.forward",
    level="must",
    handle="SM18",
    idea="I17",
    source=Source("arXiv:1706.03762", "3.2.1, eq. 1"),
    given=Cases(gains=(1.0, 2.0, 0.5, 8.0), grid=True, storage="drawn"),
    within="bound",
    mutants=("layout.tail_dropped", "layout.padding_seen", "scale.cap_ignored"),
    proof=("softmax.merge-is-associative", "softmax.blocks-are-the-whole"),
    dtypes="all",
    twin=next_key,
)
def agrees_with_reference(subject: Attention, case: Case) -> None:
    """The output is the float64 reference's within the derived bound, for any options that the subject offers."""
    x = case.build()
    want = expected(subject.profile, x)
    within(x.through(subject), want.out, want.error, "output", why=want.why)
