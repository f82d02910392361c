"""Smaller cases of the same kind: how a fixed case that fails is reduced.

Hypothesis shrinks what it has drawn. A fixed case was not drawn, so it is reduced here: one field at a time towards the
plainest value, as long as the claim still fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec.structs import replace

from attnspec.properties.admitted import enough_keys, mask_axes
from attnspec.properties.case import Case, Mask, Plant, Sizes, Values
from attnspec.properties.fitting import fitted
from attnspec.properties.subject import Profile

if TYPE_CHECKING:
    from attnspec.properties.strategies import Cases


def reduced(case: Case, ways: Callable[[Case], Iterator[Case]], fails: Callable[[Case], bool]) -> Case:
    """The smallest case that `fails` on the way from `case` through simpler ones, which `ways` gives."""
    candidates = ways(case)
    while (candidate := next(candidates, None)) is not None:
        if fails(candidate):
            case, candidates = candidate, ways(candidate)
    return case


def simpler(case: Case, given: Cases, profile: Profile) -> Iterator[Case]:
    """The case with one thing less, in the ways that the claim's cases and the subject admit."""
    for candidate in (*_without_options(case, given, profile), *_smaller(case, given, profile), *_plainer(case, given)):
        held = fitted(candidate)
        if held.canonical() != case.canonical() and _admissible(held, profile):
            yield held


def _without_options(case: Case, given: Cases, profile: Profile) -> Iterator[Case]:
    nothing = {"scale": None, "softcap": None, "window": None, "causal": False, "sinks": False, "dropout": 0.0}
    for option, none in nothing.items():
        if getattr(given, option) == "drawn" and (option != "causal" or profile.offers("non-causal")):
            yield case.but(call=replace(case.call, **{option: none}))
    if case.mask is not None:
        if given.mask == "drawn":
            yield case.but(mask=None)
        if given.empty != "always":
            yield case.but(mask=replace(case.mask, empty=()))
        if len(case.mask.empty) > 1:
            yield case.but(mask=replace(case.mask, empty=case.mask.empty[:1]))
        if case.mask.finite is not None:
            yield case.but(mask=replace(case.mask, finite=given.finite[0]))
        yield from _plainer_mask(case, case.mask, given, profile)
    if case.storage != "plain":
        yield case.but(storage="plain")


def _plainer_mask(case: Case, mask: Mask, given: Cases, profile: Profile) -> Iterator[Case]:
    """Of fewer axes, as far as the subject takes them; where rows are empty, those that tell rows apart stay."""
    accepted = mask_axes(
        profile, mask.kind, per_row=given.empty == "always" or bool(mask.empty) or case.call.window is not None
    )
    fewer = [a for a in accepted if len(a.replace("1", "")) < len(mask.axes.replace("1", ""))]
    if fewer:
        yield case.but(mask=replace(mask, axes=min(fewer, key=lambda a: (len(a.replace("1", "")), len(a)))))


def _smaller(case: Case, given: Cases, profile: Profile) -> Iterator[Case]:
    z = case.sizes
    square = given.square or not profile.offers("rectangular") or (z.T == z.S and case.mask is None and case.call.causal)
    ways: list[dict[str, int]] = []
    if "H" not in given.sizes and z.H > 1:
        pairs = [(h, g) for h in range(1, z.H + 1) for g in range(1, z.G + 1) if h % g == 0 and (h, g) < (z.H, z.G)]
        keep = [p for p in pairs if (p[0] > p[1] > 1 if given.grouped == "always" else p[0] >= given.at_least.get("H", 1))]
        ways += [{"H": h, "G": g} for h, g in keep if h == g or (z.H > z.G and h // g == z.H // z.G)]
    for letter in "BTSDE":
        tied: tuple[str, ...] = ("T", "S") if square and letter == "T" else (letter,)
        if letter in given.sizes or (square and letter == "S") or (given.identity and letter == "E"):
            continue
        if given.identity and "S" in tied:
            tied = (*tied, "E") if profile.offers("value-width") else (*tied, "D", "E")
        elif letter in "DE" and not profile.offers("value-width"):
            if given.identity:
                continue  # D = E = S
            tied = ("D", "E") if letter == "D" else ()
        size, least = getattr(z, letter), max((given.at_least.get(t, 1) for t in tied), default=1)
        ways += [
            dict.fromkeys(tied, n)
            for n in dict.fromkeys((least, (size + least) // 2, size - 1))
            if tied and least <= n < size
        ]
    for way in ways:
        sizes = replace(z, **way)
        mask = case.mask
        if mask is not None and mask.empty:
            mask = replace(mask, empty=_rows(mask.empty, sizes))
        yield case.but(sizes=sizes, mask=mask, plant=tuple(replace(p, t=_position(p, sizes)) for p in case.plant))


def _rows(rows: tuple[tuple[int, int], ...], sizes: Sizes) -> tuple[tuple[int, int], ...]:
    """The rows that are left, at least one."""
    left = tuple((b, t) for b, t in rows if b < sizes.B and t < sizes.T)
    return left or ((min(rows[0][0], max(0, sizes.B - 1)), min(rows[0][1], max(0, sizes.T - 1))),)


def _position(plant: Plant, sizes: Sizes) -> int:
    last = {"after": sizes.T - 2, "other-rows": sizes.B - 1}.get(plant.where, 0)
    return min(plant.t, max(0, last))


def _plainer(case: Case, given: Cases) -> Iterator[Case]:
    for name, values in case.values.items():
        if name == "v" and given.identity:
            continue
        kinds = given.values.get(name, ("zeros", "normal") if name != "v" else ("normal",))
        for kind in kinds[: kinds.index(values.kind)] if values.kind in kinds else kinds:
            yield case.but(values=case.values | {name: Values(kind, given.gains[0])})
    if any(p.value in ("redrawn", "huge") for p in case.plant):
        yield case.but(plant=tuple(replace(p, value="one") for p in case.plant))
    yield case.but(plant=tuple(replace(p, t=0) for p in case.plant))
    yield case.but(seed=0)


def _admissible(case: Case, profile: Profile) -> bool:
    z, call = case.sizes, case.call
    enough = enough_keys(profile, z.T, z.S, causal=call.causal, window=call.window is not None)
    rows = case.mask.empty if case.mask else ()
    return enough == z.S and all(b < z.B and t < z.T for b, t in rows)
