"""Claims on masks: what is hidden has no influence, and every way to hide it is the same."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs, Plant
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import same_bits, within
from attnspec.properties.oracle import expected, noise, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, BoolArray, FloatArray
from attnspec.reference.mask import causal_mask, window_mask

DECODER = Source("arXiv:1706.03762", "3.2.3")
TORCH = Source("torch.nn.functional.scaled_dot_product_attention", "arguments attn_mask and is_causal")


def disturbed(case: Case, x: Inputs, where: BoolArray) -> Inputs:
    """The inputs with planted content at the key positions marked in `where` [B,G,S]."""
    changed: dict[str, FloatArray] = {}
    for plant in case.plant:
        array = changed.get(plant.array, getattr(x, plant.array))
        changed[plant.array] = np.where(where[..., None], case.redrawn(plant, array), array)
    return x.but(**changed)


@claim(
    "mask.causal",
    level="must",
    handle="MK1",
    idea="I25",
    source=DECODER,
    needs=("causal",),
    given=Cases(
        causal="always",
        square=True,
        at_least={"T": 2, "S": 2},
        plant=(Plant("k", "after"), Plant("v", "after")),
        grid=True,
    ),
    within="exact",
    about="causal",
    mutants=("mask.sees_next", "mask.after_softmax", "mask.union_with_causal"),
    proof=("mask.triangle-is-prefix", "mask.leak-without-mask"),
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
    "mask.hidden-content",
    level="must",
    handle="MK4",
    idea="I25",
    source=TORCH,
    needs=("mask",),
    given=Cases(
        mask="always",
        kinds=("bool",),
        window="never",
        at_least={"S": 2},
        plant=(Plant("k", "hidden"), Plant("v", "hidden")),
    ),
    within="exact",
    about="mask",
    mutants=("mask.minus_ten", "mask.minus_1e4", "mask.dropped_with_causal"),
    proof=("mask.minus-infinity-hides", "batch.padding-changes-nothing"),
)
def hidden_content_has_no_influence(subject: Attention, case: Case) -> None:
    """Keys and values that a mask hides from every query may hold any finite content."""
    x = case.build()
    assert x.mask is not None
    seen = np.broadcast_to(x.mask, (*x.q.shape[:3], x.k.shape[2])).max(2)
    hidden = ~_by_key_head(x, seen)
    # Hide one more key from everyone, so that something is hidden; never the first, which may be a row's only key.
    last = np.zeros_like(hidden)
    last[..., -1] = True
    mask = np.broadcast_to(x.mask, (*x.mask.shape[:-1], x.k.shape[2])).copy()
    mask[..., -1] = False
    emptied = ~visible(subject.profile, x.but(mask=mask)).any(-1) & visible(subject.profile, x).any(-1)
    if not emptied.any():
        x, hidden = x.but(mask=mask), hidden | last
    before, after = x.through(subject), disturbed(case, x, hidden).through(subject)
    same_bits(after, before, "output when hidden keys and values change", live=bool(hidden.any()), noise=noise(subject, x))


def _by_key_head(x: Inputs, by_query_head: BoolArray) -> BoolArray:
    """[B,H,S] -> [B,G,S]: true where any query head of the group is."""
    b, h, s = by_query_head.shape
    return np.asarray(by_query_head.reshape(b, x.k.shape[1], h // x.k.shape[1], s).any(2), dtype=np.bool_)


@claim(
    "mask.bool-is-additive",
    level="must",
    handle="MK5",
    idea="I25",
    source=TORCH,
    needs=("mask", "bias"),
    given=Cases(mask="always", kinds=("bool",)),
    within="bound",
    about="mask",
    mutants=("layout.window_drops_mask", "mask.decode_ignores_mask", "batch.bias_of_first"),
    proof=("mask.minus-infinity-hides",),
)
def boolean_mask_is_additive_mask(subject: Attention, case: Case) -> None:
    """A boolean mask is the additive mask of 0 and -inf; a mask that hides nothing is no mask."""
    x = case.build()
    assert x.mask is not None
    want = expected(subject.profile, x)
    additive = x.but(mask=None, bias=np.where(x.mask, 0.0, -np.inf))
    out = x.through(subject)
    same_empty = subject.profile.get("empty_row_bias", subject.profile.get("empty_row")) == subject.profile.get("empty_row")
    some = visible(subject.profile, x).any(-1, keepdims=True) | same_empty
    within(
        np.where(some, additive.through(subject), 0.0),
        np.where(some, out, 0.0),
        2 * want.error,
        "output under the additive mask against the boolean one",
        why=f"twice the {want.why}",
    )
    full, none = x.but(mask=np.ones_like(x.mask)), x.but(mask=None)
    unmasked = expected(subject.profile, none)
    within(
        full.through(subject),
        none.through(subject),
        2 * unmasked.error,
        "output under a mask that hides nothing",
        why=unmasked.why,
    )


@claim(
    "mask.composes-with-bias",
    level="must",
    handle="MK13",
    idea="I25",
    source=TORCH,
    needs=("mask-and-bias",),
    given=Cases(mask="always", kinds=("bool",)),
    within="bound",
    about="mask",
    mutants=("mask.bias_dropped", "layout.window_drops_mask", "mask.decode_ignores_mask"),
    proof=("mask.minus-infinity-hides",),
)
def mask_composes_with_bias(subject: Attention, case: Case) -> None:
    """A boolean mask beside a bias is the bias with -inf where the mask hides."""
    x = case.build()
    assert x.mask is not None
    bias = numbers.normal(case.seed, "bias", x.mask.shape)
    both, one = x.but(bias=bias), x.but(mask=None, bias=np.where(x.mask, bias, -np.inf))
    want = expected(subject.profile, both)
    some = visible(subject.profile, both).any(-1, keepdims=True)
    within(
        np.where(some, both.through(subject), 0.0),
        np.where(some, one.through(subject), 0.0),
        2 * want.error,
        "output under mask and bias against the bias that holds both",
        why=f"twice the {want.why}",
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
)
def causal_flag_is_triangular_mask(subject: Attention, case: Case) -> None:
    """The causal flag is the triangular mask of the subject's alignment, also where T and S differ."""
    x = case.build()
    triangle = causal_mask(x.q.shape[2], x.k.shape[2], subject.profile.alignment)
    axes = subject.profile.get("mask_axes", ("TS",))
    shape = (*x.q.shape[:3], x.k.shape[2]) if "TS" not in axes else triangle.shape
    explicit = x.but(causal=False, mask=np.broadcast_to(triangle, shape).copy())
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        explicit.through(subject),
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
        allowed = want.error[:, :, t : t + 1] + expected(subject.profile, step).error[:, :, -1:]
        within(
            parallel[:, :, t : t + 1],
            step.through(subject)[:, :, -1:],
            allowed,
            f"row {t} of the parallel run against step {t} alone",
            why=f"sum of two {want.why}",
        )


