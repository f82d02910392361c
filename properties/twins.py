"""Planted twins: the power of a case, shown by a wrong answer that the claim must reject on it.

A claim that holds on a case says something only if it would have failed for a wrong implementation on the same case. So each
claim names a twin: the reference with one defect. The engine runs the claim's body on the twin too; a case on which the twin
is violated *exposed* something. A claim that exposed nothing is UNKNOWN, "vacuous".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Inputs
from attnspec.properties.oracle import Call, output, visible
from attnspec.properties.subject import FloatArray, Gradients, Profile, Result
from attnspec.properties.verdict import Refused
from attnspec.reference.attention import scores
from attnspec.reference.attention_backward import attention_backward
from attnspec.reference.shapes import ShapeError
from attnspec.reference.softmax import log_sum_exp


@dataclass(frozen=True)
class Honest:
    """The reference under a subject's conventions: what a twin starts from.

    `need` is what the call asks for beside the output, "gradients" for the forward run of a gradient: so that a twin can be
    wrong only then.
    """

    profile: Profile
    need: tuple[str, ...] = ()

    def __call__(self, x: Inputs) -> FloatArray:
        return output(self.profile, x)

    def weights(self, x: Inputs) -> FloatArray:
        """[B,H,T,S]: the output for one-hot values."""
        keys = x.k.shape[2]
        return self(x.but(v=np.broadcast_to(np.eye(keys), (*x.k.shape[:2], keys, keys))))

    def lse(self, x: Inputs) -> FloatArray:
        """[B,H,T]: the log-sum-exp of each row's scores, -inf for a row that sees no key."""
        call = Call.of(self.profile, x)
        return log_sum_exp(scores(call.q, call.k, mask=call.seen, bias=call.bias, scale=call.scale, softcap=call.softcap))

    def gradients(self, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
        """For q, k, v. A sink is one more key, without a value, whose score is all bias."""
        seen, keys, bias, k, v = visible(self.profile, x), x.k.shape[2], x.bias, x.k, x.v
        if x.sinks is not None:
            column = np.broadcast_to(x.sinks[:, None, None], (*seen.shape[:3], 1))
            bias = np.concatenate([np.broadcast_to(0.0 if bias is None else bias, seen.shape), column], -1)
            seen = np.concatenate([seen, np.ones_like(seen[..., :1])], -1)
            k, v = (np.concatenate([a, np.zeros_like(a[:, :, :1])], 2) for a in (k, v))
        found = attention_backward(x.q, k, v, cotangent, mask=seen, bias=bias, scale=x.scale, softcap=x.softcap)
        return {"q": found[0], "k": found[1][:, :, :keys], "v": found[2][:, :, :keys]}


Twin = Callable[[Honest, Inputs], FloatArray | Result]
GradientTwin = Callable[[Honest, Inputs, FloatArray], dict[str, FloatArray]]


class TwinSubject:
    """A claim's twin as a subject: the reference with one defect, rounded to the dtype of the case."""

    def __init__(self, profile: Profile, twin: Twin | None, gradient_twin: GradientTwin | None) -> None:
        self.profile = profile
        self._honest, self._twin, self._gradient_twin = Honest(profile), twin, gradient_twin

    def __call__(self, q: FloatArray, k: FloatArray, v: FloatArray, **options: Any) -> Result:
        honest = replace(self._honest, need=options.pop("need", ()))
        x = Inputs(q, k, v, **options)
        try:
            found = honest(x) if self._twin is None else self._twin(honest, x)
        except ShapeError as error:
            raise Refused("shapes that do not fit each other", error) from error
        if isinstance(found, Result):
            return found
        weights = numbers.rounded(honest.weights(x), x.dtype) if "weights" in honest.need else None
        lse = numbers.rounded(honest.lse(x), x.dtype) if "lse" in honest.need else None
        return Result(numbers.rounded(found, x.dtype), x.dtype, weights, lse)

    def vjp(self, q: FloatArray, k: FloatArray, v: FloatArray, cotangent: FloatArray, **same: Any) -> Gradients:
        x = Inputs(q, k, v, **same)
        found = (self._gradient_twin or Honest.gradients)(self._honest, x, cotangent)
        rounded = {n: numbers.rounded(g, x.dtype) for n, g in found.items()}
        out = self(q, k, v, **same, need=("gradients",)).out
        return Gradients(out, rounded["q"], rounded["k"], rounded["v"], x.dtype)


# Twins that several claims share.


def mean_of_values(honest: Honest, x: Inputs) -> FloatArray:
    """Every query gets the mean of what it sees: the scores are not looked at."""
    return honest(x.but(q=np.zeros_like(x.q), bias=None if x.bias is None else np.where(np.isneginf(x.bias), x.bias, 0.0)))


def without_causal(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(causal=False))


def without_mask(honest: Honest, x: Inputs) -> FloatArray:
    return honest(x.but(mask=None, bias=None))


def next_key(honest: Honest, x: Inputs) -> FloatArray:
    """Each key has its neighbour's value."""
    return honest(x.but(v=np.roll(x.v, 1, axis=2)))


def leaks_from_batch(honest: Honest, x: Inputs) -> FloatArray:
    """A thousandth of the next batch row is mixed into each."""
    out = honest(x)
    return out + np.roll(out, 1, axis=0) / 1024
