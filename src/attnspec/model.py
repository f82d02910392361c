"""A language model of any array library as the subject that claims see: NumPy in, NumPy out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np

from attnspec import surroundings, torch_models
from attnspec.adapters import Array, Arrays
from attnspec.properties.bounds_models import LIMIT as LIMITS
from attnspec.properties.models import Ids
from attnspec.properties.subject import BoolArray, FloatArray, Profile
from attnspec.properties.verdict import BadResult, Observation, Refused, first_line

FAILED = (Refused, BadResult)


class ModelSubject:
    """Calls a model in its own array library.

    `calls` are the calls of the last case, states as the names that a script gives them; `observations` and `seconds` are as
    those of FunctionSubject.
    """

    def __init__(self, name: str, model: Any, arrays: Arrays, profile: Profile) -> None:
        self.name, self.model, self.arrays, self.profile = name, model, arrays, profile
        self.vocab_size = int(model.vocab_size)
        self.max_length = int(getattr(model, "max_length", 0) or 0)
        self.observations: dict[tuple[str, ...], Observation] = {}
        self.calls: list[dict[str, Any]] = []
        self.changed: dict[str, list[str]] = {"arrays": [], "settings": []}
        self.variable = "model"
        self.seconds = 0.0

    def logits(self, ids: Ids, mask: BoolArray | None = None) -> FloatArray:
        return self._widened(self._call("logits", ids, *self._real(mask)), ids)

    def start(self, batch: int) -> Any:
        return _State(self._call("start", batch), self._number())

    def extend(self, ids: Ids, state: Any, mask: BoolArray | None = None) -> tuple[FloatArray, Any]:
        found = self._call("extend", ids, state, *self._real(mask))
        if not isinstance(found, tuple) or len(found) != 2:
            raise BadResult(f"extend returned {type(found).__name__}, expected the pair (logits, state)")
        return self._widened(found[0], ids), _State(found[1], self._number())

    def reorder(self, state: Any, index: Ids) -> Any:
        return _State(self._call("reorder", state, index), self._number())

    def crop(self, state: Any, length: int) -> Any:
        return _State(self._call("crop", state, length), self._number())

    def fork(self, state: Any) -> Any:
        return _State(self._call("fork", state), self._number())

    def native(self, ids: Ids) -> Array:
        """The logits as the model gives them."""
        return self._call("logits", ids)

    def start_in(self, cache: str, batch: int) -> Any:
        return _State(self._call(f"caches[{cache!r}]", batch), self._number())

    def by_route(self, route: str, ids: Ids, mask: BoolArray | None = None) -> FloatArray:
        return self._widened(self._call(f"routes[{route!r}]", *self._before(ids), ids, *self._masks(mask)), ids)

    def generate(self, ids: Ids, count: int, mask: BoolArray | None = None) -> Ids:
        given = (*self._before(ids), ids, count, *self._masks(mask))
        return self._array("generate", given, (len(ids), count)).astype(np.int64)

    def converse(self, turns: Sequence[Ids], count: int) -> list[Ids]:
        found = self._call("converse", *self._before(turns[0]), list(turns), count)
        if not isinstance(found, (list, tuple)) or len(found) != len(turns):
            raise BadResult(f"converse returned {shown(found)}, expected the words after each of {len(turns)} turns")
        return [self._shaped(words, "converse", (len(turns[0]), count)).astype(np.int64) for words in found]

    def beams(self, ids: Ids, count: int, width: int) -> tuple[Ids, FloatArray]:
        found = self._call("beams", *self._before(ids), ids, count, width)
        if not isinstance(found, tuple) or len(found) != 2:
            raise BadResult(f"beams returned {shown(found)}, expected the pair (words, scores)")
        words = self._shaped(found[0], "beams", (len(ids), width, count)).astype(np.int64)
        return words, self._shaped(found[1], "beams", (len(ids), width))

    def loss(self, ids: Ids, mask: BoolArray | None = None) -> float:
        return float(self._array("loss", (*self._before(ids), ids, *self._masks(mask)), ()))

    def attentions(self, ids: Ids, mask: BoolArray | None = None) -> list[FloatArray]:
        B, T = ids.shape
        found: list[FloatArray] = []
        layers = list(self._call("attentions", *self._before(ids), ids, *self._masks(mask)))
        for number, weights in enumerate(layers):
            if any(self.arrays.owns(weights) and self.arrays.shares_memory(weights, other) for other in layers[:number]):
                self.changed["arrays"].append(
                    f"attention weights of a layer before, by those of layer {number}, which lie in their memory"
                )
            out = self._shaped(weights, "attentions", None)
            if out.ndim != 4 or (out.shape[0], *out.shape[2:]) != (B, T, T):
                raise BadResult(f"attentions has an array of shape {list(out.shape)}, expected [{B}, heads, {T}, {T}]")
            found.append(out)
        return found

    def jacobian(self, ids: Ids) -> FloatArray:
        T = ids.shape[1]
        return self._array("jacobian", (*self._before(ids), ids), (T, T))

    def grafted(self, ids: Ids, others: Ids) -> FloatArray:
        return self._widened(self._call("grafted", *self._before(ids), ids, others), ids)

    def gradients(self, ids: Ids, *, checkpointing: bool = False) -> dict[str, FloatArray]:
        found = self._call("gradients", *self._before(ids), ids, *((True,) if checkpointing else ()))
        if not isinstance(found, dict):
            raise BadResult(f"gradients returned {shown(found)}, expected a dict from names of weights to gradients")
        return {str(name): self._shaped(x, "gradients", None) for name, x in found.items()}

    def reloaded(self) -> Self:
        return self._made(self._call("reloaded"))

    def renamed(self, permutation: Ids) -> Self:
        return self._made(self._call("renamed", permutation))

    def narrowed(self, dtype: str) -> Self:
        return self._made(self._call("narrowed", dtype))

    def nudged(self, changes: dict[str, FloatArray]) -> Self:
        return self._made(self._call("nudged", changes))

    def surrounded(self, around: str, ids: Ids, mask: BoolArray | None = None) -> tuple[FloatArray, tuple[str, ...]]:
        with surroundings.changed(self.arrays.name, around):
            before = surroundings.state(self.arrays.name)
            out = self.logits(ids, mask)
            self.calls[-1]["around"] = around
            return out, surroundings.altered(self.arrays.name, before)

    def altered(self, what: Literal["arrays", "settings"]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(self.changed[what]))
        self.changed[what].clear()
        return found

    def has(self, method: str) -> bool:
        """Whether the model has a method, or a torch model has it through torch_models."""
        return hasattr(self.model, method) or (self.arrays.name == "torch" and torch_models.serves(self.model, method))

    def _before(self, ids: Ids) -> tuple[Any, ...]:
        """What stands before the ids in a call."""
        del ids
        return ()

    def _masks(self, mask: BoolArray | None) -> tuple[Any, ...]:
        """What stands after the ids in a call."""
        return self._real(mask)

    def _array(self, method: str, given: tuple[Any, ...], shape: tuple[int, ...]) -> FloatArray:
        return self._shaped(self._call(method, *given), method, shape)

    def _shaped(self, found: Any, method: str, shape: tuple[int, ...] | None) -> FloatArray:
        """The array in float64. Errors: BadResult for something else, or another shape."""
        if isinstance(found, (int, float)) and shape == ():
            return np.asarray(float(found))
        if not self.arrays.owns(found) and not isinstance(found, np.ndarray):
            raise BadResult(f"{method} returned {shown(found)}, not an array of {self.arrays.name}")
        if shape is not None and tuple(found.shape) != shape:
            raise BadResult(f"{method} returned shape {list(found.shape)}, expected {list(shape)}")
        return np.asarray(self.arrays.widen(found) if self.arrays.owns(found) else found, dtype=np.float64)

    def _made(self, model: Any) -> Self:
        """A model that this one made: its calls stand among those of this one, under a name of its own."""
        other = type(self)(self.name, model, self.arrays, self.profile)
        other.calls, other.changed, other.variable = self.calls, self.changed, f"model{self._number()}"
        return other

    def repeats(self, calls: Iterable[Mapping[str, Any]]) -> bool:
        """True: a model that answers otherwise each time has a claim of its own."""
        del calls
        return True

    def _number(self) -> int:
        return len(self.calls)

    def _real(self, mask: BoolArray | None) -> tuple[Ids, ...]:
        return () if mask is None else (mask.astype(np.int64),)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Calls the method on arrays of the library. Errors: Refused, whatever the method raises."""
        self.calls.append({"method": method, "arguments": arguments, "on": self.variable})
        own, settings = [self._own(argument) for argument in arguments], surroundings.Settings(self.arrays.name)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(action="ignore"):
                return self._method(method)(*own)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            key = ("refusal", type(error).__name__, str(error)[:40])
            self.observations.setdefault(key, Observation("refusal", method, first_line(error), type(error).__name__))
            raise Refused(method, error) from error
        finally:
            self.seconds += time.perf_counter() - start
            self._look_for_changes(method, arguments, own)
            self.changed["settings"] += [f"{name}, by {method}" for name in settings.put_back()]

    def _method(self, method: str) -> Callable[..., Any]:
        """`routes['name']` is a value of a mapping; a torch model without a method may have it through torch_models."""
        name, _, key = method.partition("[")
        if key:
            return getattr(self.model, name)[key[1:-2]]  # type: ignore[no-any-return]
        if not hasattr(self.model, method) and self.has(method):
            self.calls[-1]["function"] = True
            return partial(getattr(torch_models, method), self.model)
        return getattr(self.model, method)  # type: ignore[no-any-return]

    def _look_for_changes(self, method: str, arguments: tuple[Any, ...], own: list[Any]) -> None:
        """Notes arrays that the call was given and changed."""
        for argument, array in zip(arguments, own, strict=True):
            if isinstance(argument, np.ndarray) and not np.array_equal(self.arrays.widen(array), argument):
                self.changed["arrays"].append(f"the {'mask or ' if argument.max(initial=0) < 2 else ''}ids given to {method}")

    def _own(self, argument: Any) -> Any:
        if isinstance(argument, _State):
            return argument.state
        if isinstance(argument, list):
            return [self._own(one) for one in argument]
        if isinstance(argument, dict):
            return {name: self.arrays.make(x, self.profile["dtypes"][0]) for name, x in argument.items()}
        return self.arrays.make(argument, "int64") if isinstance(argument, np.ndarray) else argument

    def _widened(self, out: Array, ids: Ids) -> FloatArray:
        if not self.arrays.owns(out):
            raise BadResult(f"the logits are {type(out).__name__}, not an array of {self.arrays.name}")
        wanted = (*ids.shape, self.vocab_size)
        if tuple(out.shape) != wanted:
            raise BadResult(f"the logits have shape {list(out.shape)}, expected {list(wanted)}: rows, tokens, words")
        if (dtype := self.arrays.dtype_of(out)) not in LIMITS:
            raise BadResult(f"the logits are {dtype}, expected one of {', '.join(LIMITS)}")
        return np.ascontiguousarray(self.arrays.widen(out))


