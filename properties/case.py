"""Cases: plain data that says what to try, and the arrays it stands for (engine 9).

A case never holds arrays. It is a small record of sizes, options and value patterns, written as versioned JSON, from which
`build` makes the same arrays on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np

from attnspec.properties import numbers
from attnspec.properties.spec import SPEC
from attnspec.properties.subject import BoolArray, FloatArray, Result

if TYPE_CHECKING:
    from attnspec.properties.subject import Attention

FORMAT = "attnspec-case/1"

ValueKind = Literal[
    "zeros", "ones", "one-hot", "integers", "constant", "ties", "normal", "fine", "heavy", "needle", "peak"
]  # simple to nasty: the order in which a case shrinks
Storage = Literal["plain", "strided", "offset", "transposed", "expanded", "poisoned"]
MASK_AXES = ("TS", "BHTS", "11TS", "B1TS", "1HTS", "B11S", "BH1S", "111S", "HTS", "1TS", "1S", "S")  # each broadcast rank
MaskKind = Literal["bool", "bias"]
MaskPattern = Literal["none", "padding", "left-padding", "prefix", "band", "random", "normal", "first", "last"]
PEAK = 128.0
LOWEST = -(2.0**128 - 2.0**104)  # as `finite` of a mask: the most negative number of float32, or of a narrower dtype
HUGE = {"k": 2.0**13, "v": 2.0**100}
HUGE_FLOAT16 = {"k": 2.0**4, "v": 2.0**12}
# A huge key keeps scores below the -1e9 with which many implementations hide keys; a huge value has no such limit, since
# a weight that is exactly zero must annul it. Both stay finite in float32 under any sum over keys (docs/bounds.md).


class CaseError(ValueError):
    """A case file that cannot be used: the value, the rule and the fix."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frozen, and strict about fields it does not know."""


class Sizes(_Record, frozen=True):
    """Axis sizes by the letters of docs/notation.md."""

    B: int = 1
    H: int = 1
    G: int = 1
    T: int = 1
    S: int = 1
    D: int = 1
    E: int = 1


class Call(_Record, frozen=True):
    """Options of the call."""

    causal: bool = False
    scale: float | None = None
    window: int | None = None
    softcap: float | None = None
    dropout: float = 0.0
    sinks: bool = False


class Mask(_Record, frozen=True):
    """A mask by its pattern. `axes` names each axis by its letter or 1; `empty` lists rows [b, t] that see no key."""

    kind: MaskKind = "bool"
    pattern: MaskPattern = "random"
    keep: float = 0.5
    axes: str = "BHTS"
    empty: tuple[tuple[int, int], ...] = ()
    finite: float | None = None


class Values(_Record, frozen=True):
    """How one array is filled; `gain` is a power of two, `at` names the needle's positions."""

    kind: ValueKind = "normal"
    gain: float = 1.0
    at: tuple[int, ...] = ()


class Plant(_Record, frozen=True):
    """A later change to one array: content that must not matter, or must matter in a known way."""

    array: Literal["q", "k", "v", "scores"]
    where: Literal["after", "hidden", "other-rows", "all"]
    t: int = 0
    value: Literal["one", "redrawn", "huge", "nan", "inf"] | float = "redrawn"