@claim(
    "mask.window",
    level="must",
    handle="MK14",
    idea="I25",
    source=Source("arXiv:2004.05150", "3.1"),
    needs=("window", "mask"),
    given=Cases(window="always", mask="never"),
    within="bound",
    about="window",
    mutants=("layout.window_off_by_one", "layout.window_per_chunk", "mask.decode_ignores_mask"),
    proof=("mask.minus-infinity-hides",),
)
def window_is_band_mask(subject: Attention, case: Case) -> None:
    """A sliding window of w is the band mask of the current key and the w - 1 before it."""
    x = case.build()
    assert x.window is not None
    queries, keys = x.q.shape[2], x.k.shape[2]
    alignment, side = subject.profile.alignment, subject.profile.get("window", "left")
    band = np.broadcast_to(window_mask(queries, keys, x.window, alignment, side), (*x.q.shape[:3], keys))
    if x.causal:
        band = band & causal_mask(queries, keys, alignment)
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        x.but(window=None, causal=False, mask=band.copy()).through(subject),
        2 * want.error,
        f"output under a window of {x.window} against the band mask",
        why=f"twice the {want.why}",
    )


EMPTY = Cases(mask="always", kinds=("bool", "bias"), empty="always", window="never", causal="never")


@claim(
    "mask.empty-row",
    level="should",
    handle="MK11",
    idea="I25",
    source=TORCH,
    needs=("mask",),
    given=EMPTY,
    within="exact, bound",
    promoted_by="empty_row",
    about="empty",
    mutants=("batch.all_empty_is_unmasked", "mask.empty_row_nan", "mask.decode_ignores_mask"),
)
def empty_row_is_finite(subject: Attention, case: Case) -> None:
    """A query that may attend to nothing gives what is declared or promised, else zero or the mean of the values."""
    x = case.build()
    want, out = expected(subject.profile, x), x.through(subject)
    empty = ~visible(subject.profile, x).any(-1, keepdims=True)
    policy = subject.profile.get("empty_row" if x.bias is None else "empty_row_bias", subject.profile.get("empty_row"))
    if subject.profile.promises("empty_row") or policy in ("zero", "mean"):
        filled, what = np.where(empty, want.out, 0.0), "a row that sees no key"
        within(np.where(empty, out, 0.0), filled, want.error, what, why=want.why, rival=1.0)
    else:  # NaN, or the mask silently dropped, and nobody declared it
        what = f"a row that sees no key ({policy}, found by probing)"
        within(np.where(empty, out, 0.0), np.zeros_like(out), np.zeros(1), what, why="nothing to attend to gives zero")


@claim(
    "mask.empty-row-alone",
    level="must",
    handle="MK12",
    idea="I25",
    source=TORCH,
    needs=("mask",),
    given=EMPTY,
    within="bound",
    about="empty",
    mutants=("batch.bias_of_first", "batch.mask_of_first", "batch.mask_swapped_with_heads"),
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