class TranslatorSubject(ModelSubject):
    """A sequence-to-sequence model: as a language model, all rows have the same source."""

    def __init__(self, name: str, model: Any, arrays: Arrays, profile: Profile) -> None:
        super().__init__(name, model, arrays, profile)
        self._low, self._high = profile.get("tokens", (0, self.vocab_size))
        self.names = np.arange(self.vocab_size)  # of the words, for a model that has renamed them

    def logits(self, ids: Ids, mask: BoolArray | None = None) -> FloatArray:
        return self.translate(self._source(len(ids)), ids, None, mask)

    def start(self, batch: int) -> Any:
        return self.begin(self._source(batch))

    def translate(
        self, source: Ids, target: Ids, source_mask: BoolArray | None = None, target_mask: BoolArray | None = None
    ) -> FloatArray:
        masks = [self._real(mask) for mask in (source_mask, target_mask)]
        given = tuple(mask[0] if mask else None for mask in masks) if any(masks) else ()
        return self._widened(self._call("logits", source, target, *given), target)

    def begin(self, source: Ids, source_mask: BoolArray | None = None) -> Any:
        real = self._real(source_mask)
        memory = _State(self._call("encode", source, *real), self._number())
        return _State(self._call("start", memory, *real), self._number())

    def start_in(self, cache: str, batch: int) -> Any:
        memory = _State(self._call("encode", self._source(batch)), self._number())
        return _State(self._call(f"caches[{cache!r}]", memory), self._number())

    def native(self, ids: Ids) -> Array:
        return self._call("logits", self._source(len(ids)), ids)

    def _before(self, ids: Ids) -> tuple[Any, ...]:
        return (self._source(len(ids)),)

    def _masks(self, mask: BoolArray | None) -> tuple[Any, ...]:
        return () if mask is None else (None, *self._real(mask))

    def renamed(self, permutation: Ids) -> Self:
        other = super().renamed(permutation)
        other.names = permutation[self.names]
        return other

    def _source(self, rows: int) -> Ids:
        return np.repeat(self.names[self._low + np.arange(1, 6)[None] % (self._high - self._low)], rows, axis=0)


def shown(found: object) -> str:
    return f"{type(found).__name__} {found!r:.40}"


class _State:
    """A state of the model, or a memory, and the number of the call that gave it."""

    def __init__(self, state: Any, number: int) -> None:
        self.state, self.number = state, number

    def __str__(self) -> str:
        return f"state{self.number}"
