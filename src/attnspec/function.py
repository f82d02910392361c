"""An attention function of any array library as the subject that claims see: NumPy in, NumPy out (engine 1 and 6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from attnspec.adapters import Array, Arrays
from attnspec.layout import brought_back, laid_out, mask_laid_out
from attnspec.properties.subject import BoolArray, FloatArray, Gradients, Profile, Result
from attnspec.properties.verdict import BadResult, Observation, Refused, ValueFailure, first_line
from attnspec.signature import Signature

NO_WINDOW = 1 << 30  # for a function whose window is a required argument
INTERNAL = (IndexError, KeyError, AttributeError, NameError, ZeroDivisionError, RecursionError, SystemError)


class _Call(NamedTuple):
    """One call as it went: the native output, the same in float64 and layout bhtd, the arguments by role."""

    native: Array
    out: FloatArray
    arguments: dict[str, Any]
    changed: tuple[str, ...]
    seconds: float


class FunctionSubject:
    """Calls a function in its own layout, array library and conventions, and brings everything back.

    `observations` collects refusals, exceptions that depend on values, and wrong dtypes; `calls` the last calls, from which
    a stand-alone script is written.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], signature: Signature, arrays: Arrays, profile: Profile
    ) -> None:
        self.name = name
        self.function = function
        self.signature = signature
        self.arrays = arrays
        self.profile = profile
        self.observations: dict[tuple[str, ...], Observation] = {}
        self.calls: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.returns = 1
        self._previous: tuple[Array, FloatArray] | None = None

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
    ) -> Result:
        del dropout, seed, sinks  # no claim draws these yet; they are part of the protocol
        asked = {"mask": mask, "bias": bias, "causal": causal, "scale": scale, "window": window, "softcap": softcap}
        call = self._call(q, k, v, asked, dtype, storage, watch="changed" in need)
        aliases = self._aliases(call.native, call.arguments) if "aliases" in need else ()
        return Result(call.out, dtype, changed=call.changed, aliases=aliases, seconds=call.seconds)

    def vjp(self, q: FloatArray, k: FloatArray, v: FloatArray, cotangent: FloatArray, **same: Any) -> Gradients:
        dtype, storage = same.pop("dtype", "float32"), same.pop("storage", "plain")
        for unread in ("sinks", "dropout", "seed"):
            same.pop(unread, None)
        call = self._call(q, k, v, same, dtype, storage, gradient=True)
        self.calls[-1]["cotangent"] = cotangent
        start = time.perf_counter()
        weight = self.arrays.make(self.laid_out(cotangent), dtype, storage)
        gradients = self.arrays.vjp(call.native, [call.arguments[n] for n in "qkv"], weight)
        self.seconds += time.perf_counter() - start
        found = {
            name: np.zeros_like(x) if g is None else brought_back(self.arrays.widen(g), self.layout, x.shape[1])
            for (name, x), g in zip({"q": q, "k": k, "v": v}.items(), gradients, strict=True)
        }
        return Gradients(call.out, **found, dtype=dtype, seconds=time.perf_counter() - start + call.seconds)

    def runs(self, q: FloatArray, k: FloatArray, v: FloatArray, *, gradient: bool) -> None:
        """Raises unless a plain call in float32 returns an output of the right type and shape."""
        self._call(q, k, v, {}, "float32", "plain", gradient=gradient)

    def _call(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
        *,
        gradient: bool = False,
        watch: bool = False,
    ) -> _Call:
        self.calls.append({"q": q, "k": k, "v": v, "dtype": dtype, "storage": storage, **asked})
        inputs = self._inputs(q, k, v, dtype, storage, gradient=gradient)
        options = self.options(asked, q, k, dtype)
        arguments = inputs | options
        before = {n: self.arrays.widen(a) for n, a in arguments.items() if self.arrays.owns(a)} if watch else {}
        native, seconds = self._run(inputs, options, asked, dtype, storage)
        out = self._returned(native, (*q.shape[:3], v.shape[3]), dtype)
        changed = tuple(n for n, x in before.items() if not _equal(x, self.arrays.widen(arguments[n])))
        return _Call(_first(native), out, arguments, changed, seconds)

    # Into the function's world

    def _inputs(
        self, q: FloatArray, k: FloatArray, v: FloatArray, dtype: str, storage: str, *, gradient: bool = False
    ) -> dict[str, Array]:
        return {
            name: self.arrays.make(self.laid_out(x), dtype, storage, gradient=gradient)
            for name, x in (("q", q), ("k", k), ("v", v))
        }

    def options(self, asked: Mapping[str, Any], q: FloatArray, k: FloatArray, dtype: str) -> dict[str, Any]:
        """Arguments by role; a role that the function lacks is left out (claims that need it do not reach this)."""
        options: dict[str, Any] = {}
        mask, bias = asked.get("mask"), asked.get("bias")
        if mask is not None:
            shown = ~mask if self.profile.get("polarity") == "masked" else mask
            options["mask" if self.signature.has("mask") else "bias"] = self.arrays.make(
                mask_laid_out(shown, self.layout), "bool"
            )
        if bias is not None:
            options["bias" if self.signature.has("bias") else "mask"] = self.arrays.make(
                mask_laid_out(bias, self.layout), dtype
            )
        if self.signature.has("causal"):
            options["causal"] = bool(asked.get("causal")) or self.profile.get("causal") == "always"
        for role in ("scale", "window", "softcap"):
            if asked.get(role) is not None:
                # As flash-attn counts: keys before the current one, keys after it.
                options[role] = (asked[role] - 1, 0) if role in self.signature.pairs else asked[role]
        if k.shape[1] != q.shape[1] and self.signature.has("enable_grouped"):
            options["enable_grouped"] = True
        if self.signature.has("heads"):
            options["heads"] = q.shape[1]
        for role in self.signature.active:
            options.setdefault(role, 0.0 if role == "dropout" else None)
        neutral = {"dropout": 0.0, "scale": q.shape[3] ** -0.5, "window": NO_WINDOW}
        for role in self.signature.required:
            if role not in ("q", "k", "v"):
                options.setdefault(role, neutral.get(role))
        return options

    @property
    def layout(self) -> str:
        return str(self.profile.get("layout", "bhtd"))

    def laid_out(self, x: FloatArray) -> FloatArray:
        """An array of layout bhtd in the function's own layout."""
        return laid_out(x, self.layout)

    # The call itself

    def arguments(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments under the function's own parameter names."""
        values = {**inputs, **options}
        by_name = {
            self.signature.names[role]: value for role, value in values.items() if role not in self.signature.positional
        }
        return [values[role] for role in self.signature.positional if role in values], by_name

    def _run(
        self, inputs: dict[str, Array], options: dict[str, Any], asked: Mapping[str, Any], dtype: str, storage: str
    ) -> tuple[Any, float]:
        positional, named = self.arguments(inputs, options)
        start = time.perf_counter()
        try:
            native = self.function(*positional, **named)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._judge(error, inputs, options, asked, dtype, storage)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        return native, seconds

    def _judge(
        self,
        error: BaseException,
        inputs: dict[str, Array],
        options: dict[str, Any],
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
    ) -> None:
        """Raises Refused if zeros of the same shapes and options are refused too, else ValueFailure (engine 6)."""
        if isinstance(error, MemoryError):
            raise error
        zeros = {n: self.arrays.make(np.zeros(a.shape), dtype, storage) for n, a in inputs.items()}
        positional, named = self.arguments(zeros, options)
        feature = self._asked(inputs, asked, dtype)
        try:
            self.function(*positional, **named)
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._observe("refusal", feature, error)
            raise Refused(feature, error) from error
        self._observe("exception", feature, error)
        raise ValueFailure(error) from error

    def _asked(self, inputs: Mapping[str, Array], asked: Mapping[str, Any], dtype: str) -> str:
        options = [name for name, value in asked.items() if value is not None and value is not False]
        shapes = ", ".join(f"{n}{list(a.shape)}" for n, a in inputs.items())
        return f"{' and '.join(options) or 'a plain call'} for {shapes} in {dtype}"

    def _observe(self, kind: Any, feature: str, error: BaseException) -> None:
        key = (kind, type(error).__name__, str(error)[:40])
        self.observations.setdefault(key, Observation(kind, feature, first_line(error), type(error).__name__))

    # Out of it

    def _returned(self, native: Any, shape: tuple[int, ...], dtype: str) -> FloatArray:
        out = _first(native)
        self.returns = max(self.returns, len(native) if isinstance(native, (tuple, list, dict)) else 1)
        if not self.arrays.owns(out):
            raise BadResult(f"the function returned {type(out).__name__}, not an array of {self.arrays.name}")
        in_layout = self.laid_out(np.broadcast_to(0.0, shape)).shape
        if tuple(out.shape) != in_layout:
            raise BadResult(f"the output has shape {list(out.shape)}, expected {list(in_layout)} in layout {self.layout}")
        found = self.arrays.dtype_of(out)
        if not found.removeprefix("b").startswith("float"):
            raise BadResult(f"the output is of dtype {found}, not a floating-point array")
        if found != dtype:
            key = ("dtype", found, dtype)
            self.observations.setdefault(key, Observation("dtype", f"queries in {dtype}", f"the output is {found}", found))
        wide = brought_back(self.arrays.widen(out), self.layout, shape[1])
        return np.ascontiguousarray(wide)

    def _aliases(self, out: Array, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        """Inputs whose memory the output shares, and `the previous output` if this call wrote over it."""
        shared = [n for n, a in inputs.items() if self.arrays.owns(a) and self.arrays.shares_memory(out, a)]
        if self._previous is not None and not _equal(self._previous[1], self.arrays.widen(self._previous[0])):
            shared.append("the previous output")
        self._previous = (out, self.arrays.widen(out))
        return tuple(shared)


def _first(native: Any) -> Any:
    """The output among what a function returns: the first of several, or the entry that is called so."""
    if isinstance(native, dict):
        return next((native[name] for name in ("out", "output", "attn_output") if name in native), native)
    return native[0] if isinstance(native, (tuple, list)) and native else native


def _equal(a: FloatArray, b: FloatArray) -> bool:
    return a.shape == b.shape and bool(((a == b) | (np.isnan(a) & np.isnan(b))).all())
