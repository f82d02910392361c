"""Claims on sliding windows: a band of keys around the query, and nothing else."""

from __future__ import annotations

from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.hidden import disturbed, unseen
from attnspec.properties.claims.mask import hidden_except
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest

LONGFORMER = Source("arXiv:2004.05150", "3.1")


def one_wider(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a window of w holds w + 1 keys."""
    return honest(x.but(window=None if x.window is None else x.window + 1))


def one_narrower(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a window never holds more than S - 1 keys."""
    return honest(x.but(window=None if x.window is None else min(x.window, max(1, x.k.shape[2] - 1))))


@claim(
    "mask.window",
    level="must",
    handle="MK14",
    idea="I25",
    source=LONGFORMER,
    needs=("window", "mask"),
    given=Cases(window="always", mask="never"),
    within="bound",
    about="window",
    mutants=("layout.window_off_by_one", "layout.window_per_chunk", "mask.decode_ignores_mask"),
    proof=("mask.minus-infinity-hides",),
    twin=one_wider,
)
def window_is_band_mask(subject: Attention, case: Case) -> None:
    """A sliding window of w is the band mask of the current key and the w - 1 before it."""
    x = case.build()
    band = visible(subject.profile, x)
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        hidden_except(subject.profile, x.but(window=None, causal=False), band, "bool").through(subject),
        2 * want.error,
        f"output under a window of {x.window} against the band mask",
        why=f"twice the {want.why}",
    )


@claim(
    "mask.window-content",
    level="must",
    handle="MK14",
    idea="I25",
    source=LONGFORMER,
    needs=("window",),
    given=Cases(
        window="always",
        mask="never",
        scale="never",
        softcap="never",
        at_least={"T": 2, "S": 2},
        plant=(Plant("k", "after"), Plant("v", "after")),
    ),
    within="exact",
    about="window",
    dtypes="all",
    mutants=("layout.window_off_by_one", "layout.window_both_sides"),
    proof=("mask.minus-infinity-hides",),
    twin=one_wider,
)
def outside_the_window_nothing_counts(subject: Attention, case: Case) -> None:
    """Changing keys and values outside a query's window leaves its output bit-identical."""
    x, t = case.build(), case.plant[0].t
    row = slice(t, t + 1)
    hidden = unseen(subject.profile, x, row)
    before, after = x.through(subject), disturbed(case, x, hidden).through(subject)
    allowed = noise(subject, x)
    same_bits(
        after[:, :, row],
        before[:, :, row],
        f"output of row {t} when keys and values outside its window of {x.window} change",
        live=bool(hidden.any()),
        noise=None if allowed is None else allowed[:, :, row],
    )


@claim(
    "mask.window-edges",
    level="must",
    handle="MK14",
    idea="I25",
    source=LONGFORMER,
    needs=("window",),
    given=Cases(window="always", mask="never", scale="never", softcap="never", empty="never", at_least={"S": 2}),
    within="bound",
    about="window",
    mutants=("layout.window_off_by_one", "layout.window_both_sides"),
    twin=one_narrower,
)
def narrowest_and_widest_window(subject: Attention, case: Case) -> None:
    """A window of one key returns that key's value; one that holds every key is no window.

    A window to the left alone, without the causal flag, still hides what comes later: there "no window" is causal.
    """
    x = case.build()
    queries, keys = x.q.shape[2], x.k.shape[2]
    one = x.but(window=1)
    single = expected(subject.profile, one)
    within(one.through(subject), single.out, single.error, "output under a window of one key", why=single.why)
    wide = x.but(window=queries + keys)
    left = subject.profile.get("window", "left") == "left"
    none = x.but(window=None, causal=x.causal or left)
    want = expected(subject.profile, wide)
    plain = none.through(subject) if subject.profile.offers("causal") or not none.causal else want.out
    what = f"output under a window of {wide.window} against the run without one"
    within(wide.through(subject), plain, 2 * want.error, what, why=f"twice the {want.why}")
