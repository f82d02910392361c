"""What the reference says under a subject's conventions, and how far a correct subject may be from it.

Values come from `attnspec.reference`, allowed errors from `bounds`; the profile supplies the conventions and the precision
class. A claim's body runs twice on a case, once on the subject and once on a planted twin, so what was worked out last is
kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from attnspec.properties import bounds_classes
from attnspec.properties.bounds import Analysis, nothing_to_bound, of_output
from attnspec.properties.bounds_backward import of_gradients
from attnspec.properties.bounds_classes import Precision
from attnspec.properties.bounds_oracle import attention as exact_attention
from attnspec.properties.bounds_preconditions import inapplicable
from attnspec.properties.bounds_weights import of_lse, of_weights
from attnspec.properties.case import Inputs
from attnspec.properties.subject import Attention, BoolArray, FloatArray, Profile
from attnspec.properties.verdict import Inapplicable
from attnspec.reference.attention import attention, attention_weights, scores
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.mask import visible_keys, window_mask
from attnspec.reference.shapes import EmptyRow
from attnspec.reference.softmax import log_sum_exp


@dataclass(frozen=True)
class Expected:
    """A value, the error allowed around it, and the derivation in a line."""

    out: FloatArray
    error: FloatArray
    why: str


@dataclass
class Clock:
    """Seconds spent in the oracle since the start of this process."""

    seconds: float = 0.0


CLOCK = Clock()
P = ParamSpec("P")
R = TypeVar("R")


def _timed(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            CLOCK.seconds += time.perf_counter() - start

    return run


@dataclass
class Kept:
    """The answers given last, by content: of inputs, options, conventions and class."""

    most: int = 64  # a claim asks for a few bounds per case
    largest: int = 1 << 16  # numbers in an answer that is kept: 64 of them are a few MB
    answers: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)

    def get(self, key: Hashable, make: Callable[[], R], size: int) -> R:
        if key in self.answers:
            self.answers.move_to_end(key)
        else:
            answer = make()
            if size > self.largest:
                return answer
            self.answers[key] = answer
            if len(self.answers) > self.most:
                self.answers.popitem(last=False)
        return self.answers[key]  # type: ignore[no-any-return]


ANSWERS, ANALYSES = Kept(), Kept()  # an analysis is thirty arrays as large as the scores, an answer one or two


@contextmanager
def long_memory(answers: int = 12_000) -> Iterator[None]:
    """Keeps as many answers (about 10 kB each): audits of several subjects on the same cases take half the time."""
    before, ANSWERS.most = ANSWERS.most, answers
    try:
        yield
    finally:
        ANSWERS.most = before


def visible(profile: Profile, x: Inputs) -> BoolArray:
    """True where a query may attend to a key: the intersection of mask, -inf bias, causal flag and window; [B,H,T,S]."""
    queries, keys = x.q.shape[2], x.k.shape[2]
    alignment = profile.alignment
    seen = visible_keys(queries, keys, mask=x.mask, bias=x.bias, causal=alignment if x.causal else None)
    if x.window is not None:
        seen = seen & window_mask(queries, keys, x.window, alignment, profile.get("window", "left"))
    return np.broadcast_to(seen, (*x.q.shape[:3], keys))


def precision(profile: Profile, dtype: str) -> Precision:
    """The declared precision class of a subject in a dtype, by default the widest (docs/bounds.md, 'Constants')."""
    declared = profile.get("precision")
    kind = declared.get(dtype) if isinstance(declared, dict) else None
    return bounds_classes.default(dtype) if kind is None else bounds_classes.precision(kind, dtype)


def unit(dtype: str) -> float:
    """The unit roundoff of a dtype."""
    return bounds_classes.UNIT[dtype]


@dataclass(frozen=True)
class Call:
    """A call as plain softmax attention: what hides a key has become `seen`, a sink one more key.

    A sink is a key of zeros with a value of zeros, whose bias is the sink logit: the soft cap leaves its score of zero.
    """

    q: FloatArray
    k: FloatArray
    v: FloatArray
    seen: BoolArray
    bias: FloatArray | None
    scale: float | None
    softcap: float | None
    sunk: bool = False

    @classmethod
    def of(cls, profile: Profile, x: Inputs) -> Call:
        seen = visible(profile, x)
        if x.sinks is None:
            return cls(x.q, x.k, x.v, seen, x.bias, x.scale, x.softcap)
        (B, H, T, S), one = seen.shape, ((0, 0), (0, 0), (0, 1), (0, 0))
        bias = np.zeros((B, H, T, S + 1))
        bias[..., :S] = 0.0 if x.bias is None else x.bias
        bias[..., S] = np.reshape(x.sinks, (1, H, 1))
        seen = np.concatenate([seen, np.ones((B, H, T, 1), dtype=bool)], axis=-1)
        return cls(x.q, np.pad(x.k, one), np.pad(x.v, one), seen, bias, x.scale, x.softcap, sunk=True)

    @property
    def options(self) -> dict[str, Any]:
        return {"mask": self.seen, "bias": self.bias, "scale": self.scale, "softcap": self.softcap}

    def analysis(self, of: Precision) -> Analysis | None:
        """What the bounds start from; None where nothing is rounded."""
        if nothing_to_bound(self.q, self.k, self.v):
            return None
        exact = exact_attention(
            self.q, self.k, self.v, visible=self.seen, bias=self.bias, scale=self.scale, softcap=self.softcap
        )
        return Analysis(exact, of)


def output(profile: Profile, x: Inputs) -> FloatArray:
    """The reference's output under the subject's conventions, without a bound and without dropout."""
    return _output(Question(profile, x))


@_timed
def expected(profile: Profile, x: Inputs) -> Expected:
    """The reference's output and the bound E of docs/bounds.md on a correct subject's distance from it.

    Errors: Inapplicable where the bound's preconditions fail.
    """
    asked = Question(profile, x)

    def make() -> Expected:
        zero = np.zeros((*x.q.shape[:3], x.v.shape[3]))
        return _expected(_output(asked), _with_empty_rows(asked, lambda y: of_output(y).error, zero), derivation(profile, x))

    return asked.kept("output", make)


@_timed
def expected_weights(profile: Profile, x: Inputs) -> Expected:
    """The reference's weights [B,H,T,S], without those of sinks, and the bound on a correct subject's distance from them.

    Errors: Inapplicable where the bound's preconditions fail.
    """
    asked, keys = Question(profile, x), x.k.shape[2]

    def make() -> Expected:
        call = asked.call
        weights = attention_weights(call.q, call.k, **call.options, empty_row=asked.policy)
        error = _with_empty_rows(asked, lambda y: of_weights(y)[..., :keys], np.zeros((*x.q.shape[:3], keys)))
        return _expected(weights[..., :keys], error, derivation(profile, x, "Weights"))

    return asked.kept("weights", make)


@_timed
def expected_lse(profile: Profile, x: Inputs, dtype: str | None = None) -> Expected:
    """The natural logarithm of the sum of exponentials of each row, sinks included, [B,H,T]: -inf for an empty row.

    `dtype` is the one in which the subject returns it, by default that of the call; one of float32 has less to round.
    Errors: Inapplicable where the bound's preconditions fail.
    """
    asked = Question(profile, x)

    def make() -> Expected:
        call, y = asked.call, asked.analysis()
        lse = log_sum_exp(scores(call.q, call.k, **call.options))
        error = np.zeros(lse.shape) if y is None else of_lse(y, dtype or x.dtype)
        return _expected(lse, error, derivation(profile, x, "Weights"))

    return asked.kept(f"lse {dtype}", make)


@_timed
def expected_gradients(profile: Profile, x: Inputs, cotangent: FloatArray) -> dict[str, Expected]:
    """The reference's vector-Jacobian products for q, k, v with the bounds of docs/bounds.md.

    Errors: Inapplicable where the bounds' preconditions fail, or where they decide nothing.
    """
    asked, keys = Question(profile, x), x.k.shape[2]

    def make() -> dict[str, Expected]:
        call, y = asked.call, asked.analysis(cotangent)
        q, k, v, _ = attention_backward(call.q, call.k, call.v, cotangent, **call.options)
        values = {"q": q, "k": k[:, :, :keys], "v": v[:, :, :keys]}
        why = derivation(profile, x, "Gradients")
        if y is None:
            return {name: _expected(value, np.zeros(value.shape), why) for name, value in values.items()}
        allowed = of_gradients(y, cotangent, x.k.shape[1])
        if allowed.undecided:
            raise Inapplicable(f"gradients: {allowed.undecided}")
        errors = {"q": allowed.q, "k": allowed.k[:, :, :keys], "v": allowed.v[:, :, :keys]}
        return {name: _expected(value, errors[name], why) for name, value in values.items()}

    return asked.kept("gradients", make, cotangent)


def _expected(out: FloatArray, error: FloatArray, why: str) -> Expected:
    """Read-only, since several runs of a claim share it."""
    for array in (out, error):
        array.flags.writeable = False
    return Expected(out, error, why)


class Question:
    """Inputs under a profile's conventions: what is asked, and what answers are kept by."""

    def __init__(self, profile: Profile, x: Inputs) -> None:
        self.profile, self.x, self.policy = profile, x, _policy(profile, x)

    @cached_property
    def call(self) -> Call:
        return Call.of(self.profile, self.x)

    @cached_property
    def precision(self) -> Precision:
        return precision(self.profile, self.x.dtype)

    @cached_property
    def key(self) -> Hashable:
        """All that an expected value depends on."""
        x, digest = self.x, hashlib.blake2b(digest_size=16)
        for array in (x.q, x.k, x.v, x.mask, x.bias, x.sinks):
            if array is not None:
                digest.update(array.tobytes())
            digest.update(f"{None if array is None else array.shape}".encode())
        conventions = (self.profile.alignment, self.profile.get("window", "left"), self.policy, self.precision)
        return (digest.digest(), x.causal, x.scale, x.window, x.softcap, x.dropout, x.dtype, *conventions)

    def kept(self, what: str, make: Callable[[], R], *more: FloatArray) -> R:
        """The answer kept, or made now and kept."""
        key = (what, self.key, *(array.tobytes() for array in more))
        kept = ANALYSES if what == "analysis" else ANSWERS
        return kept.get(key, make, self.x.q.shape[2] * self.x.k.size)

    def analysis(self, cotangent: FloatArray | None = None) -> Analysis | None:
        """What the bounds start from. Errors: Inapplicable where their preconditions fail."""
        if self.x.dropout:
            raise Inapplicable("dropout: which weights were dropped is not known")
        found = self.kept("analysis", lambda: self.call.analysis(self.precision))
        if found is not None and (reason := inapplicable(found.a, found.of, cotangent)):
            raise Inapplicable(reason)
        return found


