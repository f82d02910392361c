"""What a claim sees of a subject: NumPy in, NumPy out, and a profile of its conventions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Origin = Literal["declared", "adapter", "contract", "inferred", "default"]
PROMISES: tuple[Origin, ...] = ("declared", "adapter", "contract")

DTYPES = ("float64", "float32", "bfloat16", "float16")  # in the order in which claims prefer them

# The class of rounding errors that the bounds assume in each dtype (docs/bounds.md), unless another is declared.
PRECISION = {"float64": "wide", "float32": "wide", "bfloat16": "stored-blocks", "float16": "stored-blocks"}
PRECISIONS = ("wide", "fused", "stored", "stored-blocks")

UNDER = "under: "  # a need that begins so names the surroundings of the call
AUTOCAST = "autocast to bfloat16"  # those that change the output, within limits
NARROW_KEYS = "narrow keys"  # a need: keys and values come in NARROW, beside queries of the call's dtype
NARROW = "float16"

FEATURES = {
    "rectangular": "T != S",
    "value-width": "values of another width than keys (E != D)",
    "mask": "a boolean mask",
    "bias": "an additive mask or bias",
    "mask-column": "a mask with one column for all keys",
    "causal": "a causal mask",
    "non-causal": "a call without a causal mask",
    "causal-rectangular": "a causal mask at T < S",
    "causal-tall": "a causal mask at T > S",
    "mask-and-causal": "a mask beside the causal flag",
    "mask-and-bias": "a boolean mask beside an additive bias",
    "scale": "a scale argument",
    "window": "a sliding window",
    "softcap": "a soft cap on the scores",
    "grouped": "fewer key/value heads than query heads (1 < G < H)",
    "batch": "a batch axis",
    "heads": "a head axis",
    "float64": "float64",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "gradients": "gradients",
    "weights": "the attention weights beside the output",
    "lse": "the log-sum-exp of each row beside the output",
    "dropout": "dropout of weights, drawn from a seed",
    "own-seed": "a seed or generator of its own for dropout",
    "autocast": "calls under autocast to bfloat16",
    "sinks": "a sink logit of each head",
}


class Setting(msgspec.Struct, frozen=True):
    """One convention of a subject and where it comes from (engine 2)."""

    value: Any
    origin: Origin


class Contradiction(msgspec.Struct, frozen=True):
    """What probing found against a declaration, an adapter or a contract: VIOLATED `convention.<name>`.

    With `where`, what it found there against what it had found itself: VIOLATED `convention.consistent`.
    """

    convention: str
    expected: str
    got: str
    where: str = ""


class Profile(msgspec.Struct, frozen=True):
    """What a subject declares, what its contract promises and what probing inferred.

    `settings` maps a convention to its value and origin; `features` maps each of FEATURES to None if the subject offers
    it, else to the reason why claims that need it are NOT APPLICABLE.
    """

    settings: dict[str, Setting] = {}
    features: dict[str, str | None] = {}
    contradictions: tuple[Contradiction, ...] = ()
    notes: tuple[str, ...] = ()

    def __getitem__(self, convention: str) -> Any:
        return self.settings[convention].value

    def get(self, convention: str, default: Any = None) -> Any:
        setting = self.settings.get(convention)
        return default if setting is None else setting.value

    def promises(self, convention: str) -> bool:
        setting = self.settings.get(convention)
        return setting is not None and setting.origin in PROMISES

    def lacks(self, feature: str) -> str | None:
        """The reason why the subject does not offer the feature, or None if it does."""
        return self.features.get(feature, "not offered")

    def offers(self, feature: str) -> bool:
        return self.lacks(feature) is None

    @property
    def alignment(self) -> Literal["top-left", "bottom-right"]:
        """The causal alignment; a subject that refuses T != S has either, since at T = S they are the same."""
        return "bottom-right" if self.get("alignment") == "bottom-right" else "top-left"

    @property
    def refusals(self) -> dict[str, str]:
        return {f: reason for f, reason in self.features.items() if reason and reason.startswith("refuses")}


@dataclass(frozen=True)
class Result:
    """An output, widened exactly to float64 in layout bhtd; weights [B,H,T,S] and lse [B,H,T] where asked and offered."""

    out: FloatArray
    dtype: str
    weights: FloatArray | None = None
    lse: FloatArray | None = None
    changed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Gradients:
    """Vector-Jacobian products with respect to each input, in float64 and layout bhtd."""

    out: FloatArray
    q: FloatArray
    k: FloatArray
    v: FloatArray
    dtype: str
    seconds: float = 0.0


class Attention(Protocol):
    """An attention function as claims see it (engine 1).

    Arrays are float64 in layout bhtd with values exact in `dtype`; `mask` is boolean, True = may attend; `bias` is added
    to the scores; `sinks` [H] are logits of one more column, dropped after the softmax. What comes back is an exact
    widening, so that equality in float64 is equality in the dtype.

    Errors: Refused if the subject does not offer what is asked; ValueFailure if it raises because of the values;
    BadResult if it returns something else than an output of shape [B,H,T,E].
    """

    profile: Profile

    def __call__(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        *,
        mask: BoolArray | None = None,
        bias: FloatArray | None = None,
        causal: bool = False,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        sinks: FloatArray | None = None,
        dropout: float = 0.0,
        seed: int = 0,
        dtype: str = "float32",
        storage: str = "plain",
        need: tuple[str, ...] = (),
    ) -> Result: ...

    def vjp(self, q: FloatArray, k: FloatArray, v: FloatArray, cotangent: FloatArray, **same: Any) -> Gradients: ...
