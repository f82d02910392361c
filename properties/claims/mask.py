"""Claims on masks: every way to hide a key is the same, in every shape and in every combination."""

from __future__ import annotations

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import MASK_AXES, Case, Inputs, MaskKind
from attnspec.properties.claim import Source, claim
from attnspec.properties.claims.hidden import SMALL, TORCH, weakly_hidden
from attnspec.properties.compare import nonzero, same_bits, within
from attnspec.properties.oracle import expected, output, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention, BoolArray, FloatArray, Profile
from attnspec.properties.twins import Honest
from attnspec.reference.mask import causal_mask, window_mask

ROOMY = ("TS", "1TS", "11TS", "HTS", "B1TS", "1HTS", "BHTS")  # the mask shapes with a row for each query, smallest first

NO_NUMBER = 12345.0

SMALLEST = {"float64": 2.0**-1000, "float32": 2.0**-120, "bfloat16": 2.0**-120, "float16": 2.0**-13}  # in the normal range


def hidden_except(profile: Profile, x: Inputs, seen: BoolArray, kind: MaskKind) -> Inputs:
    """The inputs with what is not `seen` hidden too, by a mask of this kind in the smallest shape that takes it."""
    if kind == "bool":
        return x.but(mask=_in_shape(profile, x, seen if x.mask is None else x.mask & seen, kind))
    return x.but(bias=_in_shape(profile, x, np.where(seen, 0.0 if x.bias is None else x.bias, -np.inf), kind))


def _in_shape(profile: Profile, x: Inputs, array: np.ndarray, kind: MaskKind) -> np.ndarray:
    """The array, broadcast to the smallest shape that the subject accepts and that has a row for each query."""
    accepted = profile.get("mask_axes" if kind == "bool" else "bias_axes", MASK_AXES)
    sizes = {"1": 1, "B": x.q.shape[0], "H": x.q.shape[1], "T": x.q.shape[2], "S": x.k.shape[2]}
    needed = tuple(array.shape)
    while len(needed) > 2 and needed[0] == 1:
        needed = needed[1:]
    full = tuple(sizes[a] for a in "BHTS")
    shapes = [tuple(sizes[a] for a in axes) for axes in ROOMY if axes in accepted]
    fits = (s for s in shapes if len(s) >= len(needed) and np.broadcast_shapes(s, full) == full and _holds(s, needed))
    return np.broadcast_to(array.reshape(needed), next(fits, full)).copy()


def _holds(shape: tuple[int, ...], needed: tuple[int, ...]) -> bool:
    return all(n in (1, m) for n, m in zip(needed[::-1], shape[::-1], strict=False))