def _output(asked: Question) -> FloatArray:
    call = asked.call
    return attention(call.q, call.k, call.v, **call.options, empty_row=asked.policy)


def _with_empty_rows(asked: Question, bound: Callable[[Analysis], FloatArray], zero: FloatArray) -> FloatArray:
    """A bound, with that of empty rows by the policy: they are means of all values or unmasked attention, or exact."""

    def of(asked: Question) -> FloatArray:
        y = asked.analysis()
        return zero if y is None else bound(y)

    error, x = of(asked), asked.x
    if x.sinks is not None or asked.policy not in ("mean", "unmasked"):
        return error
    empty = ~asked.call.seen.any(-1, keepdims=True)
    if not empty.any():
        return error
    bias = None  # for "mean", all scores count as equal, whatever hid them
    if asked.policy == "unmasked" and x.bias is not None:
        bias = np.where(np.isneginf(x.bias), 0.0, x.bias)
    q = np.zeros_like(x.q) if asked.policy == "mean" else x.q
    everything = x.but(q=q, mask=None, bias=bias, causal=False, window=None)
    return np.where(empty, of(Question(asked.profile, everything)), error)


def _policy(profile: Profile, x: Inputs) -> EmptyRow:
    """What an empty row becomes; where a subject raises, no case has one, and zero stands for it."""
    declared = profile.get("empty_row", "zero")
    if x.bias is not None and not profile.promises("empty_row"):
        declared = profile.get("empty_row_bias", declared)
    policies: tuple[EmptyRow, ...] = ("zero", "mean", "unmasked", "nan")
    return next((p for p in policies if p == declared), "zero")


def rounding(profile: Profile, x: Inputs) -> FloatArray:
    """What rounding alone may add to a weighted mean of values as large as the largest in `v`; [B,H,T,1].

    The bound E for values that are all equal to max|v|: then the error of the scores cancels and only the rounding of the
    weights, the sums and the division is left.
    """
    flat = x.but(v=np.full((*x.v.shape[:3], 1), np.abs(x.v).max(initial=0.0)))
    return expected(profile, flat).error


def noise(subject: Attention, x: Inputs) -> FloatArray | None:
    """What two runs of a subject that is not deterministic may differ by; None for one that is (engine 4)."""
    if subject.profile.get("deterministic", True):
        return None
    return 2 * expected(subject.profile, x).error


def derivation(profile: Profile, x: Inputs, section: str = "Forward") -> str:
    """The bound in a line, for messages."""
    keys, width = x.k.shape[2], x.q.shape[3]
    return f"bound E of docs/bounds.md ({section}), {precision(profile, x.dtype)}, {keys} keys, D = {width}"
