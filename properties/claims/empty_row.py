"""Claims on queries that may attend to nothing: finite, as declared, and of no consequence to the others."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.hidden import INFINITE, TORCH
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, FloatArray
from attnspec.properties.twins import Honest

EMPTY = Cases(mask="always", finite=INFINITE, empty="always", window="never", causal="never")
PYTORCH = Source("https://github.com/pytorch/pytorch/issues/103963")


def leftovers(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: an empty row is never written, so it holds whatever was in memory."""
    empty = ~visible(honest.profile, x).any(-1, keepdims=True)
    return np.where(empty, 3.0, honest(x))


def spoils_the_head(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: an empty row makes every row of its head NaN."""
    some = visible(honest.profile, x).any(-1, keepdims=True)
    return np.where(np.all(some, axis=2, keepdims=True), honest(x), np.nan)


def _as_declared(subject: Attention, x: Inputs, what: str) -> None:
    """The empty rows are what is declared or promised; zero or the mean of the values where nobody says."""
    profile = subject.profile
    want, out = expected(profile, x), x.through(subject)
    empty = ~visible(profile, x).any(-1, keepdims=True)
    policy = profile.get("empty_row" if x.bias is None else "empty_row_bias", profile.get("empty_row"))
    if profile.promises("empty_row") or policy in ("zero", "mean"):
        filled = np.where(empty, want.out, 0.0)
        within(np.where(empty, out, 0.0), filled, want.error, what, why=want.why, rival=1.0)
    else:  # NaN, or the mask silently dropped, and nobody declared it
        what = f"{what} ({policy}, found by probing)"
        within(np.where(empty, out, 0.0), np.zeros_like(out), np.zeros(1), what, why="nothing to attend to gives zero")


@claim(
    "mask.empty-row",
    level="should",
    handle="MK11",
    idea="I25",
    source=TORCH,
    given=EMPTY,
    within="exact, bound",
    promoted_by="empty_row",
    about="empty",
    dtypes="all",
    mutants=("batch.all_empty_is_unmasked", "mask.empty_row_nan", "mask.decode_ignores_mask"),
    twin=leftovers,
)
def empty_row_is_finite(subject: Attention, case: Case) -> None:
    """A query that may attend to nothing gives what is declared or promised, else zero or the mean of the values."""
    _as_declared(subject, case.build(), "a row that sees no key")


@claim(
    "mask.empty-batch",
    level="should",
    handle="MK11",
    idea="I25",
    source=PYTORCH,
    given=Cases(mask="always", finite=INFINITE, empty="never", window="never", causal="never", scale="never"),
    within="exact, bound",
    promoted_by="empty_row",
    about="empty",
    dtypes="all",
    mutants=("batch.all_empty_is_unmasked", "mask.empty_row_nan", "mask.minus_1e4"),
    twin=leftovers,
)
def empty_batch_is_finite(subject: Attention, case: Case) -> None:
    """The same where a mask hides every key from a whole batch row, or from everyone."""
    x = case.build()
    name, hidden = ("mask", False) if x.mask is not None else ("bias", -np.inf)
    array = getattr(x, name)
    _as_declared(subject, x.but(**{name: np.full_like(array, hidden)}), "a row of a batch that sees no key")
    if array.ndim == 4 and array.shape[0] > 1:
        one = array.copy()
        one[case.seed % array.shape[0]] = hidden
        _as_declared(subject, x.but(**{name: one}), "a row of a batch row that sees no key")


@claim(
    "mask.empty-row-alone",
    level="must",
    handle="MK12",
    idea="I25",
    source=TORCH,
    given=EMPTY,
    within="bound",
    about="empty",
    mutants=("batch.bias_of_first", "batch.mask_of_first", "batch.mask_swapped_with_heads"),
    twin=spoils_the_head,
)
def empty_row_stays_alone(subject: Attention, case: Case) -> None:
    """A query that may attend to nothing leaves the rows of all others as they are."""
    assert case.mask is not None
    x, filled = case.build(), case.but(mask=replace(case.mask, empty=())).build()
    want = expected(subject.profile, x)
    empty = ~visible(subject.profile, x).any(-1, keepdims=True)
    within(
        np.where(empty, 0.0, x.through(subject)),
        np.where(empty, 0.0, filled.through(subject)),
        2 * want.error,
        "rows that see a key, with and without a row that sees none beside them",
        why=f"twice the {want.why}",
    )
