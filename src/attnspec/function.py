"""An attention function of any array library as the subject that claims see: NumPy in, NumPy out (engine 1 and 6)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn

import numpy as np

from attnspec import returned, surroundings
from attnspec.adapters import Array, Arrays
from attnspec.arguments import by_place_and_name, options
from attnspec.layout import brought_back, laid_out
from attnspec.properties.subject import (
    AUTOCAST,
    NARROW,
    NARROW_KEYS,
    UNDER,
    BoolArray,
    FloatArray,
    Gradients,
    Profile,
    Result,
)
from attnspec.properties.verdict import BadResult, Observation, Refused, ValueFailure, first_line
from attnspec.randomness import seeded
from attnspec.refusals import OPTIONS, condition, given
from attnspec.signature import Signature

INTERNAL = (IndexError, KeyError, AttributeError, NameError, ZeroDivisionError, RecursionError, SystemError)


class _Call(NamedTuple):
    """One call as it went: all that it returned, the output in float64 and layout bhtd, the arguments by role."""

    native: Any
    out: FloatArray
    arguments: dict[str, Any]
    changed: tuple[str, ...]
    seconds: float


class FunctionSubject:
    """Calls a function in its own layout, array library and conventions, and brings everything back.

    `observations` collects refusals, exceptions that depend on values, and wrong dtypes; `calls` the last calls, from which
    a stand-alone script is written. `vjp_function` takes the arguments of the function with a cotangent after the values,
    and returns the gradients for q, k, v. `explains` asks what each refusal depends on.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        signature: Signature,
        arrays: Arrays,
        profile: Profile,
        *,
        vjp_function: Callable[..., Any] | None = None,
        explains: bool = False,
    ) -> None:
        self.name = name
        self.function = function
        self.signature = signature
        self.arrays = arrays
        self.profile = profile
        self.vjp_function = vjp_function
        self.explains = explains
        self.observations: dict[tuple[str, ...], Observation] = {}
        self.calls: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.returns = 1
        self._previous: tuple[Array, FloatArray] | None = None
        self._conditions: dict[tuple[str, ...], str] = {}

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
        asked = {"mask": mask, "bias": bias, "causal": causal, "scale": scale, "window": window, "softcap": softcap}
        asked |= {"sinks": sinks, "dropout": dropout, "seed": seed}
        around = next((n.removeprefix(UNDER) for n in need if n.startswith(UNDER)), None)
        if around is not None:
            return self._under(around, q, k, v, asked, dtype, storage)
        if NARROW_KEYS in need:
            return self._with_narrow_keys(q, k, v, asked, dtype)
        extras = {e: place for e in returned.SWITCHES if e in need and (place := self.profile.get(e)) is not None}
        switches = {place.switch for place in extras.values()} or {None}
        calls = {
            switch: self._call(q, k, v, asked | {"switch": switch}, dtype, storage, watch="changed" in need)
            for switch in switches
        }
        found = {
            extra: self._extra(returned.values(calls[place.switch].native).get(place.at), place, extra)
            for extra, place in extras.items()
        }
        call = next(iter(calls.values()))
        aliases = self._aliases(returned.output(call.native), call.arguments) if "aliases" in need else ()
        return Result(call.out, dtype, changed=call.changed, aliases=aliases, seconds=call.seconds, **found)

    def _under(
        self,
        around: str,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
    ) -> Result:
        """The same call in other surroundings; `changed` names those that the call altered."""
        library, seen = self.arrays.name, set(self.observations)
        with surroundings.changed(library, around):
            before = surroundings.state(library)
            call = self._call(q, k, v, asked, dtype, storage)
            self.calls[-1]["need"] = (UNDER + around,)
            altered = surroundings.altered(library, before)
        if around == AUTOCAST:  # whose outputs may be of its dtype
            self.observations = {key: o for key, o in self.observations.items() if key in seen or o.kind != "dtype"}
        return Result(call.out, dtype, changed=altered, seconds=call.seconds)

    def _with_narrow_keys(self, q: FloatArray, k: FloatArray, v: FloatArray, asked: Mapping[str, Any], dtype: str) -> Result:
        """The output for keys and values in NARROW. Errors: Refused, whatever is raised: any error will do."""
        inputs, options = self._prepared(q, k, v, asked, dtype, "plain", gradient=False)
        self.calls[-1]["need"] = (NARROW_KEYS,)
        inputs |= {n: self.arrays.make(self.laid_out(x), NARROW) for n, x in (("k", k), ("v", v))}
        try:
            with self._around(asked):
                native = self._called(inputs, options)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            raise Refused(f"keys and values in {NARROW} beside queries in {dtype}", error) from error
        seen = set(self.observations)
        out = self._returned(native, (*q.shape[:3], v.shape[3]), dtype)
        # Which dtype is right for the output is nowhere said.
        self.observations = {key: o for key, o in self.observations.items() if key in seen or o.kind != "dtype"}
        return Result(out, dtype)

    def vjp(self, q: FloatArray, k: FloatArray, v: FloatArray, cotangent: FloatArray, **same: Any) -> Gradients:
        dtype, storage = same.pop("dtype", "float32"), same.pop("storage", "plain")
        same.pop("need", None)
        call, gradients = self._differentiated(q, k, v, same, dtype, storage, cotangent)
        found = {
            name: np.zeros_like(x) if g is None else brought_back(self.arrays.widen(g), self.layout, x.shape[1])
            for (name, x), g in zip({"q": q, "k": k, "v": v}.items(), gradients, strict=True)
        }
        return Gradients(call.out, **found, dtype=dtype, seconds=call.seconds)

    def repeats(self, calls: Iterable[Mapping[str, Any]]) -> bool:
        """Whether each of these calls gives the same bits three times over."""
        return all(self._same_bits(dict(call)) for call in calls if "cotangent" not in call)

    def _same_bits(self, call: dict[str, Any]) -> bool:
        arrays = [call.pop(n) for n in "qkv"]
        try:
            first, *others = [self(*arrays, **call).out for _ in range(3)]
        except (BadResult, Refused, ValueFailure):
            return True  # it refuses alike
        return all(np.array_equal(first, other, equal_nan=True) for other in others)

    def runs(self, q: FloatArray, k: FloatArray, v: FloatArray, *, gradient: bool) -> None:
        """Raises unless a plain call in float32 returns an output of the right type and shape."""
        self._call(q, k, v, {}, "float32", "plain", gradient=gradient)

    def native(self, q: FloatArray, k: FloatArray, v: FloatArray, **asked: Any) -> dict[int | str, Any]:
        """What the function returns, by position or name: for probing."""
        call = self._call(q, k, v, asked, "float32", "plain")
        return {at: x for at, x in returned.values(call.native).items() if at != returned.output_at(call.native)}

    def recorded(self, q: FloatArray, k: FloatArray, v: FloatArray, **options: Any) -> FloatArray:
        """The output of a call whose inputs ask for gradients: for probing."""
        dtype, storage = options.pop("dtype", "float32"), options.pop("storage", "plain")
        return self._call(q, k, v, options, dtype, storage, gradient=True).out

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
        inputs, options = self._prepared(q, k, v, asked, dtype, storage, gradient=gradient)
        arguments = inputs | options
        before = {n: self.arrays.widen(a) for n, a in arguments.items() if self.arrays.owns(a)} if watch else {}
        start = time.perf_counter()
        try:
            with self._around(asked):
                native = self._called(inputs, options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._judge(error, {"q": q, "k": k, "v": v}, asked, dtype, storage, gradient=gradient)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        out = self._returned(native, (*q.shape[:3], v.shape[3]), dtype)
        changed = tuple(n for n, x in before.items() if not _equal(x, self.arrays.widen(arguments[n])))
        return _Call(native, out, arguments, changed, seconds)

    def _differentiated(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
        cotangent: FloatArray,
    ) -> tuple[_Call, list[Array | None]]:
        inputs, options = self._prepared(q, k, v, asked, dtype, storage, gradient=self.vjp_function is None)
        self.calls[-1]["cotangent"] = cotangent
        weight = self.arrays.make(self.laid_out(cotangent), dtype, storage)
        start = time.perf_counter()
        try:
            with self._around(asked):
                native, gradients = self._pulled(inputs, options, weight)
        except (KeyboardInterrupt, NotImplementedError):
            raise
        except BaseException as error:
            self._judge(error, {"q": q, "k": k, "v": v}, asked, dtype, storage, gradient=True)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        out = self._returned(native, (*q.shape[:3], v.shape[3]), dtype)
        for name, x, g in zip("qkv", (q, k, v), gradients, strict=True):
            if g is not None and tuple(g.shape) != self.laid_out(x).shape:
                raise BadResult(f"the gradient of {name} has shape {list(g.shape)}, expected {list(self.laid_out(x).shape)}")
        return _Call(native, out, inputs | options, (), seconds), gradients

    def _pulled(self, inputs: dict[str, Array], options: dict[str, Any], weight: Array) -> tuple[Any, list[Array | None]]:
        """What the function returned, and the gradients: those of the library, or of the declared function."""
        if self.vjp_function is not None:
            positional, named = by_place_and_name(self.signature, inputs, options)
            gradients = (
                self.vjp_function(*positional[:3], weight, *positional[3:], **named)
                if self.signature.positional[:3] == ("q", "k", "v")
                else self.vjp_function(**named, cotangent=weight)
            )
            return self._called(inputs, options), list(gradients)

        def call(q: Array, k: Array, v: Array) -> Any:
            return self._called({"q": q, "k": k, "v": v}, options)

        recorded = self.arrays.recorded(call, [inputs[n] for n in "qkv"], returned.output)
        if not self.arrays.owns(returned.output(recorded.returned)):
            return recorded.returned, [None, None, None]  # `_returned` says what is wrong
        return recorded.returned, recorded.pull(weight)

    # Into the function's world

    def _prepared(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
        *,
        gradient: bool,
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        kept = {n: x for n, x in asked.items() if n != "switch"}
        self.calls.append({"q": q, "k": k, "v": v, "dtype": dtype, "storage": storage, **kept})
        inputs = {
            name: self.arrays.make(self.laid_out(x), dtype, storage, gradient=gradient)
            for name, x in (("q", q), ("k", k), ("v", v))
        }
        return inputs, self.options(asked, q, k, dtype)

    def options(self, asked: Mapping[str, Any], q: FloatArray, k: FloatArray, dtype: str) -> dict[str, Any]:
        """Arguments by role, in the function's terms; a role that it lacks is left out."""
        return options(self.signature, self.profile, self.arrays, asked, q, k, dtype)

    @contextmanager
    def _around(self, asked: Mapping[str, Any]) -> Iterator[None]:
        """The global state seeded for what is drawn from it; and a warning is no exception, not even under `-W error`."""
        own = self.signature.has("seed") or self.signature.has("rng")
        seed = seeded(self.arrays.name, asked.get("seed", 0)) if asked.get("dropout") and not own else nullcontext()
        with warnings.catch_warnings(action="ignore"), seed:
            yield

    @property
    def layout(self) -> str:
        return str(self.profile.get("layout", "bhtd"))

    def laid_out(self, x: FloatArray) -> FloatArray:
        """An array of layout bhtd in the function's own layout."""
        return laid_out(x, self.layout)

    # The call itself

    def _called(self, inputs: Mapping[str, Array], options: Mapping[str, Any]) -> Any:
        positional, named = by_place_and_name(self.signature, inputs, options)
        return self.function(*positional, **named)

    def _judge(
        self,
        error: BaseException,
        inputs: dict[str, FloatArray],
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
        *,
        gradient: bool,
    ) -> NoReturn:
        """Raises Refused if zeros of the same shapes and options are refused too, else ValueFailure (engine 6)."""
        if isinstance(error, MemoryError):
            raise error
        zeros = {n: np.zeros_like(x) for n, x in inputs.items()}
        feature = self._asked(inputs, asked, dtype)
        if self._works(**zeros, asked=asked, dtype=dtype, storage=storage, gradient=gradient):
            self._observe("exception", feature, error)
            raise ValueFailure(error) from error
        options = {n: asked.get(n) for n in (*OPTIONS, "seed")}
        depends = None
        if self.explains:
            key = (type(error).__name__, str(error)[:40], dtype)
            if key not in self._conditions:
                self._conditions[key] = condition(self._works, inputs, options, dtype, storage, gradient=gradient)
            depends = self._conditions[key]
        self._observe("refusal", feature, error, depends)
        raise Refused(feature, error) from error

    def _works(
        self,
        q: FloatArray,
        k: FloatArray,
        v: FloatArray,
        asked: Mapping[str, Any],
        dtype: str,
        storage: str,
        *,
        gradient: bool,
    ) -> bool:
        """Whether a call raises nothing."""
        shape = (*q.shape[:3], v.shape[3])
        own = gradient and self.vjp_function is None
        make = self.arrays.make
        inputs = {n: make(self.laid_out(x), dtype, storage, gradient=own) for n, x in (("q", q), ("k", k), ("v", v))}
        try:
            options = self.options(asked, q, k, dtype)
            with self._around(asked):
                if gradient:
                    self._pulled(inputs, options, make(self.laid_out(np.zeros(shape)), dtype, storage))
                else:
                    self._called(inputs, options)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException:
            return False
        return True

    def _asked(self, inputs: Mapping[str, FloatArray], asked: Mapping[str, Any], dtype: str) -> str:
        options = given(asked)
        shapes = ", ".join(f"{n}{list(self.laid_out(x).shape)}" for n, x in inputs.items())
        return f"{' and '.join(options) or 'a plain call'} for {shapes} in {dtype}"

    def _observe(self, kind: Any, feature: str, error: BaseException, depends: str | None = None) -> None:
        key = (kind, type(error).__name__, str(error)[:40], depends or "")
        seen = Observation(kind, feature, first_line(error), type(error).__name__, condition=depends)
        self.observations.setdefault(key, seen)

    # Out of it

    def _returned(self, native: Any, shape: tuple[int, ...], dtype: str) -> FloatArray:
        out = returned.output(native)
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

    def _extra(self, found: Any, place: returned.Returned, extra: returned.Extra) -> FloatArray:
        """The weights or the log-sum-exp, in float64 and in the order of layout bhtd."""
        if not self.arrays.owns(found):
            raise BadResult(f"the {extra} are {type(found).__name__}, not an array of {self.arrays.name}")
        if len(found.shape) != len(place.axes):
            raise BadResult(f"the {extra} have shape {list(found.shape)}, expected the axes {place.axes}")
        return np.ascontiguousarray(returned.arranged(self.arrays.widen(found), place.axes, extra))

    def _aliases(self, out: Array, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        """Inputs whose memory the output shares, and `the previous output` if this call wrote over it."""
        shared = [n for n, a in inputs.items() if self.arrays.owns(a) and self.arrays.shares_memory(out, a)]
        if self._previous is not None and not _equal(self._previous[1], self.arrays.widen(self._previous[0])):
            shared.append("the previous output")
        self._previous = (out, self.arrays.widen(out))
        return tuple(shared)


def _equal(a: FloatArray, b: FloatArray) -> bool:
    return a.shape == b.shape and bool(((a == b) | (np.isnan(a) & np.isnan(b))).all())
