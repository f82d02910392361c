"""Claims on behaviour around the numbers: determinism, inputs left alone, errors that say what they mean."""

from __future__ import annotations

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import none_of, same_bits
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention

ENGINE = Source("attnspec engine", "refusals")


@claim(
    "robust.deterministic",
    level="should",
    handle="IV4",
    idea="I16",
    source=Source("torch.use_deterministic_algorithms"),
    given=Cases(),
    within="exact",
    promoted_by="deterministic",
    mutants=("state.noise", "state.dropout_left_on"),
)
def same_call_same_bits(subject: Attention, case: Case) -> None:
    """The same call gives the same bits, also after a call with other sizes and another with other values."""
    x = case.build()
    first = x.through(subject)
    other = case.but(sizes=_larger(case), mask=None, seed=case.seed + 1).build()
    other.through(subject)
    case.but(seed=case.seed + 1).build().through(subject)
    same_bits(x.through(subject), first, "output of the same call after two others", live=True)


def _larger(case: Case) -> object:
    import msgspec

    sizes = case.sizes
    grown = {"T": sizes.T + 1, "S": sizes.S + 1}
    return msgspec.structs.replace(sizes, **grown) if case.values["v"].kind != "one-hot" or sizes.E != sizes.S else sizes


@claim(
    "robust.inputs-unchanged",
    level="must",
    handle="IV6",
    idea="I16",
    source=Source("array API standard", "design topics: copies and mutation"),
    given=Cases(),
    within="exact",
    mutants=("state.mask_inverted_in_place", "state.output_buffer_reused", "state.output_is_the_value"),
)
def inputs_are_left_alone(subject: Attention, case: Case) -> None:
    """A call changes none of its inputs, and its output is memory of its own, not overwritten by the next call."""
    x = case.build()
    options = x.options | {"need": ("changed", "aliases")}
    first = subject(x.q, x.k, x.v, **options)
    none_of(first.changed, "inputs that the call altered")
    none_of(first.aliases, "inputs whose memory the output shares")
    second = subject(2 * x.q, x.k, -x.v, **options)
    none_of(second.aliases, "memory that the output of a second call shares")


@claim(
    "robust.no-exception",
    level="must",
    handle="RB1",
    idea="I16",
    source=ENGINE,
    within="observed",
    mutants=("robust.raises_on_large_scores",),
)
def no_exception_for_some_values(subject: Attention, case: Case) -> None:
    """No exception depends on the values: where zeros of the same shapes pass, other finite values pass too."""


@claim(
    "robust.clear-refusal",
    level="should",
    handle="RB2",
    idea="I16",
    source=ENGINE,
    within="observed",
    mutants=("robust.index_error_for_one_query",),
)
def refusals_are_clear(subject: Attention, case: Case) -> None:
    """What is not offered is refused by an error that says so, not by an IndexError, KeyError or the like from inside."""


@claim(
    "robust.uniform-refusal",
    level="should",
    handle="RB1",
    idea="I16",
    source=ENGINE,
    within="observed",
    mutants=("robust.refuses_odd_lengths", "robust.index_error_for_one_query"),
)
def refusals_are_uniform(subject: Attention, case: Case) -> None:
    """A feature that works at some sizes works at all sizes from 1 up."""