class Case(_Record, frozen=True):
    """One thing to try, complete: the target is not part of it."""

    claim: str
    dtype: str
    sizes: Sizes
    call: Call = Call()
    mask: Mask | None = None
    values: dict[str, Values] = {}
    plant: tuple[Plant, ...] = ()
    seed: int = 0
    storage: Storage = "plain"
    schedule: tuple[tuple[str, int], ...] | None = None
    builder: int = numbers.BUILDER
    spec: str = SPEC
    format: str = FORMAT
    id: str = ""
    sha256: str = ""

    def but(self, **changes: Any) -> Self:
        return msgspec.structs.replace(self, **changes)

    def build(self) -> Inputs:
        """The arrays of this case, before anything is planted."""
        z = self.sizes
        mask = self._mask()
        return Inputs(
            q=self._values("q", (z.B, z.H, z.T, z.D)),
            k=self._values("k", (z.B, z.G, z.S, z.D)),
            v=self._values("v", (z.B, z.G, z.S, z.E)),
            mask=mask if self.mask and self.mask.kind == "bool" else None,
            bias=self._bias(mask) if mask is not None and self.mask and self.mask.kind == "bias" else None,
            causal=self.call.causal,
            scale=self.call.scale,
            window=self.call.window,
            softcap=self.call.softcap,
            sinks=numbers.normal(self.seed, "sinks", (z.H,)) if self.call.sinks else None,
            dropout=self.call.dropout,
            seed=self.seed,
            dtype=self.dtype,
            storage=self.storage,
        )

    def redrawn(self, plant: Plant, like: FloatArray) -> FloatArray:
        """New content for the planted array, of the same shape: its own stream, as large as `value` says."""
        if plant.value == "one":
            return numbers.held(like + 1.0, self.dtype)
        gain = self.values.get(plant.array, Values()).gain
        if plant.value in ("nan", "inf"):
            return np.full(like.shape, float(plant.value))
        fresh = numbers.normal(self.seed, f"{plant.array}/planted", like.shape) * gain
        huge = HUGE_FLOAT16 if self.dtype == "float16" else HUGE
        larger = np.where(fresh == 0, gain, fresh) * (huge.get(plant.array, 1.0) if plant.value == "huge" else 1.0)
        return numbers.held(larger, self.dtype)

    def cotangent(self) -> FloatArray:
        z = self.sizes
        return numbers.normal(self.seed, "cotangent", (z.B, z.H, z.T, z.E))

    def _values(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        if self.storage == "expanded":  # one batch row, seen from every other
            return np.broadcast_to(self._drawn(name, (min(shape[0], 1), *shape[1:])), shape).copy()
        return self._drawn(name, shape)

    def _drawn(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        how = self.values.get(name, Values())
        positions, width = shape[-2:]
        if how.kind == "zeros":
            return np.zeros(shape)
        if how.kind == "ones":
            return np.full(shape, how.gain)
        if how.kind == "one-hot":
            rows = np.eye(width)[np.arange(positions) % width] if width else np.zeros((positions, width))
            return np.broadcast_to(rows * how.gain, shape).copy()
        x = numbers.normal(self.seed, name, shape)
        match how.kind:
            case "integers":
                x = np.trunc(x)
            case "constant":
                x = np.broadcast_to(x[..., :1, :], shape).copy()
            case "ties":
                x = x[..., np.arange(positions) % 2, :] if positions > 1 else x
            case "fine":
                x = numbers.fine(x, self.seed, name, self.dtype)
            case "heavy":
                x = x * np.where(numbers.below(8, self.seed, f"{name}/heavy", shape) == 0, 64.0, 1.0)
            case "peak":
                x[..., [t for t in how.at if t < positions], :] = PEAK
            case "needle":
                x[..., [t for t in how.at if t < positions], :] *= 32.0
        return x * how.gain

    def _mask(self) -> BoolArray | None:
        """The boolean pattern, in the shape that `axes` says, with a visible key in every row not in `empty`."""
        if self.mask is None:
            return None
        m, z = self.mask, self.sizes
        shape = tuple(1 if a == "1" else getattr(z, a) for a in m.axes)
        full = (1,) * (4 - len(shape)) + shape
        t, s = np.arange(full[-2])[:, None], np.arange(full[-1])
        lengths = 1 + numbers.below(max(z.S, 1), self.seed, "lengths", (full[0], 1, 1, 1))
        keys = np.arange(z.S)
        match m.pattern:
            case "padding":
                keep = keys < lengths
            case "left-padding":
                keep = keys >= z.S - lengths
            case "first":
                keep = keys < max(1, int(m.keep * z.S))
            case "last":
                keep = keys >= z.S - max(1, int(m.keep * z.S))
            case "prefix":
                keep = (keys < lengths) | (s <= t)
            case "band":
                keep = np.abs(s - t) <= 1 + int(4 * m.keep)
            case "random":
                keep = numbers.below(256, self.seed, "mask", full) < 256 * m.keep
            case "normal" | "none":
                keep = np.ones(full, dtype=bool)
        keep = np.broadcast_to(keep, full).copy()
        self._leave_one_key(keep)
        for b, row in m.empty:
            keep[min(b, full[0] - 1), :, min(row, full[2] - 1), :] = False
        return keep.reshape(shape)

    def _leave_one_key(self, keep: BoolArray) -> None:
        """In place: no row is emptied by accident, whatever the causal flag and the window hide on top of the mask."""
        z, call = self.sizes, self.call
        if z.S == 0:
            return
        if call.causal and (keep.shape[-2] != z.T or z.T != z.S):
            keep[..., 0] = True  # the one key that every row of either alignment may see
            return
        seen = keep
        if z.T == z.S == keep.shape[-2]:
            t, s = np.arange(z.T)[:, None], np.arange(z.S)
            past = (s <= t) & (t - s < call.window) if call.window else s <= t  # a window of either side has these keys
            seen = keep & past if call.causal or call.window else keep
        rows = np.nonzero(~seen.any(-1))
        keep[(*rows, rows[-1] % z.S)] = True

    def _bias(self, mask: BoolArray) -> FloatArray:
        assert self.mask is not None
        if self.mask.pattern == "normal":
            return numbers.normal(self.seed, "bias", mask.shape)
        hidden = -np.inf if self.mask.finite is None else numbers.held(np.array(self.mask.finite), self.dtype)
        return np.where(mask, 0.0, hidden)

    # Files

    def canonical(self) -> bytes:
        """Canonical JSON without id and sha256: sorted keys, no spaces."""
        plain = msgspec.to_builtins(self)
        del plain["id"], plain["sha256"]
        if not plain["call"]["sinks"]:  # younger than the format: cases without it keep their ids
            del plain["call"]["sinks"]
        return msgspec.json.encode(plain, order="sorted")

    def signed(self) -> Self:
        """The case with its id and the hash of its arrays filled in."""
        return self.but(id=hashlib.sha256(self.canonical()).hexdigest()[:8], sha256=self.build().digest())

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self.signed()), indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a case file. Errors: CaseError for what is not a case, for a newer format, for arrays that differ."""
        try:
            head = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise CaseError(f"not JSON ({error}); give a case file as `attnspec audit` writes it") from None
        found = head.get("format") if isinstance(head, dict) else None
        if found != FORMAT:
            raise CaseError(
                f"format={found!r}: this version reads {FORMAT!r}"
                + ("; use a newer attnspec" if str(found).startswith("attnspec-case/") else "; this is not a case file")
            )
        try:
            case = msgspec.json.decode(text, type=cls)
        except msgspec.ValidationError as error:
            raise CaseError(f"{error}; the fields of a case are listed in docs/cases.md") from None
        case._check()
        if case.builder != numbers.BUILDER:
            raise CaseError(f"builder={case.builder}: this version knows builder {numbers.BUILDER}; use a newer attnspec")
        if case.sha256 and case.sha256 != (built := case.build().digest()):
            raise CaseError(f"sha256={case.sha256[:12]}...: the arrays built here have {built[:12]}...; was the file edited?")
        return case

    def _check(self) -> None:
        """Errors: CaseError for values that no case has, whatever their types."""
        z = self.sizes
        if min(z.H, z.G, z.D) < 1 or min(z.B, z.T, z.S, z.E) < 0:
            shown = ", ".join(f"{name}={size}" for name, size in msgspec.to_builtins(z).items())
            raise CaseError(f"sizes {shown}: H, G and D are 1 or more, the others 0 or more")
        if z.H % z.G:
            raise CaseError(f"sizes H={z.H}, G={z.G}: the key/value heads G divide the query heads H")
        if self.mask is not None and self.mask.axes not in MASK_AXES:
            raise CaseError(f"mask axes={self.mask.axes!r}: one of {', '.join(MASK_AXES)}")
        if self.mask is not None and any(not (0 <= b < z.B and 0 <= t < z.T) for b, t in self.mask.empty):
            raise CaseError(f"mask empty={self.mask.empty}: rows [b, t] with b < B={z.B} and t < T={z.T}")


@dataclass(frozen=True)
class Inputs:
    """The arrays and options of one call, in float64 and layout bhtd."""

    q: FloatArray
    k: FloatArray
    v: FloatArray
    mask: BoolArray | None = None
    bias: FloatArray | None = None
    causal: bool = False
    scale: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: FloatArray | None = None
    dropout: float = 0.0
    seed: int = 0
    dtype: str = "float64"
    storage: str = "plain"

    def but(self, **changes: Any) -> Inputs:
        return replace(self, **changes)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return {
            "mask": self.mask,
            "bias": self.bias,
            "causal": self.causal,
            "scale": self.scale,
            "window": self.window,
            "softcap": self.softcap,
            "sinks": self.sinks,
            "dropout": self.dropout,
            "seed": self.seed,
            "dtype": self.dtype,
            "storage": self.storage,
        }

    def through(self, subject: Attention) -> FloatArray:
        """The subject's output for these inputs."""
        return self.result(subject).out

    def result(self, subject: Attention, *need: str) -> Result:
        """All that the subject gives for these inputs; `need` asks for weights, lse, changed or aliases."""
        return subject(self.q, self.k, self.v, **self.options, need=need)

    def digest(self) -> str:
        """SHA-256 over names, shapes and little-endian float64 bytes of the arrays."""
        h = hashlib.sha256()
        for name in ("q", "k", "v", "mask", "bias", "sinks"):
            array = getattr(self, name)
            if array is not None:
                h.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
        return h.hexdigest()
