"""Fixed cases, tried first in every run: each option alone, at sizes that differ in every axis, and the edges of blocks.

Whatever the seed, a run has looked at these; what Hypothesis draws comes on top.
"""

from __future__ import annotations

from typing import Any

from attnspec.properties.case import Call, Case, Mask, Plant, Sizes, Values
from attnspec.properties.strategies import STORAGES, Cases, enough_keys, mask_axes
from attnspec.properties.subject import Profile

EDGES = (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)  # around the block sizes of real kernels
# Each of the other sizes beyond what is drawn, and past the widths that kernels are written for.
WIDE: tuple[dict[str, Any], ...] = (
    {"batch": 5, "heads": 1},
    {"batch": 1, "heads": 12},
    *({"batch": 1, "heads": 1, "width": n} for n in (17, 33, 65, 129)),
    *({"batch": 1, "heads": 1, "channels": n} for n in (17, 33, 65, 129)),
)


def showcases(want: Cases, claim: str, profile: Profile, dtype: str) -> list[Case]:
    """The fixed cases of a claim for one subject, without repetitions."""
    make = _Maker(want, claim, profile, dtype)
    cases = [*_options(make), *(_edges(make) if want.grid else ())]
    return list({case.canonical(): case for case in cases}.values())


class _Maker:
    """Makes cases of given sizes and options that the claim wants and the subject admits."""

    def __init__(self, want: Cases, claim: str, profile: Profile, dtype: str) -> None:
        self.want, self.claim, self.profile, self.dtype = want, claim, profile, dtype
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
        channels: int = 3,
        v_gain: float = 1.0,
        **call: Any,
    ) -> Case:
        want, offers = self.want, self.profile.offers
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
        for option, value in {"scale": want.scales[-1], "window": 3, "softcap": 2.0}.items():
            if getattr(want, option) == "always":
                call.setdefault(option, value)
        storage = call.pop("storage", "plain")
        if want.square or not offers("rectangular"):
            queries = keys = max(queries, keys)
        queries, keys = max(queries, want.at_least.get("T", 1)), max(keys, want.at_least.get("S", 1))
        if not offers("causal-rectangular"):  # then T and S may have to be equal
            queries = max(queries, want.at_least.get("S", 1))
        keys = enough_keys(self.profile, queries, keys, causal=bool(call.get("causal")), window="window" in call)
        sizes = self._sizes(queries, keys, batch, heads, width, channels)
        if mask is not None and want.empty == "always":
            mask = Mask(mask.kind, mask.pattern, mask.keep, mask.axes, ((0, sizes.T - 1),))
        return Case(
            claim=self.claim,
            dtype=self.dtype,
            sizes=sizes,
            call=Call(**call),
            mask=mask,
            values={name: self._values(name, v_gain if name == "v" else 1.0) for name in "qkv"},
            plant=tuple(Plant(p.array, p.where, sizes.T // 2 if p.where == "after" else 0, p.value) for p in want.plant),
            seed=1,
            storage=storage,
        )

    def _sizes(self, queries: int, keys: int, batch: int, heads: int, width: int, channels: int) -> Sizes:
        want, offers = self.want, self.profile.offers
        pinned = want.sizes
        keys = pinned.get("S", keys)
        heads = pinned.get("H", heads if offers("heads") else 1)
        width = pinned.get("D", width)
        channels = keys if want.identity else channels if offers("value-width") else width
        return Sizes(
            B=pinned.get("B", batch if offers("batch") else 1),
            H=heads,
            G=heads // 2 if want.wants_groups(self.profile) and heads >= 4 else heads,
            T=pinned.get("T", queries),
            S=keys,
            D=channels if want.identity and not offers("value-width") else width,
            E=channels,
        )

    def _values(self, name: str, gain: float) -> Values:
        if name == "v" and self.want.identity:
            return Values("one-hot")
        kind = self.want.values.get(name, ("fine",))[0]
        return Values(kind, gain * self.want.gains[0], (1,) if kind in ("needle", "peak") else ())


def _options(make: _Maker) -> list[Case]:
    want, profile = make.want, make.profile
    cases = [make(5, 7), make(1, 6), make(7, 5), make(5, 7, heads=3)]
    if make.causal:
        cases += [make(t, s, causal=True) for t, s in ((6, 6), (4, 7), (7, 4), (1, 5))]
    for kind in want.mask_kinds(profile):
        rows = mask_axes(profile, kind, per_row=True)
        for axes in mask_axes(profile, kind, per_row=want.empty == "always"):
            cases.append(make(5, 7, Mask(kind, "random" if "T" in axes else "padding", axes=axes), heads=3))
        if kind == "bias" and want.empty != "always":
            cases.append(make(5, 7, Mask(kind, "normal", axes=rows[0])))
        if make.causal:
            cases.append(make(6, 6, Mask(kind, "random", axes=rows[0]), causal=True, heads=3))
    if want.admits("scale", profile):
        cases += [make(5, 7, scale=scale) for scale in want.scales[:2]]
    if want.admits("window", profile):
        flags: list[dict[str, Any]] = [{}, {"causal": True}] if make.causal else [{}]
        cases += [make(8, 8, window=w, **flag) for w in (1, 3, 9) for flag in flags]
    if want.admits("softcap", profile):
        cases += [make(5, 7, softcap=1.0)]
    if want.storage == "drawn":
        cases += [make(5, 7, storage=storage) for storage in STORAGES[1:]]
    return cases


def _edges(make: _Maker) -> list[Case]:
    """Square with and without the causal flag, long against short, masks that hide whole blocks, and every other size."""
    causal: dict[str, Any] = {"causal": True} if make.causal else {}
    cases = [make(4, 6, **one) for one in WIDE] + [make(4, 6, batch=1, heads=1, v_gain=2.0**20)]
    for kind in make.want.mask_kinds(make.profile):
        rows, keys = mask_axes(make.profile, kind, per_row=True)[0], mask_axes(make.profile, kind, per_row=False)[-1]
        cases += [make(3, n, Mask(kind, "random", axes=rows), batch=1, heads=2) for n in (65, 129, 257)]
        cases += [make(3, n, Mask(kind, p, 0.125, keys), batch=1, heads=2) for n in (65, 129, 257) for p in ("last", "first")]
    for i, n in enumerate(EDGES):
        if n < 100:
            cases += [make(n, n, batch=1, heads=2, **(causal if i % 2 else {}))]
            cases += [make(3, n, batch=1, heads=2), make(n, 3, batch=1, heads=4)]
        elif n in (129, 257):
            cases += [make(n, n, batch=1, heads=1, **causal)]
        else:
            cases += [make(2, n, batch=1, heads=1)]
    return [*cases, make(2, 513, batch=1, heads=1)]
