"""Fixed cases, tried first in every run: every two options together, at sizes that differ in every axis, and the edges of
blocks.

Whatever the seed, a run has looked at these; what Hypothesis draws comes on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnspec.properties.admitted import (
    SCORE_KINDS,
    STORAGES,
    VALUE_KINDS,
    Axis,
    empty_rows,
    enough_keys,
    mask_axes,
    zero_axes,
    zero_rows,
)
from attnspec.properties.case import Call, Case, Mask, MaskKind, MaskPattern, Plant, Sizes, Values
from attnspec.properties.fitting import fitted
from attnspec.properties.showcases_pairs import covering
from attnspec.properties.subject import Profile

if TYPE_CHECKING:
    from attnspec.properties.strategies import Cases

EDGES = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)  # around the block sizes of real kernels
# Each of the other sizes beyond what is drawn, and past the widths that kernels are written for.
WIDE: tuple[dict[str, Any], ...] = (
    {"batch": 5, "heads": 1},
    {"batch": 1, "heads": 12},
    *({"batch": 1, "heads": 1, "width": n} for n in (17, 33, 65, 129)),
    *({"batch": 1, "heads": 1, "channels": n} for n in (17, 33, 65, 129)),
)
SHAPES = ((5, 7), (1, 6), (7, 5), (6, 6))  # fewer queries than keys, one of them, more, as many
PATTERNS: tuple[MaskPattern, ...] = ("random", "band", "prefix")
KEY_PATTERNS: tuple[MaskPattern, ...] = ("padding", "random", "left-padding")


def showcases(
    want: Cases, claim: str, profile: Profile, dtype: str, *, brief: bool = False, extra_size: int = 0
) -> list[Case]:
    """The fixed cases of a claim for one subject, without repetitions.

    `brief` leaves the pairs of options and a part of the edges; sizes that are no edges are larger by `extra_size`.
    """
    make = _Maker(want, claim, profile, dtype, extra_size)
    cases = _pairs(make) + _kinds(make) + _equal_widths(make)
    if not brief:
        cases += _options(make)
    if want.grid:
        edges = _edges(_Maker(want, claim, profile, dtype))
        cases += edges[::3] if brief else edges
    return list({case.canonical(): case for case in cases}.values())


class _Maker:
    """Makes cases of given sizes and options that the claim wants and the subject admits."""

    def __init__(self, want: Cases, claim: str, profile: Profile, dtype: str, extra_size: int = 0) -> None:
        self.want, self.claim, self.profile, self.dtype, self.extra_size = want, claim, profile, dtype, extra_size
        self.causal = want.admits("causal", profile)

    def __call__(
        self,
        queries: int,
        keys: int,
        mask: Mask | None = None,
        *,
        batch: int = 2,
        heads: int = 6,
        width: int = 4,
        channels: int = 8,
        v_gain: float = 1.0,
        peaked: bool = False,
        kinds: int | None = None,
        empty: str = "",
        zero: Axis | None = None,
        storage: Any = "plain",
        **call: Any,
    ) -> Case:
        want, offers = self.want, self.profile.offers
        # One query is a branch of its own, and so is one key.
        queries, keys = queries + self.extra_size * (queries > 1), keys + self.extra_size * (keys > 1)
        batch, width, channels = batch + self.extra_size, width + self.extra_size, channels + self.extra_size
        heads += 2 * self.extra_size  # an even number stays even, so that it has groups, and an odd one odd
        if mask is None and want.mask == "always":
            kind = want.mask_kinds(self.profile)[0]
            mask = Mask(kind, axes=mask_axes(self.profile, kind, per_row=want.empty == "always")[0])
        if want.causal == "always" or not offers("non-causal"):
            call["causal"] = True
        if mask is not None and call.get("causal") and not offers("mask-and-causal"):
            if want.mask == "always":
                call.pop("causal")
            else:
                mask = None
        always = {"scale": want.scales[-1], "window": 3, "softcap": 2.0, "sinks": True, "dropout": want.dropouts[0]}
        for option, value in always.items():
            if getattr(want, option) == "always":
                call.setdefault(option, value)
        queries, keys = max(queries, want.at_least.get("T", 1)), max(keys, want.at_least.get("S", 1))
        if want.square or not offers("rectangular"):
            queries = keys = max(queries, keys)
        if not offers("causal-rectangular"):  # then T and S may have to be equal
            queries = max(queries, want.at_least.get("S", 1))
        zero = zero or (zero_axes(want, self.profile)[0] if want.zero else None)
        queries, keys = queries * (zero != "T"), keys * (zero != "S")
        keys = enough_keys(self.profile, queries, keys, causal=bool(call.get("causal")), window="window" in call)
        sizes = self._sizes(queries, keys, batch * (zero != "B"), heads, width, channels * (zero != "E"))
        return fitted(
            Case(
                claim=self.claim,
                dtype=self.dtype,
                sizes=sizes,
                call=Call(**call),
                mask=None if mask is None else self._mask(mask, sizes, empty, window="window" in call),
                values=(
                    self._peaked(sizes)
                    if peaked
                    else {n: self._values(n, v_gain if n == "v" else 1.0) for n in "qkv"}
                    if kinds is None
                    else {n: self._kind(n, kinds, sizes) for n in "qkv"}
                ),
                plant=tuple(Plant(p.array, p.where, self._position(p, sizes), p.value) for p in want.plant),
                seed=1,
                storage=storage,
            )
        )

    def _mask(self, mask: Mask, sizes: Sizes, empty: str, *, window: bool) -> Mask:
        """The mask as this claim and subject need it: with empty rows, or without what a window would empty."""
        want, profile = self.want, self.profile
        axes, pattern, rows = mask.axes, mask.pattern, mask.empty
        if window and not zero_rows(profile):
            axes = axes if "T" in axes else mask_axes(profile, mask.kind, per_row=True)[0]
            pattern = pattern if "T" in axes and sizes.T == sizes.S else "none"
        drawn = want.empty == "drawn" and zero_rows(profile) and pattern != "normal" and mask.finite is None
        if want.empty == "always" or (drawn and empty):
            rows = empty_rows(empty or "row", sizes, axes, 0, sizes.T - 1)
        return Mask(mask.kind, pattern, mask.keep, axes, rows, mask.finite)

    def _position(self, plant: Plant, sizes: Sizes) -> int:
        return min(sizes.T // 2, max(0, sizes.T - 2)) if plant.where == "after" else 0

    def _sizes(self, queries: int, keys: int, batch: int, heads: int, width: int, channels: int) -> Sizes:
        want, offers = self.want, self.profile.offers
        pinned = want.sizes
        keys = pinned.get("S", keys)
        heads = pinned.get("H", heads) if offers("heads") else 1
        width = pinned.get("D", width)
        channels = keys if want.identity else channels if offers("value-width") else width
        grouped = want.wants_groups(self.profile) and heads >= 4 and heads % 2 == 0
        return Sizes(
            B=pinned.get("B", batch) if offers("batch") else 1,
            H=heads,
            G=heads // 2 if grouped else heads,
            T=pinned.get("T", queries),
            S=keys,
            D=channels if want.identity and not offers("value-width") else width,
            E=pinned.get("E", channels),
        )

    def _peaked(self, sizes: Sizes) -> dict[str, Values]:
        """The first and the last key count most: in 16 bits a mean of many equal terms has no bound that says anything."""
        plain = {name: self._values(name, 1.0) for name in "qkv"}
        if {"q", "k"} & set(self.want.values):
            return plain
        return plain | {"q": Values("ones", 1 / 32), "k": Values("peak", 1.0, (0, sizes.S - 1))}

    def _kind(self, name: str, i: int, sizes: Sizes) -> Values:
        """The i-th kind that the array may have, the nastiest first, and the i-th gain from the largest down."""
        if name == "v" and self.want.identity:
            return Values("one-hot")
        kinds = self.want.values.get(name, VALUE_KINDS if name == "v" else SCORE_KINDS)
        kind, gains = kinds[-1 - i % len(kinds)], sorted(self.want.gains, reverse=True)
        last = (sizes.T if name == "q" else sizes.S) - 1
        return Values(kind, gains[i % len(gains)], (max(0, last - i),) if kind in ("needle", "peak") else ())

    def _values(self, name: str, gain: float) -> Values:
        if name == "v" and self.want.identity:
            return Values("one-hot")
        kind = self.want.values.get(name, ("fine",))[0]
        return Values(kind, gain * self.want.gains[0], (1,) if kind in ("needle", "peak") else ())


def _pairs(make: _Maker) -> list[Case]:
    """Every two settings of the options together."""
    want, profile = make.want, make.profile
    kinds: list[MaskKind] = want.mask_kinds(profile)
    both = profile.offers("mask-and-causal")
    settings: dict[str, list[Any]] = {
        "shape": [SHAPES[-1]] if want.square or not profile.offers("rectangular") else [*SHAPES]
    }
    settings["causal"] = [False, True] if make.causal and (both or want.mask != "always") else [False]
    if want.causal == "always" or not profile.offers("non-causal"):
        settings["causal"], kinds = [True], kinds if both else []
    settings["kind"] = [*kinds] if kinds and want.mask == "always" else [None, *kinds]
    settings["heads"] = [3, 6] if want.wants_groups(profile) and want.grouped != "always" else [6]
    for option, value in {"window": 3, "softcap": 2.0, "scale": want.scales[-1], "sinks": True}.items():
        settings[option] = [None, value] if getattr(want, option) == "drawn" and profile.offers(option) else [None]
    settings["dropout"] = [None, want.dropouts[0]] if want.dropout == "drawn" and profile.offers("dropout") else [None]
    settings["storage"] = ["plain", "other"] if want.storage == "drawn" else ["plain"]
    names = list(settings)
    apart = ((names.index("causal"), names.index("kind")),) if not both and len(settings["causal"]) > 1 else ()
    cases: list[Case] = []
    masks = 0
    for i, row in enumerate(covering(tuple(len(s) for s in settings.values()), apart)):
        call = {name: settings[name][level] for name, level in zip(names, row, strict=True)}
        (queries, keys), kind, heads = call.pop("shape"), call.pop("kind"), call.pop("heads")
        storage = STORAGES[1 + i % (len(STORAGES) - 1)] if call.pop("storage") == "other" else "plain"
        zero = zero_axes(want, profile)[i % len(zero_axes(want, profile))] if want.zero else None
        options = {name: value for name, value in call.items() if value}
        mask = _mask(make, kind, masks) if kind else None
        masks += kind is not None
        cases.append(
            make(
                queries,
                keys,
                mask,
                heads=heads,
                storage=storage,
                zero=zero,
                empty=("row", "sample", "all", "")[i % 4],
                **options,
            )
        )
    return cases


def _mask(make: _Maker, kind: MaskKind, i: int) -> Mask:
    """The i-th mask: another shape, another pattern, another way to hide."""
    want = make.want
    accepted = mask_axes(make.profile, kind, per_row=want.empty == "always")
    axes = accepted[(1 + 5 * i) % len(accepted)]  # of all axes first, then of one for each head, of one for all, ...
    pattern = (PATTERNS if "T" in axes else KEY_PATTERNS)[i % 3]
    if kind == "bool" or want.empty == "always":
        return Mask(kind, pattern, axes=axes)
    if i % 4 == 2:
        return Mask(kind, "normal", axes=axes)
    return Mask(kind, pattern, axes=axes, finite=want.finite[i // 2 % len(want.finite)])


def _kinds(make: _Maker) -> list[Case]:
    """Each kind of numbers once, small and large, beside the causal flag in turn."""
    causal: list[dict[str, Any]] = [{}, {"causal": True}] if make.causal else [{}]
    return [make(5, 7, kinds=i, **causal[i % len(causal)]) for i in range(len(SCORE_KINDS))]


def _equal_widths(make: _Maker) -> list[Case]:
    """Values as wide as keys: fused kernels are written for that alone, and other calls take another path."""
    causal: dict[str, Any] = {"causal": True} if make.causal else {}
    return [make(5, 7, width=4, channels=4), make(6, 6, width=4, channels=4, **causal)]


def _options(make: _Maker) -> list[Case]:
    """What one option has more than two settings of, for claims that are about the option or about everything."""
    want, profile = make.want, make.profile
    causal: list[dict[str, Any]] = [{}, {"causal": True}] if make.causal else [{}]
    cases = [make(4, 7, **flag) for flag in causal] + [make(7, 4, **flag) for flag in causal]
    cases += [make(1, 5, **flag) for flag in causal] + [make(1, 1, heads=3), make(2, 1)]
    for i, kind in enumerate(want.mask_kinds(profile)):
        if want.mask == "always" or want.grid:
            for axes in mask_axes(profile, kind, per_row=want.empty == "always"):
                cases.append(make(5, 7, Mask(kind, "random" if "T" in axes else "padding", axes=axes), heads=3))
            # Where sizes agree, an axis of a mask may be taken for another.
            per_row = [a for a in mask_axes(profile, kind, per_row=True) if len(a) < 4]
            cases += [make(3, 7, Mask(kind, axes=axes), batch=3, heads=3) for axes in per_row]
            if want.empty != "never":
                axes = mask_axes(profile, kind, per_row=True)[0]
                cases += [make(5, 7, Mask(kind, axes=axes), empty=which, heads=3) for which in ("row", "sample", "all")]
        elif per_head := [a for a in mask_axes(profile, kind, per_row=want.empty == "always") if "H" in a]:
            cases.append(make(5, 7, Mask(kind, "random" if "T" in per_head[0] else "padding", axes=per_head[0]), heads=3))
        if kind == "bias" and want.empty != "always":
            axes = mask_axes(profile, kind, per_row=True)[0]
            if want.mask == "always" or want.grid:
                cases += [make(5, 7, Mask(kind, axes=axes, finite=finite), heads=3) for finite in want.finite]
            cases.append(make(5, 7, Mask(kind, "normal", axes=axes), heads=3))
        if make.causal:
            rows = mask_axes(profile, kind, per_row=True)
            cases.append(make(6, 6, Mask(kind, "random", axes=rows[i % len(rows)]), causal=True, heads=3))
    if want.admits("scale", profile):
        cases += [make(5, 7, scale=scale) for scale in want.scales[:2]]
    if want.admits("window", profile) and (want.window == "always" or want.grid):
        cases += [make(8, 8, window=w, **flag) for w in (1, 3, 9) for flag in causal]
    if want.storage == "drawn":
        # About a block of 8, with every remainder by 4.
        cases += [make(5, n, storage=storage) for storage in STORAGES[1:] for n in (6, 7, 8, 9)]
    return cases


def _edges(make: _Maker) -> list[Case]:
    """Square with and without the causal flag, long against short, masks that hide whole blocks, and every other size."""
    causal: dict[str, Any] = {"causal": True} if make.causal else {}
    long: dict[str, Any] = {"batch": 1, "peaked": make.dtype in ("bfloat16", "float16")}
    cases = [make(4, 6, **one) for one in WIDE] + [make(4, 6, batch=1, heads=1, v_gain=2.0**20)]
    for kind in make.want.mask_kinds(make.profile):
        rows, keys = mask_axes(make.profile, kind, per_row=True)[0], mask_axes(make.profile, kind, per_row=False)[-1]
        cases += [make(3, n, Mask(kind, "random", axes=rows), heads=2, **long) for n in (65, 129, 257)]
        cases += [make(3, n, Mask(kind, p, 0.125, keys), heads=2, **long) for n in (65, 129, 257) for p in ("last", "first")]
    for i, n in enumerate(EDGES):
        if n < 100:
            cases += [make(n, n, heads=2, **long, **(causal if i % 2 else {}))]
            cases += [make(3, n, heads=2, **long), make(n, 3, heads=4, **long)]
        elif n in (129, 257):
            cases += [make(n, n, heads=1, **long, **causal)]
        else:
            cases += [make(2, n, heads=1, **long)]
    return [*cases, make(2, 513, heads=1, **long)]
