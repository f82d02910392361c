"""What a subject admits of the options and sizes that a claim wants in its cases, and the kinds of numbers in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from attnspec.properties.case import MASK_AXES, MaskKind, Sizes, Storage, ValueKind
from attnspec.properties.subject import Profile

if TYPE_CHECKING:
    from attnspec.properties.strategies import Cases

SCORE_KINDS: tuple[ValueKind, ...] = ("zeros", "normal", "fine", "integers", "ties", "heavy", "needle", "one-hot")
VALUE_KINDS: tuple[ValueKind, ...] = ("normal", "fine", "one-hot", "integers", "ties", "heavy")

STORAGES: tuple[Storage, ...] = get_args(Storage)

Axis = Literal["B", "T", "S", "E"]


def zero_axes(want: Cases, profile: Profile) -> tuple[Axis, ...]:
    """The axes that may have length 0: those that the claim wants and the subject has."""
    lacking = {"B": "batch", "S": "rectangular", "E": "value-width"}
    return tuple(a for a in want.zero if a not in lacking or profile.offers(lacking[a])) or ("T",)


def enough_keys(profile: Profile, queries: int, keys: int, *, causal: bool, window: bool) -> int:
    """The number of keys, changed where the subject would refuse so many or so few, or a row would see none of them."""
    if causal and keys > queries and not profile.offers("causal-rectangular"):
        return queries
    late = causal and profile.alignment == "bottom-right"
    if keys < queries and ((causal and not profile.offers("causal-tall")) or ((window or late) and not zero_rows(profile))):
        return queries
    return keys


def zero_rows(profile: Profile) -> bool:
    """Only where an empty row is exactly zero may one occur by the way; otherwise a claim of its own draws it."""
    return bool(profile.get("empty_row") == "zero" and profile.get("empty_row_bias", "zero") == "zero")


def mask_axes(profile: Profile, kind: MaskKind, *, per_row: bool) -> list[str]:
    """The shapes of masks that the subject accepts, those with a query axis only if each row needs its own."""
    accepted = list(profile.get("mask_axes" if kind == "bool" else "bias_axes", MASK_AXES))
    return [a for a in accepted if "T" in a] or accepted if per_row else accepted


def empty_rows(which: str, sizes: Sizes, axes: str, b: int, t: int) -> tuple[tuple[int, int], ...]:
    """One row that sees no key, all rows of one sample, or all rows, as far as the axes of the mask tell them apart."""
    samples = range(sizes.B if axes[0] == "B" else 1)
    queries = range(sizes.T if "T" in axes else 1)
    if which == "all":
        return tuple((one, row) for one in samples for row in queries)
    if which == "sample":
        return tuple((b, row) for row in queries)
    return ((b, t if "T" in axes else 0),)
