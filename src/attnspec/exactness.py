"""How exact a subject is on plain calls, told where one of its errors exceeds a bound: as a hint, never as a verdict."""

from __future__ import annotations

from attnspec.function import FunctionSubject
from attnspec.properties.case import Call, Case, Sizes, Values
from attnspec.properties.compare import within
from attnspec.properties.oracle import expected
from attnspec.properties.precision_class import Samples, equivalent_bits, fitting_class
from attnspec.properties.verdict import BadResult, Inapplicable, Refused, ValueFailure, Violation
from attnspec.target import Loaded

KEYS = (4, 8, 16)  # few: the errors of stored weights average out over more
LEAST_BITS = 6.0  # below this the answer is wrong, not inexact
# Scores or weights in bfloat16 were measured at 8.2 to 10.1 bits, in float16 and TF32 at 11.6 to 12.6.
FORMATS = {(6.0, 10.8): "bfloat16 inside", (10.8, 14.0): "float16 or TF32 inside", (21.0, 27.0): "float32 inside"}


def exactness(loaded: Loaded, subject: FunctionSubject, dtype: str) -> tuple[float | None, str | None]:
    """The bits that plain calls are good for, and what they would fit; nothing if plain calls are within their bound.

    It runs in the worker, beside the subject.
    """
    del loaded
    samples = _samples(subject, dtype)
    if not _too_large(subject, samples):
        return None, None
    bits = equivalent_bits(subject.profile, samples)
    if bits is None or bits < LEAST_BITS:
        return None, None
    inside = next((text for (low, high), text in FORMATS.items() if low <= bits < high), None)
    kind = fitting_class(subject.profile, samples)
    return round(bits, 1), f"class {kind}" if kind is not None else inside


def _samples(subject: FunctionSubject, dtype: str) -> Samples:
    """Plain calls that the subject answers."""
    causal = not subject.profile.offers("non-causal")
    heads = 2 if subject.profile.offers("heads") else 1
    values = {name: Values("fine") for name in "qkv"}
    samples = []
    for n in KEYS:
        for seed in (1, 2):
            sizes = Sizes(1, heads, heads, n, n, 8, 8)
            x = Case("reference.forward", dtype, sizes, Call(causal=causal), values=values, seed=seed).build()
            try:
                samples.append((x, x.through(subject)))
            except (BadResult, Refused, ValueFailure):
                continue
    return samples


def _too_large(subject: FunctionSubject, samples: Samples) -> bool:
    for x, got in samples:
        try:
            want = expected(subject.profile, x)
            within(got, want.out, want.error, "output of a plain call", why=want.why)
        except Inapplicable:
            continue
        except Violation:
            return True
    return False
