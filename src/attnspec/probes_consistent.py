"""Whether a convention is one: the same in every dtype, at every size, however stored, for every kind and shape of mask.

Each convention is probed again at points that differ from the first probe in one thing. What is refused there is left to the
claims on refusals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from attnspec.probes import Prober, benign
from attnspec.properties.case import MASK_AXES
from attnspec.properties.subject import BoolArray, Contradiction, FloatArray
from attnspec.properties.verdict import BadResult, Refused, ValueFailure

Finding = tuple[str, str]  # what was found, and where


class Point(NamedTuple):
    """Something to vary: the words for it, and the options of the call."""

    where: str
    options: dict[str, Any]


def find_inconsistencies(prober: Prober) -> None:
    """Adds a contradiction for each convention that is not the same everywhere."""
    if not prober.found["deterministic"]:
        return
    probes = {"polarity": _polarity, "empty_row": _empty_rows, "alignment": _alignments, "window": _windows}
    for name, probe in probes.items():
        base = prober.found.get(name)
        if base is None or base in ("refused", "raises"):
            continue
        elsewhere: dict[str, list[str]] = {}
        for found, where in probe(prober):
            if found != base:
                elsewhere.setdefault(found, []).append(where)
        for found, places in elsewhere.items():
            prober.contradictions.append(Contradiction(name, base, found, _listed(list(dict.fromkeys(places)))))


def _listed(places: list[str]) -> str:
    return "; ".join(places[:3]) + (f"; and {len(places) - 3} more" if len(places) > 3 else "")


def points(prober: Prober) -> list[Point]:
    """Float32, plain, without gradients is where conventions were probed first."""
    known = prober.settings["dtypes"].value
    found = [Point(f"in {d}", {"dtype": d}) for d in known if d != "float32" and prober.features[d] is None]
    found += [Point(f"for {s} storage", {"storage": s}) for s in prober.arrays.storages if s != "plain"]
    if prober.features["gradients"] is None:
        found.append(Point("with gradients", {"recorded": True}))
    return found


def _sizes(prober: Prober) -> list[tuple[int, int]]:
    """T and S beside the square of the first probe: one query, fewer and more queries than keys."""
    return [(1, 4), (2, 4), (6, 4)] if prober.features["rectangular"] is None else []


def _always(prober: Prober) -> bool:
    return prober.features["non-causal"] is not None


def _row(prober: Prober, t: int, s: int, **options: Any) -> FloatArray | None:
    """[T,S]: the weights under equal scores; None for a refusal."""
    try:
        return prober.weights(t, s, **options)
    except (Refused, ValueFailure, BadResult):
        return None


# Polarity


def _polarity(prober: Prober) -> Iterator[Finding]:
    def found(where: str, axes: str | None = None, t: int = 4, **options: Any) -> Iterator[Finding]:
        shape = (t, 4) if axes is None else tuple(t if a == "T" else 4 if a == "S" else 1 for a in axes)
        only_first = np.zeros(shape, dtype=bool)
        only_first[..., 0] = True
        seen = _row(prober, t, 4, mask=only_first, **options)
        if seen is None:
            return
        shown, hidden = ("masked", "attend") if handed == "masked" else ("attend", "masked")
        if seen[-1, 0] > 10 * seen[-1, 1:].max():
            yield shown, where
        elif 10 * seen[-1, 0] < seen[-1, 1:].max():
            yield hidden, where

    handed = prober.settings["polarity"].value  # masks are inverted for a subject that says so
    axes = prober.settings["mask_axes"].value
    if _always(prober):
        return
    yield from (f for a in axes for f in found(f"for a mask of shape {a}", axes=a))
    first = axes[0]
    for t, _ in _sizes(prober):
        yield from found(f"at T = {t}, S = 4", axes=first, t=t)
    for point in points(prober):
        yield from found(point.where, axes=first, **point.options)


# Empty rows


def _empty_rows(prober: Prober) -> Iterator[Finding]:
    """One empty row, every row, and all rows of one sample or of the whole batch, for each kind of mask."""
    kinds = [k for k, feature in (("bool", "mask"), ("bias", "bias")) if prober.features[feature] is None]
    if _always(prober):
        return
    for kind in kinds:
        name = {"bool": "a boolean mask", "bias": "an additive mask"}[kind]
        accepted = prober.settings["mask_axes" if kind == "bool" else "bias_axes"].value
        shapes = [a for a in MASK_AXES if a in accepted]
        first = next((a for a in shapes if "T" in a), None)
        if first is None:
            continue
        yield from _emptied(prober, kind, first, f"for {name}")
        for axes in shapes:
            yield from _emptied(prober, kind, axes, f"for {name} of shape {axes}", whole="T" not in axes)
        for t, s in _sizes(prober):
            yield from _emptied(prober, kind, first, f"at T = {t}, S = {s} for {name}", t=t)
        yield from _emptied(prober, kind, first, f"where no row sees a key, for {name}", whole=True)
        if prober.features["batch"] is None and (batched := next((a for a in shapes if a[0] == "B"), None)):
            yield from _emptied(prober, kind, batched, f"for one sample of two, {name}", b=2, whole=True)
            yield from _emptied(prober, kind, batched, f"for both samples of a batch, {name}", b=2, whole=True, every=True)
        for point in points(prober):
            yield from _emptied(prober, kind, first, f"{point.where} for {name}", **point.options)


def _emptied(
    prober: Prober,
    kind: str,
    axes: str,
    where: str,
    *,
    t: int = 4,
    b: int = 1,
    whole: bool = False,
    every: bool = False,
    **options: Any,
) -> Iterator[Finding]:
    """What a row that sees no key becomes; `whole`: all rows of the first sample, `every`: of all samples."""
    keep = np.ones(tuple({"B": b, "T": t, "S": 4}.get(a, 1) for a in axes), dtype=bool)
    row = 0 if t == 1 else 1
    if whole:
        keep[() if every or axes[0] != "B" else 0] = False
    else:
        keep[..., row, :] = False
    arrays = _arrays(prober, b, t)
    try:
        got = prober.ask(arrays=arrays, **_as(kind, keep), **options)[0, 0, row]
        plain = None if np.isnan(got).any() or not got.any() else prober.ask(arrays=arrays, **options)[0, 0, row]
    except (Refused, BadResult):
        return
    except ValueFailure:
        yield "raises", where
        return
    yield read_empty(got, plain), where


def _arrays(prober: Prober, b: int, t: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Queries and keys at random, values one-hot."""
    q, k, v = benign(prober.layout, b, 1, t, 4, 4, 4)
    return q, k, np.broadcast_to(np.eye(4), v.shape).copy()


