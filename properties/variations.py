"""A case with one field changed, in the ways that a claim's cases and the subject admit: what a failure depends on shows so.

A changed case stays one that the claim could have drawn, so a claim about the causal flag is never tried without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from attnspec.properties.admitted import SCORE_KINDS, VALUE_KINDS, enough_keys, mask_axes
from attnspec.properties.case import Case, Mask, Values
from attnspec.properties.given import Variation
from attnspec.properties.subject import Profile

if TYPE_CHECKING:
    from attnspec.properties.strategies import Cases

SEEDS = 5
LETTERS = "BHTSDE"
KINDS = {"zeros": "zero", "normal": "random", "one-hot": "one-hot", "heavy": "of very different size"}
PLANTED = {"one": "a change by one", "redrawn": "a random change", "huge": "a huge change"}


def variations(case: Case, given: Cases, profile: Profile) -> Iterator[Variation]:
    """About thirty cases that differ from this one in one field, as far as the claim and the subject admit them."""
    case = case.but(id="", sha256="")
    seen = {case.canonical()}
    for variation in (
        *_dtypes(case, profile),
        *_seeds(case),
        *_values(case, given),
        *_options(case, given, profile),
        *_sizes(case, given, profile),
    ):
        z, call = variation.case.sizes, variation.case.call
        window = call.window is not None
        if variation.case.canonical() in seen or not _valid(variation.case):
            continue
        if enough_keys(profile, z.T, z.S, causal=call.causal, window=window) == z.S:
            seen.add(variation.case.canonical())
            yield variation


def _valid(case: Case) -> bool:
    """Whether the rows without keys, and what is planted where, still lie inside the sizes."""
    z = case.sizes
    last = {"after": z.T - 2, "other-rows": z.B - 1}
    rows = case.mask.empty if case.mask else ()
    return all(b < z.B and t < z.T for b, t in rows) and all(p.t <= last.get(p.where, p.t) for p in case.plant)


def _dtypes(case: Case, profile: Profile) -> Iterator[Variation]:
    for dtype in profile["dtypes"]:
        if dtype != case.dtype:
            yield Variation("dtype", f"in {dtype}", case.but(dtype=dtype))


def _seeds(case: Case) -> Iterator[Variation]:
    """Other seeds, where they change a number at all."""
    for seed in range(case.seed + 1, case.seed + 1 + SEEDS):
        other = case.but(seed=seed)
        if other.build().digest() != case.build().digest() or any(p.value != "one" for p in case.plant):
            yield Variation("seed", f"for seed {seed}", other)


def _values(case: Case, given: Cases) -> Iterator[Variation]:
    for name in "qkv":
        if name == "v" and given.identity:
            continue
        now = case.values.get(name, Values())
        admitted = given.values.get(name, VALUE_KINDS if name == "v" else SCORE_KINDS)
        for kind in (k for k in admitted if k in KINDS and k != now.kind):
            other = Values(kind, now.gain if kind != "zeros" else 1.0)
            yield Variation(f"values {name}", f"with {name} {KINDS[kind]}", case.but(values=case.values | {name: other}))
    drawn = any(p.value == "redrawn" for p in given.plant)
    for value in PLANTED if drawn else ():
        planted = tuple(replace(p, value=value) for p in case.plant)
        yield Variation("change", f"for {PLANTED[value]}", case.but(plant=planted))


def _options(case: Case, given: Cases, profile: Profile) -> Iterator[Variation]:
    call, z = case.call, case.sizes
    if given.causal == "drawn" and profile.offers("causal" if not call.causal else "non-causal"):
        alone = case.mask is not None and not call.causal and not profile.offers("mask-and-causal")
        if not alone:
            word = "without the causal flag" if call.causal else "with the causal flag"
            yield Variation("causal", word, case.but(call=replace(call, causal=not call.causal)))
    for option, none in (("scale", None), ("window", None), ("softcap", None), ("sinks", False), ("dropout", 0.0)):
        if getattr(given, option) == "drawn" and getattr(call, option) != none:
            yield Variation(option, f"without {option}", case.but(call=replace(call, **{option: none})))
    if given.scale == "drawn" and call.scale is None and profile.offers("scale"):
        yield Variation("scale", "with a scale", case.but(call=replace(call, scale=given.scales[-1])))
    if case.mask is not None:
        yield from _masks(case, case.mask, given, profile)
    elif (kinds := given.mask_kinds(profile)) and (not call.causal or profile.offers("mask-and-causal")):
        open_mask = Mask(kinds[0], "none", axes=mask_axes(profile, kinds[0], per_row=True)[0])
        yield Variation("mask", "with a mask that hides nothing", case.but(mask=open_mask))
    if given.storage == "drawn":
        for storage in ("plain", "strided", "transposed"):
            if storage != case.storage:
                yield Variation("storage", f"stored {storage}", case.but(storage=storage))
    if z.H > z.G and given.grouped == "drawn":
        yield Variation("grouped", "without grouped heads", case.but(sizes=replace(z, G=z.H)))


def _masks(case: Case, mask: Mask, given: Cases, profile: Profile) -> Iterator[Variation]:
    if given.mask == "drawn":
        yield Variation("mask", "without mask", case.but(mask=None))
    for kind in given.mask_kinds(profile):
        if kind != mask.kind and mask.axes in mask_axes(profile, kind, per_row=False):
            word = "with a boolean mask" if kind == "bool" else "with an additive mask"
            yield Variation("kind of mask", word, case.but(mask=replace(mask, kind=kind)))
    for axes in ("BHTS", "11TS", "TS"):
        if axes != mask.axes and axes in mask_axes(profile, mask.kind, per_row=True):
            shape = ",".join(axes)
            yield Variation("axes of mask", f"with a mask [{shape}]", case.but(mask=replace(mask, axes=axes)))


def _sizes(case: Case, given: Cases, profile: Profile) -> Iterator[Variation]:
    """Each size one smaller, one larger, doubled and at its least; T and S together where they must be equal."""
    z = case.sizes
    square = given.square or not profile.offers("rectangular")
    if not square and z.T != z.S and not {"T", "S"} & set(given.sizes):
        for n in (max(z.T, z.S), min(z.T, z.S)):
            if n >= max(given.at_least.get("T", 1), given.at_least.get("S", 1)):
                yield Variation("T = S", "for T = S", case.but(sizes=replace(z, T=n, S=n)))
    for letter in LETTERS:
        tied: tuple[str, ...] = (letter,)
        if letter in "TS" and square:
            tied = ("T", "S") if letter == "T" else ()
        elif letter in "DE" and not profile.offers("value-width"):
            tied = ("D", "E") if letter == "D" else ()
        offered = {"B": "batch", "H": "heads"}.get(letter)
        pinned = set(tied) & set(given.sizes) or (given.identity and {"S", "E"} & set(tied))
        if not tied or pinned or (offered is not None and not profile.offers(offered)):
            continue
        now, least = getattr(z, letter), max(given.at_least.get(one, 1) for one in tied)
        ways = {least, now - 1, now + 1, 2 * now} if letter != "H" else {1, 2 * now}
        for n in sorted(n for n in ways if n != now and n >= least):
            changed = _heads(z.H, z.G, n) if letter == "H" else dict.fromkeys(tied, n)
            if changed is not None:
                yield Variation(f"size {' = '.join(tied)}", f"with {_sized(tied, n)}", case.but(sizes=replace(z, **changed)))


def _heads(heads: int, groups: int, wanted: int) -> dict[str, int] | None:
    """So many query heads, in groups as large as before; None if that cannot be, or would be no group any more."""
    group = heads // groups
    return {"H": wanted, "G": wanted // group} if wanted % group == 0 else None


def _sized(letters: Sequence[str], n: int) -> str:
    one = {"B": "a batch of one", "H": "one head"}
    return one[letters[0]] if n == 1 and letters[0] in one else f"{' = '.join(letters)} = {n}"
