"""Hypothesis strategies of cases, without filtering: each draw is a case that the subject's profile admits.

Sizes, options and patterns are drawn, never numbers of an array, so that cases shrink to what a person can read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st

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
from attnspec.properties.case import (
    LOWEST,
    Call,
    Case,
    Mask,
    MaskKind,
    MaskPattern,
    Plant,
    Sizes,
    ValueKind,
    Values,
)
from attnspec.properties.fitting import fitted
from attnspec.properties.given import Choice, Diagnosis, Variation
from attnspec.properties.reduction import simpler
from attnspec.properties.showcases import showcases
from attnspec.properties.subject import Profile
from attnspec.properties.variations import variations

if TYPE_CHECKING:
    from attnspec.properties.claim import Claim


@dataclass(frozen=True)
class Cases:
    """The cases of a claim: what is pinned, what is drawn.

    "drawn" options appear only where the profile offers them. `sizes` and `values` pin sizes and patterns; `plant` lists
    later changes whose position is drawn; `grid` adds fixed cases at block edges (`showcases`). `finite` is what a bias may
    have where it hides, None for -inf. One of the axes in `zero` has length 0. `draws` limits what comes on top.
    """

    causal: Choice = "drawn"
    mask: Choice = "drawn"
    kinds: tuple[MaskKind, ...] = ("bool", "bias")
    scale: Choice = "drawn"
    window: Choice = "drawn"
    softcap: Choice = "drawn"
    grouped: Choice = "drawn"
    empty: Choice = "drawn"
    square: bool = False
    at_least: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    identity: bool = False  # E = S and v one-hot: the output is the weights
    values: Mapping[str, tuple[ValueKind, ...]] = field(default_factory=dict)
    gains: tuple[float, ...] = (1.0, 2.0, 0.5, 8.0)
    plant: tuple[Plant, ...] = ()
    storage: Choice = "never"
    scales: tuple[float, ...] = (1.0, 0.5, 0.125, 2.0)
    sinks: Choice = "never"
    dropout: Choice = "never"
    dropouts: tuple[float, ...] = (0.5, 0.25, 0.75)
    finite: tuple[float | None, ...] = (None, -2.0, -3.0, -1e4, LOWEST)
    zero: tuple[Axis, ...] = ()
    draws: int | None = None
    share: float = 1.0  # of the cases that a profile draws for a claim
    grid: bool = False
    diagnoses: tuple[Diagnosis, ...] = ("variations", "exactness")
    own_dtype: ClassVar[bool] = False

    def fixed(self, claim: str, profile: Profile, dtype: str, *, brief: bool = False, extra_size: int = 0) -> list[Case]:
        """See `showcases`."""
        return showcases(self, claim, profile, dtype, brief=brief, extra_size=extra_size)

    def strategy(self, claim: str, profile: Profile, dtype: str, largest: int) -> st.SearchStrategy[Case]:
        """Cases for one subject, for Hypothesis; `largest` limits T and S."""
        return _strategy(self, profile, claim, dtype, largest)

    def drawn(self, claim: str, profile: Profile, dtype: str, largest: int, seed: int) -> Iterator[Case]:
        """The same cases without Hypothesis, which takes as long over a draw as the subject over a case."""
        rng = random.Random(seed)

        def draw(strategy: st.SearchStrategy[Any]) -> Any:
            options = _options[id(strategy)]
            return options[int(rng.random() * len(options))]

        while True:
            yield _case(draw, self, profile, claim, dtype, largest)

    def needs(self, profile: Profile) -> Iterator[str]:
        """Features without which there is no case."""
        if self.causal == "never":
            yield "non-causal"
        if self.mask == "always" and not profile.offers("non-causal"):
            yield "mask-and-causal"
        if self.mask == "always" and not self.mask_kinds(profile):
            yield "bias" if self.kinds == ("bias",) else "mask"

    def simpler(self, case: Case, profile: Profile) -> Iterator[Case]:
        """See `reduction`."""
        return simpler(case, self, profile)

    def variations(self, case: Case, profile: Profile) -> Iterator[Variation]:
        """See `variations`."""
        return variations(case, self, profile)

    def present(self, case: Case) -> set[str]:
        """What a case has beyond a plain call of one head and one batch row."""
        z, call, mask = case.sizes, case.call, case.mask
        present = {
            "causal": call.causal,
            "window": call.window is not None,
            "softcap": call.softcap is not None,
            "scale": call.scale is not None,
            "sinks": call.sinks,
            "dropout": call.dropout > 0,
            "mask": mask is not None,
            "bias": mask is not None and mask.kind == "bias",
            "empty": mask is not None and bool(mask.empty),
            "grouped": z.H != z.G,
            "heads": z.H > 1,
            "batch": z.B > 1,
        }
        return {name for name, there in present.items() if there}

    def choice(self, part: str) -> Choice | None:
        """Nothing is said of heads, batches and the kind of a mask."""
        said: Choice | None = getattr(self, part, None)
        return said

    def explained_by(self, root: Claim, present: set[str], pinned: set[str]) -> bool:
        """One that kept an option is explained by a claim about it, one that kept none by a claim that is about none.

        An option that all cases of the claim have says nothing about what the failure needs, nor do heads and a batch.
        """
        plain = root.about is None and root.given is not None
        return root.about in present or (plain and not present - pinned - {"heads", "batch"})

    def hinges_on(self, root: Claim, case: Case) -> bool:
        """Whether the minimal case kept the option that the root is about, which it could have shed."""
        return root.about in self.present(case) and self.choice(root.about) == "drawn"

    def admits(self, option: str, profile: Profile) -> bool:
        """Whether cases may have the option: the claim wants it and the subject offers it."""
        return getattr(self, option) != "never" and profile.offers(option)

    def mask_kinds(self, profile: Profile) -> list[MaskKind]:
        if self.mask == "never":
            return []
        return [kind for kind in self.kinds if profile.offers("mask" if kind == "bool" else "bias")]

    def wants_groups(self, profile: Profile) -> bool:
        return self.admits("grouped", profile) and profile.offers("heads")


Draw = Callable[[st.SearchStrategy[Any]], Any]


def _case(draw: Draw, want: Cases, profile: Profile, claim: str, dtype: str, largest: int) -> Case:
    # Where T = S is or may be forced, T obeys the limits of both.
    tied = {} if profile.offers("causal-rectangular") and not want.square else {"T": "TS"}
    none = draw(_one_of(zero_axes(want, profile))) if want.zero else ""

    def size(letter: str, high: int) -> int:
        if letter == none:
            return 0
        low = max(want.at_least.get(one, 1) for one in tied.get(letter, letter))
        return want.sizes.get(letter) or draw(_integers(low, max(low, high)))

    def flag(option: str) -> bool:
        return want.admits(option, profile) and (
            getattr(want, option) == "always" or draw(_one_of((False, option))) == option
        )

    queries = size("T", largest)
    keys = size("S", largest) if profile.offers("rectangular") and not want.square else want.sizes.get("S", queries)
    alone = want.mask == "always" and want.causal == "drawn" and not profile.offers("mask-and-causal")
    causal = not profile.offers("non-causal") or (not alone and flag("causal"))
    window = flag("window")
    keys = enough_keys(profile, queries, keys, causal=causal, window=window)
    heads, groups = _heads(draw, want, profile)
    width = size("D", 8)
    sizes = Sizes(
        B=size("B", 3) if profile.offers("batch") else 1,
        H=heads,
        G=groups,
        T=queries,
        S=keys,
        D=keys if want.identity and not profile.offers("value-width") else width,
        E=0 if none == "E" else keys if want.identity else size("E", 8) if profile.offers("value-width") else width,
    )
    kinds = want.mask_kinds(profile) if not causal or profile.offers("mask-and-causal") else []
    masked = bool(kinds) and (want.mask == "always" or draw(_one_of((False, "mask"))) == "mask")
    case = Case(
        claim=claim,
        dtype=dtype,
        sizes=sizes,
        call=Call(
            causal=causal,
            scale=draw(_one_of(want.scales)) if flag("scale") else None,
            window=draw(_integers(1, keys + 1)) if window else None,
            softcap=draw(_one_of((2.0, 0.5, 16.0))) if flag("softcap") else None,
            dropout=draw(_one_of(want.dropouts)) if flag("dropout") else 0.0,
            sinks=flag("sinks"),
        ),
        mask=_mask(draw, want, profile, sizes, kinds, window=window) if masked else None,
        values={name: _values(draw, want, name, sizes) for name in "qkv"},
        plant=tuple(_placed(draw, p, sizes) for p in want.plant),
        seed=draw(_SEEDS),
        storage=draw(_one_of(STORAGES)) if want.storage == "drawn" else "plain",
    )
    return fitted(case)


_strategy = st.composite(_case)


def _heads(draw: Draw, want: Cases, profile: Profile) -> tuple[int, int]:
    """H and G. One key/value head hides the order of the groups, so "always" has at least two."""
    if not profile.offers("heads"):
        return 1, 1
    if "H" in want.sizes:
        return want.sizes["H"], want.sizes["H"]
    always = want.grouped == "always"
    group = draw(_integers(2 if always else 1, 3)) if want.wants_groups(profile) else 1
    groups = draw(_integers(2 if always else want.at_least.get("H", 1) if group == 1 else 1, 3))
    return groups * group, groups


def _placed(draw: Draw, plant: Plant, sizes: Sizes) -> Plant:
    last = {"after": sizes.T - 2, "other-rows": sizes.B - 1}.get(plant.where, 0)
    value: Any = draw(_one_of(("one", "redrawn", "huge"))) if plant.value == "redrawn" else plant.value
    return Plant(plant.array, plant.where, draw(_integers(0, max(0, last))), value)


def _values(draw: Draw, want: Cases, name: str, sizes: Sizes) -> Values:
    if name == "v" and want.identity:
        return Values("one-hot")
    kind: ValueKind = draw(_one_of(want.values.get(name, VALUE_KINDS if name == "v" else SCORE_KINDS)))
    positions = sizes.T if name == "q" else sizes.S
    at = (draw(_integers(0, max(0, positions - 1))),) if kind in ("needle", "peak") else ()
    return Values(kind, draw(_one_of(want.gains)), at)


def _mask(draw: Draw, want: Cases, profile: Profile, sizes: Sizes, kinds: list[MaskKind], *, window: bool) -> Mask:
    kind: MaskKind = draw(_one_of(tuple(kinds)))
    restricted = window and not zero_rows(profile)  # a window must not leave a row empty that the mask leaves one key
    per_row = restricted or want.empty == "always"
    axes: str = draw(_one_of(tuple(mask_axes(profile, kind, per_row=per_row))))
    patterns: tuple[MaskPattern, ...] = ("random", "band", "prefix") if "T" in axes else ("random", "padding", "left-padding")
    if kind == "bias" and want.empty != "always":
        patterns = (*patterns, "normal")
    if restricted and ("T" not in axes or sizes.T != sizes.S):
        patterns = ("none",)
    pattern: MaskPattern = draw(_one_of(patterns))
    rows: tuple[tuple[int, int], ...] = ()
    allowed = want.empty == "always" or (want.empty == "drawn" and zero_rows(profile) and pattern != "normal")
    if allowed and (want.empty == "always" or draw(_integers(0, 3)) == 3):
        which = draw(_one_of(("row", "sample", "all")))
        b, t = draw(_integers(0, max(0, sizes.B - 1) if axes[0] == "B" else 0)), draw(_integers(0, max(0, sizes.T - 1)))
        rows = empty_rows(which, sizes, axes, b, t)
    plain = kind == "bool" or pattern == "normal" or rows
    finite = None if plain else draw(_one_of(want.finite))
    return Mask(kind, pattern, draw(_one_of((0.5, 0.25, 0.75))), axes, rows, finite)


# Strategies are made once: Hypothesis validates each object at its first draw. They are all `sampled_from`: Hypothesis spends
# examples on copying values between draws of one kind, and all integers or all booleans would be one kind.

_made: dict[str, st.SearchStrategy[Any]] = {}  # by repr, since (0,), (0.0,) and (False,) are one key
_options: dict[int, tuple[Any, ...]] = {}  # of a strategy by its id; what is made stays


def _one_of(options: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of the options; it shrinks towards the first."""
    key = repr(options)
    if key not in _made:
        _made[key] = st.sampled_from(options)
        _options[id(_made[key])] = options
    return _made[key]


def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return _one_of(tuple(range(low, high + 1)))


_SEEDS = _integers(0, 511)  # few, so that the streams of numbers are found in their cache
