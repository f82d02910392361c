"""A language model of any array library as the subject that claims see: NumPy in, NumPy out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from attnspec.adapters import Array, Arrays
from attnspec.properties.bounds_models import LIMIT as LIMITS
from attnspec.properties.models import FEATURES, Ids
from attnspec.properties.subject import BoolArray, FloatArray, Profile, Setting
from attnspec.properties.verdict import BadResult, Observation, Refused, first_line
from attnspec.target import Loaded

FAILED = (Refused, BadResult)
LIMIT = 64  # a model whose limit is larger is not filled to it: that says nothing new and takes long


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

    def _number(self) -> int:
        return len(self.calls)

    def _real(self, mask: BoolArray | None) -> tuple[Ids, ...]:
        return () if mask is None else (mask.astype(np.int64),)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Calls the method on arrays of the library. Errors: Refused, whatever the method raises."""
        self.calls.append({"method": method, "arguments": arguments})
        own = [self._own(argument) for argument in arguments]
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(action="ignore"):
                return getattr(self.model, method)(*own)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:
            key = ("refusal", type(error).__name__, str(error)[:40])
            self.observations.setdefault(key, Observation("refusal", method, first_line(error), type(error).__name__))
            raise Refused(method, error) from error
        finally:
            self.seconds += time.perf_counter() - start

    def _own(self, argument: Any) -> Any:
        if isinstance(argument, _State):
            return argument.state
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

    def native(self, ids: Ids) -> Array:
        return self._call("logits", self._source(len(ids)), ids)

    def _source(self, rows: int) -> Ids:
        return np.repeat(self._low + np.arange(1, 6)[None] % (self._high - self._low), rows, axis=0)


class _State:
    """A state of the model, or a memory, and the number of the call that gave it."""

    def __init__(self, state: Any, number: int) -> None:
        self.state, self.number = state, number

    def __str__(self) -> str:
        return f"state{self.number}"


SUBJECTS = {"lm": ModelSubject, "seq2seq": TranslatorSubject}


def probed(loaded: Loaded, arrays: Arrays, settings: dict[str, Setting]) -> ModelSubject:
    """The model as a subject with its profile: what it offers is found by asking for it once.

    Errors: those of FAILED, if it cannot read five tokens, or its logits are not such that claims can say something of them.
    """
    low, high = getattr(loaded.function, "tokens", (0, int(loaded.function.vocab_size)))  # type: ignore[attr-defined]  # ids without a meaning of their own
    settings = {"tokens": Setting((low, high), "inferred"), "kind": Setting(loaded.kind, "inferred")} | settings
    subject = SUBJECTS[loaded.kind](loaded.name, loaded.function, arrays, Profile(settings))
    ids = low + np.arange(5)[None] % (high - low)
    _check(subject, ids, low + (ids - low + 1) % (high - low))
    dtype = arrays.dtype_of(subject.native(ids))
    offers = _Offers(subject, dict(getattr(loaded.function, "lacks", {})))
    two = np.concatenate([ids, ids[:, ::-1]])
    some = np.array([[True, True, True, True, False], [True] * 5])

    def read(*counts: int) -> Any:
        """A state that nothing has used up."""
        state = subject.start(1)
        for count in counts:
            _, state = subject.extend(ids[:, :count], state)
        return state

    offers("batch", lambda: subject.logits(two))
    if offers("padding", lambda: subject.logits(two, some)):
        offers("left-padding", lambda: subject.logits(two, some[:, ::-1]))
        offers("padding-between", lambda: subject.logits(two, some[:, [0, 1, 4, 2, 3]]))
    if offers("cache", lambda: read(1, 1), "start"):
        offers("chunks", lambda: read(2, 3))
        offers("cached-padding", lambda: subject.extend(two, subject.extend(two, subject.start(2), some)[1], some))
        offers("reorder", lambda: subject.reorder(read(3), np.array([0])), "reorder")
        offers("crop", lambda: subject.crop(read(3), 2), "crop")
        offers("fork", lambda: subject.fork(read(3)), "fork")
        if 0 < subject.max_length <= LIMIT:
            offers.features["overflow"] = None
    if isinstance(subject, TranslatorSubject) and "batch" in offers.features:
        _probe_source(subject, offers, two, some)
    missing: dict[str, str | None] = dict.fromkeys(FEATURES, "not offered")
    found = {"dtypes": Setting((dtype,), "inferred")}
    subject.profile = Profile(found | settings, missing | offers.features)
    subject.observations.clear()
    return subject


def _check(subject: ModelSubject, ids: Ids, others: Ids) -> None:
    """Reads both. Errors: Refused; BadResult if the logits are such that no claim could find fault with them."""
    first, second = subject.logits(ids), subject.logits(others)
    if not np.isfinite(first).any():
        raise BadResult(f"no logit is a finite number; the first is {first.flat[0]}")
    constant = np.broadcast_to(first[:, :1], first.shape)
    if np.array_equal(first, constant, equal_nan=True) and np.array_equal(second, constant, equal_nan=True):
        raise BadResult(
            "the logits are the same whatever was read, so nothing wrong would show; give it weights other than 0"
        )


def _probe_source(subject: TranslatorSubject, offers: _Offers, two: Ids, some: BoolArray) -> None:
    """Which padding of sources is offered."""
    if offers("source-padding", lambda: subject.translate(two, two, some)):
        offers("left-source-padding", lambda: subject.translate(two, two, some[:, ::-1]))
        offers("source-padding-between", lambda: subject.translate(two, two, some[:, [0, 1, 4, 2, 3]]))


class _Offers:
    """Asks for one feature after another, and keeps why it is not offered."""

    def __init__(self, subject: ModelSubject, lacks: dict[str, str]) -> None:
        self.subject, self.lacks = subject, lacks
        self.features: dict[str, str | None] = {}

    def __call__(self, feature: str, ask: Callable[[], object], method: str = "logits") -> bool:
        if feature in self.lacks:
            self.features[feature] = f"exempt: {self.lacks[feature]}"
        elif not hasattr(self.subject.model, method):
            self.features[feature] = f"not offered: no method {method}"
        else:
            try:
                ask()
                self.features[feature] = None
            except FAILED as error:
                self.features[feature] = f"refuses: {str(error).partition(': ')[2] or error}"
        return self.features[feature] is None
