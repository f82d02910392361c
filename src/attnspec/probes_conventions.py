"""What a function means by its parameters: polarity, alignment, empty rows, windows, order of groups, precision."""

from __future__ import annotations

import numpy as np

from attnspec import surroundings
from attnspec.probes import FAILED, Prober, benign
from attnspec.probes_consistent import read_empty
from attnspec.properties import numbers
from attnspec.properties.case import Inputs
from attnspec.properties.oracle import expected
from attnspec.properties.subject import DTYPES, PRECISION, Contradiction, Setting
from attnspec.properties.verdict import Inapplicable


def find_conventions(prober: Prober) -> None:
    if prober.features["mask"] is None:
        prober.settle("polarity", _polarity(prober))
        prober.settle("empty_row", _empty_row(prober, "bool"))
    if prober.features["bias"] is None:
        found = _empty_row(prober, "bias")
        if prober.features["mask"] is None:
            prober.settings["empty_row_bias"] = Setting(found, "inferred")
        else:
            prober.settle("empty_row", found)
    if prober.features["causal"] is None:
        refused = prober.features["causal-rectangular"] is not None
        prober.settle("alignment", "refused" if refused else _alignment(prober))
    if prober.features["window"] is None:
        prober.settle("window", _window(prober))
    prober.settle("deterministic", _deterministic(prober))
    prober.settle("output_dtype", "query")
    if prober.settings.get("scale") is not None:
        prober.settle("scale", _scale(prober, prober.settings["scale"].value))
    if prober.features["grouped"] is None:
        prober.settle("group_order", _group_order(prober))
    prober.settings.setdefault("device", Setting(prober.arrays.device, "default"))
    prober.settings.setdefault("precision", Setting(dict(PRECISION), "default"))
    prober.settings.setdefault("poison", Setting("huge", "default"))
    prober.settings["surroundings"] = Setting(surroundings.names(prober.arrays.name), "default")
    prober.settings.setdefault("form", Setting("exact", "default"))
    prober.settings.setdefault("dtypes", Setting(offered(prober), "inferred"))


def offered(prober: Prober) -> tuple[str, ...]:
    """The dtypes that the function takes, the widest first."""
    return tuple(d for d in DTYPES if d == "float32" or prober.features[d] is None)


def find_precision(prober: Prober) -> None:
    """Whether float64 is computed in float32: one finding, after which float64 is left alone."""
    profile = prober.profile()
    if prober.features["float64"] is not None or profile.promises("dtypes"):
        return
    worst: dict[str, float] = {"float64": 0.0, "float32": 0.0}
    signs: list[float] = []
    for t in (3, 6, 7):
        plain = benign(prober.layout, 1, 2, t, t, 5, 5)
        q, k, v = (a + numbers.low_bits(t, n, a.shape, "float64") for n, a in zip("qkv", plain, strict=True))
        x = Inputs(q, k, v, causal=profile.get("causal") == "always")
        try:
            got = prober.ask(arrays=(q, k, v), dtype="float64")
        except FAILED:
            return
        for dtype in worst:
            try:
                want = expected(profile, x.but(dtype=dtype))
            except Inapplicable:
                return
            worst[dtype] = max(worst[dtype], float(np.max(np.abs(got - want.out) / want.error)))
        signs.append(float(np.mean(np.sign((got - want.out) * want.out))))
    # Rounding has either sign; an error that always shrinks or always grows the output is another defect.
    rounding = max(signs) > -0.9 and min(signs) < 0.9
    if worst["float64"] > 1e4 and worst["float32"] <= 0.25 and rounding:
        got_instead = f"that of float32 ({worst['float64']:.0e} times the bound)"
        prober.contradictions.append(Contradiction("precision", "the accuracy of float64", got_instead))
        prober.features["float64"] = "computed at the accuracy of float32, see convention.precision"
        prober.settings["dtypes"] = Setting(offered(prober), "inferred")


def _polarity(prober: Prober) -> str | None:
    self_settings = prober.settings.pop("polarity", None)
    only_first = np.zeros((4, 4), dtype=bool)
    only_first[:, 0] = True
    try:
        row = prober.weights(4, 4, mask=only_first)[-1]
    except FAILED:
        row = np.ones(4)
    finally:
        if self_settings is not None:
            prober.settings["polarity"] = self_settings
    if 10 * row[0] < row[1:].max():
        return "masked"
    return "attend" if row[0] > 10 * row[1:].max() or self_settings is None else None


def _alignment(prober: Prober) -> str:
    """Row 0 of 2 queries on 8 keys sees 1 key (top-left) or 7 (bottom-right); the nearer reading is taken."""
    try:
        seen = int((prober.weights(2, 8, causal=True)[0] > 1e-3).sum())
    except FAILED:
        return "refused"
    return "top-left" if seen < 4 else "bottom-right"


def _scale(prober: Prober, declared: float) -> float | None:
    """The factor of the scores, read off the ratio of two weights: the declared one if it is near that."""
    q, k = np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 4, 4))
    q[..., 0], k[0, 0, 0, 0] = 1.0, 1.0 if abs(declared) > 1 else 2.0
    try:
        row = prober.ask(arrays=(q, k, np.eye(4)[None, None]))[0, 0, -1]
    except FAILED:
        return None
    found = float(np.log(row[0] / row[1]) / k[0, 0, 0, 0]) if row[:2].min() > 0 else float("nan")
    return declared if abs(found - declared) <= abs(declared) / 32 else round(found, 4)


def _group_order(prober: Prober) -> str | None:
    """Which of 2 value heads query head 1 of 4 reads: that of its neighbour (repeated) or that of every second (tiled)."""
    q, k, v = benign(prober.layout, 1, 4, 2, 2, 4, 4, 2)
    v = np.broadcast_to(np.array([1.0, 2.0])[None, :, None, None], v.shape).copy()
    try:
        heads = prober.ask(arrays=(q, k, v))[0, :, 0, 0]
    except FAILED:
        return None
    repeated, tiled = np.array([1.0, 1.0, 2.0, 2.0]), np.array([1.0, 2.0, 1.0, 2.0])
    orders = {"repeated": repeated, "tiled": tiled}
    return next((name for name, order in orders.items() if np.abs(heads - order).max() < 1 / 8), None)


def _window(prober: Prober) -> str:
    """Row 3 of 7 under a window of 2 sees keys 2, 3 (left) or some beyond 3 (both)."""
    try:
        seen = prober.weights(7, 7, window=2)[3] > 1e-3
    except FAILED:
        return "left"
    return "both" if seen[4:].any() else "left"


def _empty_row(prober: Prober, kind: str) -> str:
    """What a row that sees no key becomes, for scores that are not equal."""
    keep = np.ones((4, 4), dtype=bool)
    keep[2] = False
    options = {"mask": keep} if kind == "bool" else {"bias": np.where(keep, 0.0, -np.inf)}
    q, k, _ = benign(prober.layout, 1, 1, 4, 4, 4, 4)
    arrays = (q, k, np.eye(4)[None, None])
    try:
        row, plain = prober.ask(arrays=arrays, **options)[0, 0, 2], prober.ask(arrays=arrays)[0, 0, 2]
    except FAILED:
        return "raises"
    return read_empty(row, plain)


def _deterministic(prober: Prober) -> bool:
    arrays = benign(prober.layout, 2, 2, 17, 17, 8, 8)
    try:
        outputs = [prober.ask(arrays=arrays) for _ in range(3)]
    except FAILED:
        return True
    return all(np.array_equal(outputs[0], o, equal_nan=True) for o in outputs[1:])
