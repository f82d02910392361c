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
from attnspec.properties.subject import DTYPES, Contradiction, FloatArray, Profile, Result, Setting
from attnspec.properties.verdict import BadResult, Refused, ValueFailure
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
        self.found: dict[str, Any] = {}  # by probing, whatever is declared
        self.contradictions: list[Contradiction] = []
        self.notes: list[str] = []
        self.returns = 1

    def profile(self) -> Profile:
        notes = list(self.notes)
        if self.signature.unread:
            notes.append(f"no claim exercises the parameters {', '.join(self.signature.unread)}")
        unread = self.returns - 1 - sum(name in self.settings for name in ("weights", "lse"))
        if unread > 0:
            notes.append(f"of the {self.returns} values that a call returns {unread} are not checked")
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
        """The output for benign random inputs, or for those given as `arrays`; `recorded` ones ask for gradients."""
        arrays = options.pop("arrays", None) or benign(self.layout, b, h, t, s, d, e, g)
        options = {"dtype": "float32"} | options
        subject = self.subject()
        if options.pop("recorded", False):
            return subject.recorded(*arrays, **options)
        result: Result = subject(*arrays, **options)
        self.returns = max(self.returns, subject.returns)
        return result.out

    def subject(self, *, explains: bool = False) -> FunctionSubject:
        """The function under what is known of it so far."""
        return FunctionSubject(
            self.loaded.name,
            self.loaded.function,
            self.signature,
            self.arrays,
            self.profile(),
            vjp_function=self.loaded.vjp_function,
            explains=explains,
        )

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
        self._find_dtypes()
        self._find_grouped()
        self._find_causal()
        for role in ("scale", "window", "softcap"):
            if self.signature.has(role):
                self.offers(role, **{role: 2 if role == "window" else 2.0})
            else:
                self.features[role] = "not offered: no such parameter"

    def _find_dtypes(self) -> None:
        for dtype in DTYPES:
            if dtype == "float32":
                continue  # a function that does not run in it is not audited at all
            if dtype in self.arrays.dtypes:
                self.offers(dtype, dtype=dtype)
                if dtype == "bfloat16" and self.arrays.name == "numpy" and self._promotes(dtype):
                    self.features[dtype] = "not offered: NumPy made a wider type of it"
            else:
                self.features[dtype] = f"not offered: {self.arrays.name} has no {dtype}"

    def _promotes(self, dtype: str) -> bool:
        """Whether the output has another dtype: NumPy's products do not know bfloat16, which is no fault of a function."""
        if self.features[dtype] is not None or "dtypes" in self.settings:
            return False
        subject = self.subject()
        subject(*benign(self.layout, 1, 1, 2, 2, 2, 2), dtype=dtype)
        return any(o.kind == "dtype" for o in subject.observations.values())

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
            if plain[0, 1:].any():
                self.contradictions.append(Contradiction("causal", "always", "query 0 attends to later keys"))
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

    # Conventions

    def settle(self, name: str, found: Any) -> None:
        """Keeps what is declared or promised, and notes the contradiction if probing found something else."""
        known = self.settings.get(name)
        self.found[name] = found
        if known is None:
            self.settings[name] = Setting(found, "inferred")
        elif found is not None and known.value != found:
            self.contradictions.append(Contradiction(name, str(known.value), str(found)))
