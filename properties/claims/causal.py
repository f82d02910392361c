"""Claims on causal order: the future has no influence, and a parallel run is the step-by-step run."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.hidden import TORCH, disturbed, unseen
from attnspec.properties.claims.mask import hidden_except
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest
from attnspec.reference.mask import causal_mask

DECODER = Source("arXiv:1706.03762", "3.2.3")
LATER = (Plant("k", "after"), Plant("v", "after"))


def sees_next(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: each causal query sees one key too many."""
    if not x.causal:
        return honest(x)
    seen = causal_mask(x.q.shape[2], x.k.shape[2], honest.profile.alignment)
    seen[:, 1:] |= seen[:, :-1].copy()
    return honest(x.but(causal=False, mask=seen if x.mask is None else x.mask & seen))


@claim(
    "mask.causal",
    level="must",
    handle="MK1",
    idea="I25",
    source=DECODER,
    needs=("causal",),
    given=Cases(causal="always", square=True, at_least={"T": 2, "S": 2}, plant=LATER, grid=True),
    within="exact",
    about="causal",
    dtypes="all",
    mutants=("mask.sees_next", "mask.after_softmax", "mask.union_with_causal"),
    proof=("mask.triangle-is-prefix", "mask.leak-without-mask"),
    twin=sees_next,
)
def future_never_reaches_the_past(subject: Attention, case: Case) -> None:
    """Changing keys and values after position t leaves the outputs up to t bit-identical."""
    x, t = case.build(), case.plant[0].t
    later = np.broadcast_to(np.arange(x.k.shape[2]) > t, x.k.shape[:3])
    before, after = x.through(subject), disturbed(case, x, later).through(subject)
    live = not np.array_equal(before[:, :, t + 1 :], after[:, :, t + 1 :])
    allowed = noise(subject, x)
    same_bits(
        after[:, :, : t + 1],
        before[:, :, : t + 1],
        f"output up to position {t} when keys and values after {t} change",
        live=live,
        noise=None if allowed is None else allowed[:, :, : t + 1],
    )


@claim(
    "mask.causal-rectangular",
    level="must",
    handle="MK1",
    idea="I26",
    source=TORCH,
    needs=("causal-rectangular",),
    given=Cases(causal="always", mask="never", scale="never", softcap="never", at_least={"T": 2, "S": 2}, plant=LATER),
    within="exact",
    about="causal",
    mutants=("mask.sees_next", "mask.bottom_right", "mask.chunk_bottom_right"),
    proof=("mask.triangle-is-prefix",),
    twin=sees_next,
)
def unseen_keys_never_reach_earlier_rows(subject: Attention, case: Case) -> None:
    """Also where T and S differ: keys that no query up to t may see leave the outputs up to t bit-identical."""
    x, t = case.build(), case.plant[0].t
    past = slice(0, t + 1)
    hidden = unseen(subject.profile, x, past)
    before, after = x.through(subject), disturbed(case, x, hidden).through(subject)
    allowed = noise(subject, x)
    same_bits(
        after[:, :, past],
        before[:, :, past],
        f"output up to row {t} when the keys and values that it may not see change",
        live=bool(hidden.any()),
        noise=None if allowed is None else allowed[:, :, past],
    )


@claim(
    "mask.causal-is-triangle",
    level="must",
    handle="MK9",
    idea="I25",
    source=TORCH,
    needs=("causal", "mask", "non-causal"),
    given=Cases(causal="always", mask="never"),
    within="bound",
    about="causal",
    mutants=("mask.sees_next", "mask.bottom_right", "mask.single_query_sees_all"),
    proof=("mask.triangle-is-prefix",),
    twin=sees_next,
)
def causal_flag_is_triangular_mask(subject: Attention, case: Case) -> None:
    """The causal flag is the triangular mask of the subject's alignment, also where T and S differ."""
    x = case.build()
    triangle = causal_mask(x.q.shape[2], x.k.shape[2], subject.profile.alignment)
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        hidden_except(subject.profile, x.but(causal=False), triangle, "bool").through(subject),
        2 * want.error,
        "output under the causal flag against a triangular mask",
        why=f"twice the {want.why}",
    )


@claim(
    "mask.parallel-is-stepwise",
    level="must",
    handle="MK21",
    idea="I26",
    source=DECODER,
    needs=("causal", "rectangular"),
    given=Cases(causal="always", mask="never", window="never", square=True, at_least={"T": 2, "S": 2}),
    within="bound",
    about="causal",
    mutants=("mask.sees_next", "mask.hides_self", "state.causal_size_of_first_call"),
    proof=("mask.triangle-is-prefix",),
    twin=sees_next,
)
def parallel_is_step_by_step(subject: Attention, case: Case) -> None:
    """Row t of one causal run is the plain run of query t on the keys and values up to t, for every t."""
    x = case.build()
    want = expected(subject.profile, x)
    parallel = x.through(subject)
    for t in range(x.q.shape[2]):
        # A subject that is always causal takes its step with the whole prefix of queries.
        first, flag = (t, False) if subject.profile.offers("non-causal") else (0, True)
        step = x.but(causal=flag, q=x.q[:, :, first : t + 1], k=x.k[:, :, : t + 1], v=x.v[:, :, : t + 1])
        within(
            parallel[:, :, t : t + 1],
            step.through(subject)[:, :, -1:],
            2 * want.error[:, :, t : t + 1],
            f"row {t} of the parallel run against step {t} alone",
            why=f"the same keys twice: twice the {want.why}",
        )


@claim(
    "mask.parallel-is-chunks",
    level="must",
    handle="MK21",
    idea="I26",
    source=DECODER,
    needs=("causal", "rectangular", "mask", "non-causal"),
    given=Cases(
        causal="always",
        mask="never",
        window="never",
        scale="never",
        softcap="never",
        square=True,
        at_least={"T": 3, "S": 3},
    ),
    within="bound",
    about="causal",
    mutants=("mask.sees_next", "mask.hides_self", "mask.causal_needs_mask"),
    proof=("mask.triangle-is-prefix",),
    twin=sees_next,
)
def parallel_is_chunk_by_chunk(subject: Attention, case: Case) -> None:
    """One causal run is a run of the first queries, then one of all later queries on all keys.

    The later queries say by the causal flag what they see if its alignment is bottom-right, else by a mask.
    """
    x = case.build()
    length = x.q.shape[2]
    cut = 1 + case.seed % (length - 1)
    first = x.but(q=x.q[:, :, :cut], k=x.k[:, :, :cut], v=x.v[:, :, :cut])
    rest = x.but(q=x.q[:, :, cut:])
    if subject.profile.alignment == "top-left" or not subject.profile.offers("causal-rectangular"):
        rest = hidden_except(subject.profile, rest.but(causal=False), causal_mask(length, length)[cut:], "bool")
    want = expected(subject.profile, x)
    parallel = x.through(subject)
    for chunk, rows in ((first, slice(0, cut)), (rest, slice(cut, length))):
        what = f"rows {rows.start} to {rows.stop - 1} of the parallel run against that chunk alone"
        why = f"the same keys twice: twice the {want.why}"
        within(parallel[:, :, rows], chunk.through(subject), 2 * want.error[:, :, rows], what, why=why)
