"""What a function offers beside its output: gradients, attention weights, log-sum-exp, sinks, dropout."""

from __future__ import annotations

import numpy as np

from attnspec.adapters import Array
from attnspec.probes import FAILED, Prober, benign
from attnspec.properties.subject import AUTOCAST, UNDER, FloatArray, Setting
from attnspec.properties.verdict import first_line
from attnspec.returned import SWITCHES, Extra, Returned, arranged, fitting

EXTRAS: dict[Extra, str] = {"weights": "attention weights", "lse": "the log-sum-exp of the scores"}
NO_PARAMETER = "not offered: no such parameter"


def find_extras(prober: Prober) -> None:
    _find_gradients(prober)
    _find_returned(prober)
    _find_sinks(prober)
    _find_dropout(prober)
    _find_autocast(prober)


def _find_gradients(prober: Prober) -> None:
    declared = prober.settings.get("gradients")
    if declared and declared.value == "none":
        prober.features["gradients"] = "not offered: declared"
        return
    q, k, v = benign(prober.layout, 1, 2, 3, 3, 4, 4)
    try:
        found = prober.subject().vjp(q, k, v, np.ones_like(v), dtype="float32", causal=_causal(prober))
    except NotImplementedError:
        prober.features["gradients"] = f"not offered: {_named(prober)} arrays carry no gradients"
        return
    except FAILED as error:
        prober.features["gradients"] = f"refuses: {str(error).partition(': ')[2] or first_line(error)}"
        return
    none = not (found.q.any() or found.k.any() or found.v.any())
    prober.features["gradients"] = "not offered: the output needs no gradient" if none else None
    prober.settings.setdefault("gradients", Setting("none" if none else "vjp", "inferred"))


def _named(prober: Prober) -> str:
    return {"numpy": "NumPy", "mlx": "MLX"}.get(prober.arrays.name, prober.arrays.name)


def _causal(prober: Prober) -> bool:
    setting = prober.settings.get("causal")
    return setting is not None and setting.value == "always"


# Weights and log-sum-exp


def _find_returned(prober: Prober) -> None:
    """Equal scores tell the two apart: each weight is 1 over the number of visible keys, the log-sum-exp its logarithm."""
    extras: tuple[Extra, ...] = ("weights", "lse")
    found: dict[Extra, Returned] = {}
    reasons: dict[Extra, str] = {}
    look = _Look(prober)
    for switch in (None, *(role for role in SWITCHES.values() if prober.signature.has(role))):
        missing = [extra for extra in extras if extra not in found]
        try:
            values = look.values(switch) if missing else {}
        except FAILED as error:
            reasons |= {e: f"refuses: {str(error).partition(': ')[2] or error}" for e in missing if SWITCHES[e] == switch}
            continue
        for extra in missing:
            places, why = look.places(values, extra, named=SWITCHES[extra] == switch)
            if places:
                found[extra] = Returned(*places[0], switch)
            elif why is not None:
                reasons[extra] = why
    for extra in extras:
        prober.features[extra] = None if extra in found else reasons.get(extra, "not offered: not returned")
        if extra in found:
            prober.settings[extra] = Setting(found[extra], "inferred")


class _Look:
    """One call with equal scores, and what its values beside the output may be."""

    def __init__(self, prober: Prober) -> None:
        self.prober = prober
        causal = _causal(prober)
        square = causal or prober.features["rectangular"] is not None
        b, h = (2 if prober.features["batch"] is None else 1), (3 if prober.features["heads"] is None else 1)
        t, s = (4, 4) if square else (4, 5)
        self.sizes = {"b": b, "h": h, "t": t, "s": s, "1": 1}
        self.seen = np.tri(t) if causal else np.ones((t, s))

    def values(self, switch: str | None) -> dict[int | str, Array]:
        """Errors: those of FAILED."""
        b, h, t, s = (self.sizes[a] for a in "bhts")
        _, k, v = benign(self.prober.layout, b, h, t, s, 4, 4)
        subject = self.prober.subject()
        found = subject.native(np.zeros((b, h, t, 4)), k, v, causal=_causal(self.prober), switch=switch)
        self.prober.returns = max(self.prober.returns, subject.returns)
        return {at: x for at, x in found.items() if self.prober.arrays.owns(x)}

    def places(
        self, values: dict[int | str, Array], extra: Extra, *, named: bool
    ) -> tuple[list[tuple[int | str, str]], str | None]:
        """Where the extra is found, and in which order of axes; else the reason why what looks like it is not.

        What a switch of that name returns in the right shape is taken for what the name says, unless it is all zero: the
        claims then say what is wrong with it.
        """
        places, why = [], None
        for at, value in values.items():
            shape = tuple(int(n) for n in value.shape)
            axes = list(fitting(shape, extra, self.sizes, self.prober.layout))
            wide = self.prober.arrays.widen(value)
            right = [a for a in axes if self._reads(arranged(wide, a, extra), extra)]
            if axes and (right or (named and wide.any())):
                places.append((at, (right or axes)[0]))
            elif axes and named:
                why = f"not offered: what is returned is not {EXTRAS[extra]}"
            elif extra == "weights" and self.sizes["h"] > 1 and shape == tuple(self.sizes[a] for a in "bts"):
                why = "not offered: weights are averaged over heads"
        return places, why

    def _reads(self, x: FloatArray, extra: Extra) -> bool:
        keys = self.seen.sum(-1)
        if extra == "weights":
            return bool(np.abs(x - self.seen / keys[:, None]).max() < 1 / 32)
        return bool(np.abs(x - np.log(keys)).max() < 1 / 8)


# Options that change the weights


def _find_sinks(prober: Prober) -> None:
    if not prober.signature.has("sinks"):
        prober.features["sinks"] = NO_PARAMETER
        return
    heads = 3 if prober.features["heads"] is None else 1
    prober.offers("sinks", h=heads, sinks=np.zeros(heads), causal=_causal(prober))


def _find_autocast(prober: Prober) -> None:
    """Whether the library has it, and the function runs under it."""
    if prober.arrays.name != "torch":
        prober.features["autocast"] = f"not offered: {_named(prober)} has no autocast"
    elif (reason := prober.features["bfloat16"]) is not None:
        prober.features["autocast"] = reason
    else:
        prober.offers("autocast", need=(UNDER + AUTOCAST,), causal=_causal(prober))


def _find_dropout(prober: Prober) -> None:
    """Whether half of 32 equal weights are dropped where that is asked for."""
    own = prober.signature.has("seed") or prober.signature.has("rng")
    prober.features["own-seed"] = None if own else NO_PARAMETER
    known = prober.settings.get("dropout")
    if not prober.signature.has("dropout"):
        prober.features["dropout"] = NO_PARAMETER
        prober.settle("dropout", "none")
        return
    if known is not None and known.value != "argument":
        prober.features["dropout"] = "not offered: declared"
        return
    options = {"causal": _causal(prober), "dtype": "float32"}
    try:
        plain = prober.weights(32, 32, **options)
        dropped = prober.weights(32, 32, dropout=0.5, seed=1, **options)
    except FAILED as error:
        prober.features["dropout"] = f"refuses: {str(error).partition(': ')[2] or error}"
        return
    effect = not np.array_equal(plain, dropped)
    prober.features["dropout"] = None if effect else "not offered: accepted without effect"
    prober.settle("dropout", "argument" if effect else "none")