def one_key_on(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a mask that is not given in full, for every head and query, is read one key further on."""
    full = (*x.q.shape[:3], x.k.shape[2])
    moved = {n: np.roll(a, 1, -1) for n in ("mask", "bias") if (a := getattr(x, n)) is not None and a.shape != full}
    return honest(x.but(**moved))


def column_is_the_first_key(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a mask with one column holds for key 0 only."""
    keys = x.k.shape[2]
    first = np.arange(keys) == 0
    if x.mask is not None and x.mask.shape[-1] == 1 < keys:
        return honest(x.but(mask=x.mask | ~first))
    if x.bias is not None and x.bias.shape[-1] == 1 < keys:
        return honest(x.but(bias=np.where(first, x.bias, 0.0)))
    return honest(x)


def mask_alone(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: of a mask and a causal flag, a window or a bias only the mask reaches the kernel."""
    return honest(x.but(causal=False, window=None, bias=None if x.mask is not None else x.bias))


def without_first_key(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: what is hidden keeps a little weight, and the first key has none."""
    out = weakly_hidden(honest, x).copy()
    out[..., 0] = 0.0
    return out


def negative_hides(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: a negative bias hides its key and any other is ignored."""
    return honest(x.but(bias=None if x.bias is None else np.where(x.bias < 0, -np.inf, 0.0)))


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
    twin=lambda honest, x: honest(x) if x.mask is None else weakly_hidden(honest, x),
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
    twin=mask_alone,
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
    "mask.one-column",
    level="must",
    handle="MK8",
    idea="I25",
    source=Source("array API standard", "broadcasting"),
    needs=("mask-column",),
    given=Cases(mask="always", causal="never", window="never", scale="never", softcap="never"),
    within="bound",
    about="mask",
    mutants=("rank.key_axis_not_broadcast",),
    twin=column_is_the_first_key,
)
def one_column_holds_for_every_key(subject: Attention, case: Case) -> None:
    """A mask with one column says the same as with that column repeated for every key."""
    x = case.build()
    name = "mask" if x.bias is None else "bias"
    whole = getattr(x, name)
    column = whole[..., :1]
    if subject.profile.get("empty_row") == "raises":  # nothing else hides a key here: a row sees all of them or none
        column = np.ones_like(column) if name == "mask" else np.where(np.isneginf(column), 0.0, column)
    narrow, full = x.but(**{name: column}), x.but(**{name: np.broadcast_to(column, whole.shape).copy()})
    want = expected(subject.profile, full)
    within(
        np.nan_to_num(narrow.through(subject), nan=NO_NUMBER),  # an empty row may be NaN, in both
        np.nan_to_num(full.through(subject), nan=NO_NUMBER),
        2 * want.error,
        "output under a mask with one column against that column repeated",
        why=f"twice the {want.why}",
    )


@claim(
    "mask.beside-causal",
    level="must",
    handle="MK13",
    idea="I25",
    source=TORCH,
    needs=("mask-and-causal", "non-causal"),
    given=Cases(
        mask="always",
        finite=SMALL,
        causal="always",
        window="never",
        scale="never",
        softcap="never",
        empty="never",
        at_least={"T": 2, "S": 2},
        sizes={"D": 4, "E": 4},  # fused kernels, which take a mask beside the flag where others refuse, ask for D = E
    ),
    within="bound",
    about="mask",
    mutants=("mask.dropped_with_causal", "mask.union_with_causal"),
    proof=("mask.minus-infinity-hides",),
    twin=mask_alone,
)
def mask_beside_causal_is_intersection(subject: Attention, case: Case) -> None:
    """A mask beside the causal flag hides what either of them hides."""
    x = case.build()
    triangle = causal_mask(x.q.shape[2], x.k.shape[2], subject.profile.alignment)
    _same_as_merged(subject, x, x.but(causal=False), triangle, "a mask beside the causal flag")


@claim(
    "mask.beside-window",
    level="must",
    handle="MK13",
    idea="I25",
    source=Source("arXiv:2004.05150", "3.1"),
    needs=("window",),
    given=Cases(mask="always", finite=SMALL, causal="never", window="always", scale="never", softcap="never", empty="never"),
    within="bound",
    about="window",
    mutants=("layout.window_drops_mask",),
    proof=("mask.minus-infinity-hides",),
    twin=mask_alone,
)
def mask_beside_window_is_intersection(subject: Attention, case: Case) -> None:
    """A mask beside a window hides what either of them hides."""
    x = case.build()
    assert x.window is not None
    side = subject.profile.get("window", "left")
    band = window_mask(x.q.shape[2], x.k.shape[2], x.window, subject.profile.alignment, side)
    _same_as_merged(subject, x, x.but(window=None), band, "a mask beside a window")


def _same_as_merged(subject: Attention, x: Inputs, plain: Inputs, seen: BoolArray, what: str) -> None:
    merged = hidden_except(subject.profile, plain, seen, "bool" if x.mask is not None else "bias")
    want = expected(subject.profile, x)
    within(
        x.through(subject),
        merged.through(subject),
        2 * want.error,
        f"output under {what} against one mask of both",
        why=f"twice the {want.why}",
    )


@claim(
    "mask.broadcasts",
    level="must",
    handle="MK8",
    idea="I25",
    source=TORCH,
    given=Cases(mask="always", causal="never", window="never", scale="never", softcap="never", empty="never"),
    within="bound",
    about="mask",
    mutants=("mask.key_padding_inverted", "batch.mask_swapped_with_heads", "heads.mask_first_head"),
    twin=one_key_on,
)
def mask_broadcasts_as_declared(subject: Attention, case: Case) -> None:
    """A mask of any accepted shape is that mask written out for every batch row, head and query."""
    x = case.build()
    full = (*x.q.shape[:3], x.k.shape[2])
    kind = "mask" if x.mask is not None else "bias"
    accepted = subject.profile.get(f"{kind}_axes", MASK_AXES)
    given = getattr(x, kind)
    if "BHTS" not in accepted:  # such as a function without batch and heads: each query at least
        full = full[2:] if _holds(full[2:], given.shape) else given.shape
    spread = x.but(**{kind: np.broadcast_to(given, full).copy()})
    out, want = x.through(subject), expected(subject.profile, x)
    within(out, want.out, want.error, f"output under a mask of shape {given.shape}", why=want.why)
    within(
        out,
        spread.through(subject),
        2 * want.error,
        f"output under a mask of shape {given.shape} against the same of shape {full}",
        why=f"twice the {want.why}",
    )


@claim(
    "mask.packed-sequences",
    level="must",
    handle="MK18",
    idea="I03",
    source=Source("arXiv:2107.02027", "3.2"),
    needs=("mask",),
    given=Cases(mask="always", kinds=("bool",), window="never", scale="never", square=True, at_least={"T": 2, "S": 2}),
    within="bound",
    about="mask",
    mutants=("mask.multiplied", "mask.minus_ten", "mask.added_as_number"),
    proof=("mask.minus-infinity-hides",),
    twin=weakly_hidden,
)
def packed_is_separate(subject: Attention, case: Case) -> None:
    """Two sequences packed into one, under a mask of two blocks, give what each gives alone."""
    x = case.build()
    length = x.q.shape[2]
    cut = 1 + case.seed % (length - 1)
    second = np.arange(length) >= cut
    packed = hidden_except(subject.profile, x.but(mask=None), second[:, None] == second, "bool")
    out, want = packed.through(subject), expected(subject.profile, packed)
    for rows in (slice(0, cut), slice(cut, length)):
        alone = x.but(mask=None, q=x.q[:, :, rows], k=x.k[:, :, rows], v=x.v[:, :, rows])
        what = f"rows {rows.start} to {rows.stop - 1} of the packed run against that sequence alone"
        why = f"the same keys twice: twice the {want.why}"
        within(out[:, :, rows], alone.through(subject), 2 * want.error[:, :, rows], what, why=why)


@claim(
    "mask.zero-where-hidden",
    level="must",
    handle="MK18",
    idea="I25",
    source=TORCH,
    given=Cases(
        identity=True,
        finite=SMALL,
        scale="never",
        empty="never",
        gains=(1.0, 0.5),
        values={"q": ("normal", "integers"), "k": ("normal", "integers")},
    ),
    within="exact",
    mutants=("mask.minus_ten", "mask.added_as_number"),
    proof=("mask.minus-infinity-hides",),
    twin=without_first_key,
)
def weights_are_zero_exactly_where_hidden(subject: Attention, case: Case) -> None:
    """A weight is exactly zero where mask, causal flag or window hide the key, and not zero where none does."""
    x = case.build()
    weights = x.through(subject)
    seen = visible(subject.profile, x)
    some = seen.any(-1, keepdims=True)
    hidden = np.where(some & ~seen, weights, 0.0)
    same_bits(hidden, np.zeros_like(hidden), "weight of a hidden key", live=bool((some & ~seen).any()))
    large = output(subject.profile, x) >= SMALLEST[case.dtype]  # others may underflow
    nonzero(weights, seen & large, "weight of a visible key")


@claim(
    "mask.bias-is-added",
    level="must",
    handle="MK5",
    idea="I25",
    source=TORCH,
    needs=("bias",),
    given=Cases(mask="never", window="never", softcap="never", empty="never"),
    within="bound",
    about="bias",
    mutants=("state.bias_as_mask_without_grad", "scale.bias_scaled"),
    twin=negative_hides,
)
def finite_bias_is_added(subject: Attention, case: Case) -> None:
    """Finite biases such as -2 and -3 are added to the scaled scores: one more channel of q and k does the same."""
    x = case.build()
    queries, keys, width = x.q.shape[2], x.k.shape[2], x.q.shape[3] + 1
    scale = width**-0.5 if x.scale is None else x.scale
    row, column = 1.0 + np.arange(queries)[:, None] % 2, numbers.below(5, case.seed, "bias", (keys,)) - 3.0
    if not subject.profile.offers("value-width"):  # then v grows by a channel too
        x = x.but(v=np.concatenate([x.v, np.zeros_like(x.v[..., :1])], -1))
    q, k = np.broadcast_to(row, (*x.q.shape[:3], 1)), np.broadcast_to(column[:, None], (*x.k.shape[:3], 1))
    channel = numbers.rounded(k / scale, case.dtype)
    bias = _in_shape(subject.profile, x, row * column, "bias")
    added = x.but(q=np.concatenate([x.q, 0 * q], -1), k=np.concatenate([x.k, 0 * k], -1), bias=bias)
    scored = x.but(q=np.concatenate([x.q, q], -1), k=np.concatenate([x.k, channel], -1))
    one, other = expected(subject.profile, added), expected(subject.profile, scored)
    within(
        added.through(subject) - scored.through(subject),
        one.out - other.out,  # not zero, as the channel is rounded to the dtype
        one.error + other.error,
        "output with a bias less the output with a channel in its place",
        why=f"sum of two {one.why}",
    )
