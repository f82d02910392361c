"""Which masks a function takes: boolean, additive, in which broadcast shapes, beside what."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.probes import FAILED, Prober
from attnspec.properties.case import MASK_AXES
from attnspec.properties.subject import Contradiction, Setting

KINDS = {"bool": "a boolean mask", "bias": "an additive mask"}


def find_masks(prober: Prober) -> None:
    promised = prober.settings.get("mask")
    kinds = promised.value if promised else ("bool", "bias")
    for kind, feature in (("bool", "mask"), ("bias", "bias")):
        if not prober.signature.has("mask") and not prober.signature.has("bias"):
            prober.features[feature] = "not offered: no such parameter"
        elif kind not in kinds:
            prober.features[feature] = "not offered: declared"
        elif promised and promised.origin != "inferred":
            if prober.offers(feature, **masked(kind, (3, 3))) and (said := _understands(prober, kind)) is not None:
                got = said.removeprefix("not offered: ")
                prober.contradictions.append(Contradiction("mask", f"{KINDS[kind]}, read as such", got))
        else:
            prober.features[feature] = _understands(prober, kind)
    if (
        prober.signature.has("mask")
        and not promised
        and "no effect" in str(prober.features["mask"])
        and prober.features["bias"]
    ):
        prober.features["mask"] = None  # wrong under every reading: let the claims say so
        prober.notes.append("no effect of the mask parameter could be read; taken as boolean, True = may attend")
    for kind, feature, name in (("bool", "mask", "mask_axes"), ("bias", "bias", "bias_axes")):
        if prober.features[feature] is None:
            _find_axes(prober, kind, feature, name)
    _find_column(prober)
    if (
        prober.signature.has("mask")
        and prober.signature.has("bias")
        and prober.features["mask"] is prober.features["bias"] is None
    ):
        prober.offers("mask-and-bias", **masked("bool", (3, 3)), **masked("bias", (3, 3)))
    else:
        prober.features["mask-and-bias"] = "not offered: no parameter for each"
    if prober.features["causal"] is None and None in (prober.features["mask"], prober.features["bias"]):
        prober.offers(
            "mask-and-causal",
            causal=True,
            **masked("bool" if prober.features["mask"] is None else "bias", (3, 3)),
        )
    else:
        prober.features["mask-and-causal"] = "not offered: not both"


def _find_column(prober: Prober) -> None:
    """Whether the last axis of a mask, too, may be broadcast."""
    kind = next((k for k, feature in (("bool", "mask"), ("bias", "bias")) if prober.features[feature] is None), None)
    if kind is None:
        prober.features["mask-column"] = "not offered: no mask"
        return
    accepted = prober.settings["mask_axes" if kind == "bool" else "bias_axes"].value
    shape = (3, 1) if "TS" in accepted else (1, 1, 3, 1)
    column = {"mask": np.ones(shape, dtype=bool)} if kind == "bool" else {"bias": np.zeros(shape)}
    prober.offers("mask-column", **column)


def masked(kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    keep = np.ones(shape, dtype=bool)
    keep[..., -1] = False
    keep[..., 0] = True
    return {"mask": keep} if kind == "bool" else {"bias": np.where(keep, 0.5, -1.0)}


def _understands(prober: Prober, kind: str) -> str | None:
    """None if the parameter reads this kind of mask, else the reason why it is taken not to."""
    only_first = np.zeros((4, 4), dtype=bool)
    only_first[:, 0] = True
    try:
        if kind == "bool":
            if prober.signature.has("bias") and not prober.signature.has("mask"):
                return "not offered: the parameter is an additive bias"
            row = prober.weights(4, 4, mask=only_first)[-1]
            read_as_mask = bool(row[0] > 10 * row[1:].max() or 10 * row[0] < row[1:].max())
            return None if read_as_mask else "not offered: a boolean mask has no effect of a mask"
        row = prober.weights(4, 4, bias=np.where(only_first, 1.375, 0.0))[-1]
        if prober.signature.has("bias"):
            return None
        return None if row[1] > 0 and 1.02 < row[0] / row[1] < 200 else "not offered: a float mask is not added to the scores"
    except FAILED as error:
        return f"refuses: {str(error).partition(': ')[2] or error}"


def _find_axes(prober: Prober, kind: str, feature: str, name: str) -> None:
    """Which broadcast shapes of a mask are accepted, at sizes that all differ."""
    b, h = (2 if prober.features["batch"] is None else 1), (3 if prober.features["heads"] is None else 1)
    t, s = (4, 5) if prober.features["rectangular"] is None else (4, 4)
    accepted = []
    for axes in MASK_AXES:
        shape = tuple({"B": b, "H": h, "T": t, "S": s, "1": 1}[a] for a in axes)
        try:
            prober.ask(b=b, h=h, t=t, s=s, **masked(kind, shape))
            accepted.append(axes)
        except FAILED:
            continue
    if accepted:
        prober.settings[name] = Setting(tuple(accepted), "inferred")
    else:
        prober.features[feature] = f"refuses: every mask shape of {', '.join(MASK_AXES)}"
