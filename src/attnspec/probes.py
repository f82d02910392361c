"""One-hot probes: small calls whose answers tell a function's conventions (engine 2).

Values are one-hot, so that the output is the weights, and scores are equal, so that a weight says which keys a row sees.
Probes only classify: whatever is wrong within a convention is left for the claims to find.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.adapters import Arrays
from attnspec.function import FunctionSubject
from attnspec.properties import numbers
from attnspec.properties.case import MASK_AXES, Inputs
from attnspec.properties.oracle import expected
from attnspec.properties.subject import Contradiction, FloatArray, Profile, Result, Setting
from attnspec.properties.verdict import BadResult, Refused, ValueFailure, first_line
from attnspec.signature import Signature
from attnspec.target import Loaded

FAILED = (Refused, ValueFailure, BadResult)


def benign(
    layout: str, b: int, h: int, t: int, s: int, d: int, e: int, g: int | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Queries, keys and values of these sizes that any correct function takes: small random numbers."""
    b, h = (1 if layout == "td" else b), (1 if layout in ("td", "btd") else h)
    g = h if g is None or layout in ("td", "btd") else g
    return tuple(numbers.normal(7, n, shape) for n, shape in (("q", (b, h, t, d)), ("k", (b, g, s, d)), ("v", (b, g, s, e))))  # type: ignore[return-value]


