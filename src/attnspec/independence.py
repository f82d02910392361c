"""What a failure depends on: its minimal case is run again with one field changed at a time.

A change with which the claim fails all the same shows what does not matter; one with which it holds shows what does. A
changed case stays one that the claim could have drawn, so a claim about the causal flag is never tried without it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from attnspec.exactness import exactness
from attnspec.function import FunctionSubject
from attnspec.localisation import leak
from attnspec.properties.case import Case, Mask, Values
from attnspec.properties.claim import Claim, claims
from attnspec.properties.strategies import SCORE_KINDS, VALUE_KINDS, Cases, enough_keys, mask_axes
from attnspec.properties.subject import FloatArray, Profile, Result
from attnspec.properties.verdict import Depends, Record, Verdict
from attnspec.search import BUDGETS, search
from attnspec.target import Loaded

SEEDS = 5
LETTERS = "BHTSDE"
KINDS = {"zeros": "zero", "normal": "random", "one-hot": "one-hot", "heavy": "of very different size"}
PLANTED = {"one": "a change by one", "redrawn": "a random change", "huge": "a huge change"}


@dataclass(frozen=True)
class Variation:
    """The minimal case with one field changed: which field, and the change in words."""

    field: str
    text: str
    case: Case
    recorded: bool = False  # gradients are recorded while the subject computes


def depends(loaded: Loaded, subject: FunctionSubject, case: Case) -> Depends:
    """What the failure of this case depends on. It runs in the worker, beside the subject."""
    del loaded
    claim, profile = claims()[case.claim], subject.profile
    results: list[tuple[Variation, bool]] = []
    try:
        for variation in variations(case, claim, profile):
            fails = _fails(claim, subject, variation)
            if fails is not None:
                results.append((variation, fails))
    finally:
        subject.profile = profile  # one run alone may have taken it for one that gives other bits each time
    return summed_up(case, results)


def _fails(claim: Claim, subject: FunctionSubject, variation: Variation) -> bool | None:
    """Whether the claim fails for the changed case; None if that case decides nothing."""
    runs: Any = _Recorded(subject) if variation.recorded else subject
    outcome = search(claim, runs, variation.case.dtype, BUDGETS["replay"], 0, variation.case)
    return {Verdict.VIOLATED: True, Verdict.HOLDS: False}.get(outcome.verdict)


class _Recorded:
    """The subject as it computes when gradients are recorded; some libraries take another kernel then."""

    def __init__(self, subject: FunctionSubject) -> None:
        self._subject = subject
        self.profile = subject.profile
        self.calls = subject.calls

    def __call__(self, q: FloatArray, k: FloatArray, v: FloatArray, **options: Any) -> Result:
        options.pop("need", None)
        found = self._subject.vjp(q, k, v, np.zeros((*q.shape[:3], v.shape[3])), **options)
        return Result(found.out, found.dtype)


def variations(case: Case, claim: Claim, profile: Profile) -> Iterator[Variation]:
    """About thirty cases that differ from this one in one field, as far as the claim and the subject admit them."""
    given = claim.given
    assert isinstance(given, Cases)
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
    if profile.offers("gradients") and claim.family != "grad":
        yield Variation("recorded", "with gradients recorded", case, recorded=True)


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


def summed_up(case: Case, results: Sequence[tuple[Variation, bool]]) -> Depends:
    """The outcomes in few words: fields with one answer are named once, others change by change."""
    on: list[str] = []
    not_on: list[str] = []
    same: dict[str, list[str]] = {"for other values of": [], "with larger": []}
    fields: dict[str, list[tuple[Variation, bool]]] = {}
    for variation, fails in results:
        fields.setdefault(variation.field, []).append((variation, fails))
    for field, tries in fields.items():
        failing = [v.text for v, fails in tries if fails]
        holding = [v.text for v, fails in tries if not fails]
        kind, _, name = field.partition(" ")
        if kind == "seed":
            failing, holding = _counted(len(failing), len(tries))
        elif kind == "values" and not holding:
            same["for other values of"].append(name)
            failing = []
        elif kind == "size":
            before = _size(case, name)
            grown = [fails for v, fails in tries if _size(v.case, name) > before]
            shrunk = [fails for v, fails in tries if _size(v.case, name) < before]
            if grown and all(grown):
                same["with larger"].append(name)
                failing = [v.text for v, fails in tries if fails and _size(v.case, name) < before]
            if len(shrunk) > 1 and not any(shrunk):
                holding = [v.text for v, fails in tries if not fails and _size(v.case, name) > before]
                holding.append(f"for {name} < {before}")
        not_on += dict.fromkeys(failing)
        on += [text for text in dict.fromkeys(holding) if text not in failing]
    not_on += [f"{words} {', '.join(names)}" for words, names in same.items() if names]
    return Depends(tuple(on), tuple(not_on), len(results))


def _counted(failing: int, tries: int) -> tuple[list[str], list[str]]:
    counted = [f"for other seeds ({failing} of {tries})"]
    return (counted, []) if failing else ([], counted)


def _size(case: Case, letters: str) -> int:
    return int(getattr(case.sizes, letters[0]))


def depend(records: Sequence[Record], runner: Any) -> None:
    """Fills in `depends`, and how exact plain calls are, of the violations that no other implies: one dtype of each claim.

    The runner has the subject; one that dies here leaves the record as it is.
    """
    from attnspec.worker import LostError

    told: set[str] = set()
    for record in records:
        root = record.verdict is Verdict.VIOLATED and not record.implied_by
        if not root or record.claim in told or record.case is None or claims()[record.claim].given is None:
            continue
        told.add(record.claim)
        try:
            if claims()[record.claim].of != "attention":
                record.leak = runner.do(leak, record.case) if record.claim == "mask.logits-causal" else None
                continue
            record.depends = runner.do(depends, record.case)
            if record.decided_by == "bound":
                record.equivalent_precision, record.fits = runner.do(exactness, record.dtype)
        except LostError:
            continue
        except Exception:  # an error of ours in the diagnosis changes no verdict
            record.exception = traceback.format_exc()
