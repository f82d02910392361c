"""Claims on behaviour around the numbers: determinism, inputs left alone, errors that say what they mean."""

from __future__ import annotations

from itertools import count

import numpy as np
from msgspec.structs import replace

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import none_of, same_bits, within
from attnspec.properties.oracle import expected, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import AUTOCAST, PRECISION, UNDER, Attention, FloatArray, Result, Setting
from attnspec.properties.twins import Honest, next_key

ENGINE = Source("docs/conventions.md", "refusals")
CALLS = count(1)


def counts_its_calls(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: each of seven calls in a row answers otherwise."""
    return (honest(x) + 1.0) * (1 + next(CALLS) % 7)


def alters_the_queries(honest: Honest, x: Inputs) -> Result:
    """A twin: it scales the queries in place."""
    return Result(honest(x), x.dtype, changed=("q",))


def hides_nan(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: NaN is read as zero."""
    return honest(x.but(q=np.nan_to_num(x.q), k=np.nan_to_num(x.k), v=np.nan_to_num(x.v)))


def minds_its_surroundings(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: it answers otherwise when something around it has changed."""
    return next_key(honest, x) if any(n.startswith(UNDER) for n in honest.need) else honest(x)


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
    dtypes="all",
    twin=counts_its_calls,
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
    sizes = case.sizes
    grown = {"T": sizes.T + 1, "S": sizes.S + 1}
    return replace(sizes, **grown) if case.values["v"].kind != "one-hot" or sizes.E != sizes.S else sizes


@claim(
    "robust.inputs-unchanged",
    level="must",
    handle="IV6",
    idea="I16",
    source=Source("array API standard", "design topics: copies and mutation"),
    given=Cases(),
    within="exact",
    mutants=("state.mask_inverted_in_place", "state.output_buffer_reused", "state.output_is_the_value"),
    dtypes="all",
    twin=alters_the_queries,
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
    "robust.surroundings",
    level="must",
    handle="IV9",
    idea="I16",
    source=Source("docs/conventions.md", "surroundings"),
    given=Cases(mask="drawn", window="never", scale="never"),
    within="bound",
    mutants=("state.cap_lost_without_grad", "state.default_dtype", "surroundings.default_dtype", "surroundings.reseeds"),
    twin=minds_its_surroundings,
)
def surroundings_do_not_matter(subject: Attention, case: Case) -> None:
    """The random state, default dtype, gradient mode and threads change no output, and a call leaves them alone.

    Not bit for bit: with other threads or without gradients a library may sum in another order.
    """
    x = case.build()
    want = expected(subject.profile, x)
    plain = x.through(subject)
    for name in subject.profile.get("surroundings", ("another random state",)):
        result = x.result(subject, UNDER + name)
        none_of(result.changed, f"surroundings that a call altered ({name})")
        within(result.out, plain, 2 * want.error, f"output under {name} against that without", why=f"twice the {want.why}")


@claim(
    "robust.autocast",
    level="must",
    handle="RB5",
    idea="I16",
    source=Source("torch.autocast", "CPU and CUDA ops that can autocast to bfloat16"),
    needs=("autocast",),
    # Numbers that are exact in bfloat16, so that only what happens inside is rounded.
    given=Cases(scale="never", window="never", values=dict.fromkeys("qkv", ("normal", "integers", "ties")), gains=(1.0,)),
    within="bound",
    dtypes="float32",
    mutants=("surroundings.autocast_to_eight_bits", "surroundings.autocast_forgets_the_scale"),
    twin=minds_its_surroundings,
)
def autocast_is_as_good_as_bfloat16(subject: Attention, case: Case) -> None:
    """Under autocast to bfloat16 the output is as near the reference as one computed in bfloat16 must be.

    Whichever operations autocast narrows: the bound is that of the widest class, since what a subject promises about its sums
    in bfloat16 is not what autocast makes of those in float32.
    """
    x, profile = case.build(), subject.profile
    widest = replace(profile, settings=profile.settings | {"precision": Setting(dict(PRECISION), "default")})
    want = expected(widest, x.but(dtype="bfloat16"))
    within(x.result(subject, UNDER + AUTOCAST).out, want.out, want.error, "output under autocast", why=want.why)


@claim(
    "robust.nan-reaches-its-rows",
    level="should",
    handle="RB3",
    idea="I16",
    source=Source("IEEE 754-2019", "6.2"),
    given=Cases(gains=(1.0,), empty="never", softcap="never", values=dict.fromkeys("qkv", ("normal",))),
    within="exact",
    dtypes="all",
    mutants=("softmax.hides_nan", "robust.nan_reaches_all"),
    twin=hides_nan,
)
def nan_reaches_the_rows_that_see_it(subject: Attention, case: Case) -> None:
    """A NaN in a key or value makes every row that sees it NaN, and no row of another sample, head group or query.

    So an error upstream shows. One in a query makes its row NaN, and no other. What a row becomes that does not see the NaN,
    because a mask hides it, is left to `mask.hidden-nan`.
    """
    x = case.build()
    b, g = case.seed % x.k.shape[0], case.seed % x.k.shape[1]
    seen = visible(subject.profile, x)
    group = np.arange(x.q.shape[1]) // (x.q.shape[1] // x.k.shape[1]) == g
    elsewhere = ~(np.arange(x.q.shape[0])[:, None] == b) | ~group
    plain = x.through(subject)
    s = int(np.argmax(seen[b, group].sum((0, 1))))
    for name in ("v", "k"):
        spoiled = getattr(x, name).copy()
        spoiled[b, g, s, 0] = np.nan
        out = x.but(**{name: spoiled}).through(subject)
        reached = seen[..., s] & ~elsewhere[..., None]
        first = out[..., 0]
        same_bits(
            np.where(reached, first, np.nan), np.full_like(first, np.nan), f"output where a NaN in {name} is seen", live=True
        )
        same_bits(
            out[elsewhere], plain[elsewhere], f"output of other samples and heads than those of a NaN in {name}", live=False
        )
    spoiled, others = x.q.copy(), np.ones(x.q.shape[:3], dtype=bool)
    spoiled[b, 0, 0, 0], others[b, 0, 0] = np.nan, False
    out = x.but(q=spoiled).through(subject)
    same_bits(out[others], plain[others], "output of other queries than the one that holds a NaN")
    if seen[b, 0, 0].any():
        same_bits(out[b, 0, 0], np.full_like(out[b, 0, 0], np.nan), "output of a query that holds a NaN")


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