class Prober:
    """Fills in a profile, one question at a time."""

    def __init__(self, loaded: Loaded, signature: Signature, arrays: Arrays, settings: dict[str, Setting]) -> None:
        self.loaded, self.signature, self.arrays, self.settings = loaded, signature, arrays, settings
        self.features: dict[str, str | None] = {}
        self.contradictions: list[Contradiction] = []
        self.notes: list[str] = []
        self.returns = 1

    def profile(self) -> Profile:
        notes = list(self.notes)
        if self.signature.unread:
            notes.append(f"no claim exercises the parameters {', '.join(self.signature.unread)}")
        if self.returns > 1:
            notes.append(f"of the {self.returns} values that a call returns only the output is checked")
        return Profile(dict(self.settings), dict(self.features), tuple(self.contradictions), tuple(notes))

    @property
    def layout(self) -> str:
        return str(self.settings["layout"].value)

    def ask(
        self,
        b: int = 1,
        h: int = 1,
        t: int = 3,
        s: int = 3,
        d: int = 4,
        e: int = 4,
        g: int | None = None,
        **options: Any,
    ) -> FloatArray:
        """The output for benign random inputs, or for those given as `arrays`."""
        arrays = options.pop("arrays", None) or benign(self.layout, b, h, t, s, d, e, g)
        subject = FunctionSubject(self.loaded.name, self.loaded.function, self.signature, self.arrays, self.profile())
        result: Result = subject(*arrays, **({"dtype": "float32"} | options))
        self.returns = max(self.returns, subject.returns)
        return result.out

    def weights(self, t: int, s: int, **options: Any) -> FloatArray:
        """[T,S]: the weights under equal scores, from one-hot values."""
        width = s
        zeros = np.zeros((1, 1, t, width)), np.zeros((1, 1, s, width))
        return np.asarray(self.ask(arrays=(*zeros, np.eye(s)[None, None]), **options)[0, 0])

    def offers(self, feature: str, **probe: Any) -> bool:
        """Asks, and notes the refusal if there is one."""
        try:
            self.ask(**probe)
            self.features[feature] = None
        except FAILED as error:
            self.features[feature] = f"refuses: {str(error).partition(': ')[2] or error}"
        return self.features[feature] is None

    # Layout

    def find_layout(self, fitting: list[str]) -> None:
        """Among the layouts of the right shape: the one in which changing one head's value changes that head alone."""
        known = self.settings.get("layout")
        found = known.value if known else fitting[0]
        if known or {"bhtd", "bthd"} <= set(fitting):
            found = self._order_of_heads(found)
        self.settings["layout"] = known or Setting(found, "inferred")
        if known and found != known.value:
            self.contradictions.append(Contradiction("layout", known.value, found))

    def _order_of_heads(self, layout: str) -> str:
        """The other of bhtd and bthd if in it, and only in it, one head's value changes that head alone."""
        other = {"bhtd": "bthd", "bthd": "bhtd"}.get(layout)
        if other is None:
            return layout
        try:
            return other if self._mixes_heads(layout) and not self._mixes_heads(other) else layout
        except FAILED:
            return layout

    def _mixes_heads(self, layout: str) -> bool:
        self.settings["layout"] = Setting(layout, "inferred")
        q, k, v = benign(layout, 1, 3, 3, 3, 4, 4)
        changed = v.copy()
        changed[:, 0, 0] += 1.0
        moved = self.ask(arrays=(q, k, changed)) != self.ask(arrays=(q, k, v))
        return bool(moved[:, 1:].any())

    # Features

    def find_features(self) -> None:
        none = {"td": ("batch", "heads", "grouped"), "btd": ("heads", "grouped")}.get(self.layout, ())
        self.features |= dict.fromkeys(none, f"not offered: layout {self.layout} has no such axis")
        for feature, probe in {"batch": {"b": 2}, "heads": {"h": 3}}.items():
            if feature not in self.features:
                self.offers(feature, **probe)
        self.offers("rectangular", t=2, s=5)
        self.offers("value-width", e=3)
        self.offers("float64", dtype="float64")
        self._find_grouped()
        self._find_causal()
        for role in ("scale", "window", "softcap"):
            if self.signature.has(role):
                self.offers(role, **{role: 2 if role == "window" else 2.0})
            else:
                self.features[role] = "not offered: no such parameter"
        self._find_masks()
        self._find_gradients()

    def _find_grouped(self) -> None:
        declared = self.settings.get("grouped")
        if declared is not None and declared.value is False:
            self.features["grouped"] = "not offered: declared"
        elif "grouped" not in self.features:
            self.offers("grouped", h=4, g=2)

    def _find_causal(self) -> None:
        declared = self.settings.get("causal")
        try:
            plain = self.weights(4, 4)
        except FAILED:
            plain = np.ones((4, 4))
        always = (
            declared.value == "always"
            if declared
            else not self.signature.has("causal") and plain[0, 0] > 0 and not plain[0, 1:].any()
        )
        if always:
            self.settings.setdefault("causal", Setting("always", "inferred"))
            self.features |= {"causal": None, "non-causal": "not offered: the function is always causal"}
            self.offers("causal-rectangular", t=2, s=5, causal=True)
            self.offers("causal-tall", t=5, s=2, causal=True)
            return
        self.features["non-causal"] = None
        if not self.signature.has("causal") or (declared and declared.value == "never"):
            reason = "not offered: no such parameter"
            self.features |= {"causal": reason, "causal-rectangular": reason, "causal-tall": reason}
            return
        self.offers("causal", causal=True)
        self.offers("causal-rectangular", t=2, s=5, causal=True)
        self.offers("causal-tall", t=5, s=2, causal=True)

    def _find_gradients(self) -> None:
        declared = self.settings.get("gradients")
        if self.arrays.name == "numpy" or (declared and declared.value is False):
            self.features["gradients"] = (
                "not offered: NumPy arrays carry no gradients" if not declared else "not offered: declared"
            )
            return
        subject = FunctionSubject(self.loaded.name, self.loaded.function, self.signature, self.arrays, self.profile())
        q, k, v = benign(self.layout, 1, 2, 3, 3, 4, 4)
        try:
            found = subject.vjp(q, k, v, np.ones_like(v), dtype="float32")
        except FAILED as error:
            self.features["gradients"] = f"refuses: {error}"
            return
        except RuntimeError as error:
            self.features["gradients"] = f"refuses: {first_line(error)}"
            return
        none = not (found.q.any() or found.k.any() or found.v.any())
        self.features["gradients"] = "not offered: the output needs no gradient" if none else None

    # Masks

    def _find_masks(self) -> None:
        promised = self.settings.get("mask")
        kinds = promised.value if promised else ("bool", "bias")
        for kind, feature in (("bool", "mask"), ("bias", "bias")):
            if not self.signature.has("mask") and not self.signature.has("bias"):
                self.features[feature] = "not offered: no such parameter"
            elif kind not in kinds:
                self.features[feature] = "not offered: declared"
            elif promised and promised.origin != "inferred":
                self.offers(feature, **self._masked(kind, (3, 3)))
            else:
                self.features[feature] = self._understands(kind)
        if (
            self.signature.has("mask")
            and not promised
            and "no effect" in str(self.features["mask"])
            and self.features["bias"]
        ):
            self.features["mask"] = None  # wrong under every reading: let the claims say so
            self.notes.append("no effect of the mask parameter could be read; taken as boolean, True = may attend")
        for kind, feature, name in (("bool", "mask", "mask_axes"), ("bias", "bias", "bias_axes")):
            if self.features[feature] is None:
                self._find_axes(kind, feature, name)
        if (
            self.signature.has("mask")
            and self.signature.has("bias")
            and self.features["mask"] is self.features["bias"] is None
        ):
            self.offers("mask-and-bias", **self._masked("bool", (3, 3)), **self._masked("bias", (3, 3)))
        else:
            self.features["mask-and-bias"] = "not offered: no parameter for each"
        if self.features["causal"] is None and None in (self.features["mask"], self.features["bias"]):
            self.offers(
                "mask-and-causal",
                causal=True,
                **self._masked("bool" if self.features["mask"] is None else "bias", (3, 3)),
            )
        else:
            self.features["mask-and-causal"] = "not offered: not both"

    def _masked(self, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
        keep = np.ones(shape, dtype=bool)
        keep[..., -1] = False
        keep[..., 0] = True
        return {"mask": keep} if kind == "bool" else {"bias": np.where(keep, 0.5, -1.0)}

    def _understands(self, kind: str) -> str | None:
        """None if the parameter reads this kind of mask, else the reason why it is taken not to."""
        only_first = np.zeros((4, 4), dtype=bool)
        only_first[:, 0] = True
        try:
            if kind == "bool":
                if self.signature.has("bias") and not self.signature.has("mask"):
                    return "not offered: the parameter is an additive bias"
                row = self.weights(4, 4, mask=only_first)[-1]
                read_as_mask = bool(row[0] > 10 * row[1:].max() or 10 * row[0] < row[1:].max())
                return None if read_as_mask else "not offered: a boolean mask has no effect of a mask"
            row = self.weights(4, 4, bias=np.where(only_first, 1.375, 0.0))[-1]
            if self.signature.has("bias"):
                return None
            return (
                None
                if row[1] > 0 and 1.02 < row[0] / row[1] < 200
                else "not offered: a float mask is not added to the scores"
            )
        except FAILED as error:
            return f"refuses: {str(error).partition(': ')[2] or error}"

    def _find_axes(self, kind: str, feature: str, name: str) -> None:
        """Which broadcast shapes of a mask are accepted, at sizes that all differ."""
        b, h = (2 if self.features["batch"] is None else 1), (3 if self.features["heads"] is None else 1)
        t, s = (4, 5) if self.features["rectangular"] is None else (4, 4)
        accepted = []
        for axes in MASK_AXES:
            shape = tuple({"B": b, "H": h, "T": t, "S": s, "1": 1}[a] for a in axes)
            try:
                self.ask(b=b, h=h, t=t, s=s, **self._masked(kind, shape))
                accepted.append(axes)
            except FAILED:
                continue
        if accepted:
            self.settings[name] = Setting(tuple(accepted), "inferred")
        else:
            self.features[feature] = f"refuses: every mask shape of {', '.join(MASK_AXES)}"

    # Conventions

    def find_conventions(self) -> None:
        if self.features["mask"] is None:
            self._settle("polarity", self._polarity())
            self._settle("empty_row", self._empty_row("bool"))
        if self.features["bias"] is None:
            found = self._empty_row("bias")
            if self.features["mask"] is None:
                self.settings["empty_row_bias"] = Setting(found, "inferred")
            else:
                self._settle("empty_row", found)
        if self.features["causal"] is None:
            refused = self.features["causal-rectangular"] is not None
            self._settle("alignment", "refused" if refused else self._alignment())
        if self.features["window"] is None:
            self._settle("window", self._window())
        self._settle("deterministic", self._deterministic())
        self._settle("output_dtype", "query")
        self.settings.setdefault("device", Setting("cpu", "default"))
        self.settings.setdefault("precision", Setting("wide", "default"))
        offered = ("float64", "float32") if self.features["float64"] is None else ("float32",)
        self.settings.setdefault("dtypes", Setting(offered, "inferred"))

    def find_precision(self) -> None:
        """Whether float64 is computed in float32: one finding, after which float64 is left alone."""
        profile = self.profile()
        if self.features["float64"] is not None or profile.promises("dtypes"):
            return
        worst: dict[str, float] = {"float64": 0.0, "float32": 0.0}
        signs: list[float] = []
        for t in (3, 6, 7):
            plain = benign(self.layout, 1, 2, t, t, 5, 5)
            q, k, v = (a + numbers.low_bits(t, n, a.shape, "float64") for n, a in zip("qkv", plain, strict=True))
            x = Inputs(q, k, v, causal=profile.get("causal") == "always")
            try:
                got = self.ask(arrays=(q, k, v), dtype="float64")
            except FAILED:
                return
            for dtype in worst:
                want = expected(profile, x.but(dtype=dtype))
                worst[dtype] = max(worst[dtype], float(np.max(np.abs(got - want.out) / want.error)))
            signs.append(float(np.mean(np.sign((got - want.out) * want.out))))
        # Rounding has either sign; an error that always shrinks or always grows the output is another defect.
        rounding = max(signs) > -0.9 and min(signs) < 0.9
        if worst["float64"] > 1e4 and worst["float32"] <= 0.25 and rounding:
            got_instead = f"that of float32 ({worst['float64']:.0e} times the bound)"
            self.contradictions.append(Contradiction("precision", "the accuracy of float64", got_instead))
            self.features["float64"] = "computed at the accuracy of float32, see convention.precision"
            self.settings["dtypes"] = Setting(("float32",), "inferred")

    def _settle(self, name: str, found: Any) -> None:
        """Keeps what is declared or promised, and notes the contradiction if probing found something else."""
        known = self.settings.get(name)
        if known is None:
            self.settings[name] = Setting(found, "inferred")
        elif found is not None and known.value != found:
            self.contradictions.append(Contradiction(name, str(known.value), str(found)))

    def _polarity(self) -> str | None:
        self_settings = self.settings.pop("polarity", None)
        only_first = np.zeros((4, 4), dtype=bool)
        only_first[:, 0] = True
        try:
            row = self.weights(4, 4, mask=only_first)[-1]
        except FAILED:
            row = np.ones(4)
        finally:
            if self_settings is not None:
                self.settings["polarity"] = self_settings
        if 10 * row[0] < row[1:].max():
            return "masked"
        return "attend" if row[0] > 10 * row[1:].max() or self_settings is None else None

    def _alignment(self) -> str:
        """Row 0 of 2 queries on 8 keys sees 1 key (top-left) or 7 (bottom-right); the nearer reading is taken."""
        try:
            seen = int((self.weights(2, 8, causal=True)[0] > 1e-3).sum())
        except FAILED:
            return "refused"
        return "top-left" if seen < 4 else "bottom-right"

    def _window(self) -> str:
        """Row 3 of 7 under a window of 2 sees keys 2, 3 (left) or some beyond 3 (both)."""
        try:
            seen = self.weights(7, 7, window=2)[3] > 1e-3
        except FAILED:
            return "left"
        return "both" if seen[4:].any() else "left"

    def _empty_row(self, kind: str) -> str:
        """What a row that sees no key becomes, for scores that are not equal."""
        keep = np.ones((4, 4), dtype=bool)
        keep[2] = False
        options = {"mask": keep} if kind == "bool" else {"bias": np.where(keep, 0.0, -np.inf)}
        q, k, _ = benign(self.layout, 1, 1, 4, 4, 4, 4)
        arrays = (q, k, np.eye(4)[None, None])
        try:
            row, plain = self.ask(arrays=arrays, **options)[0, 0, 2], self.ask(arrays=arrays)[0, 0, 2]
        except FAILED:
            return "raises"
        if np.isnan(row).any():
            return "nan"
        if not row.any():
            return "zero"
        return "mean" if np.ptp(row) < np.ptp(plain) / 8 else "unmasked"

    def _deterministic(self) -> bool:
        arrays = benign(self.layout, 2, 2, 17, 17, 8, 8)
        try:
            outputs = [self.ask(arrays=arrays) for _ in range(3)]
        except FAILED:
            return True
        return all(np.array_equal(outputs[0], o, equal_nan=True) for o in outputs[1:])