def _as(kind: str, keep: BoolArray) -> dict[str, Any]:
    return {"mask": keep} if kind == "bool" else {"bias": np.where(keep, 0.0, -np.inf)}


def read_empty(row: FloatArray, plain: FloatArray | None) -> str:
    """The name of what a row without a key became; `plain` is the row without a mask."""
    if np.isnan(row).any():
        return "nan"
    if not row.any() or plain is None:
        return "zero"
    return "mean" if np.ptp(row) < np.ptp(plain) / 8 else "unmasked"


# Causal alignment and windows


def _alignments(prober: Prober) -> Iterator[Finding]:
    if prober.features["causal-rectangular"] is None:
        for t, s in ((1, 8), (2, 8), (5, 8)):
            yield from _aligned(prober, t, s, f"at T = {t}, S = {s}")
        for point in points(prober):
            yield from _aligned(prober, 2, 8, point.where, **point.options)
        for kind, feature in (("bool", "mask"), ("bias", "bias")):
            if prober.features[feature] is None and prober.features["mask-and-causal"] is None:
                axes = prober.settings["mask_axes" if kind == "bool" else "bias_axes"].value[0]
                shape = tuple({"T": 2, "S": 8}.get(a, 1) for a in axes)
                given = {"mask": np.ones(shape, dtype=bool)} if kind == "bool" else {"bias": np.zeros(shape)}
                yield from _aligned(prober, 2, 8, f"beside {'a boolean' if kind == 'bool' else 'an additive'} mask", **given)
    if prober.features["causal-tall"] is None:
        yield from _aligned(prober, 5, 2, "at T = 5, S = 2")


def _aligned(prober: Prober, t: int, s: int, where: str, **options: Any) -> Iterator[Finding]:
    """How many keys the last query but one (the only one of one) sees: it tells the two alignments apart at all sizes."""
    row = max(t - 2, 0)
    seen = _row(prober, t, s, causal=True, **options)
    if seen is None:
        return
    top, bottom = min(row + 1, s), max(min(row + 1 + s - t, s), 0)
    count = int((seen[row] > 1 / (4 * s)).sum())
    if count in (top, bottom):  # what is neither is for the claims to find
        yield "top-left" if count == top else "bottom-right", where


def _windows(prober: Prober) -> Iterator[Finding]:
    for where, t, options in [("at T = S = 9", 9, {}), *((p.where, 7, p.options) for p in points(prober))]:
        seen = _row(prober, t, t, window=2, **options)
        if seen is not None:
            yield "both" if (seen[3, 4:] > 1 / (4 * t)).any() else "left", where
