"""Errors of the implementations in units of the bounds, r of docs/bounds.md."""

import numpy as np

from attnspec.properties.bounds import Analysis, of_output
from attnspec.properties.bounds_backward import of_gradients
from attnspec.properties.bounds_classes import precision
from attnspec.properties.bounds_oracle import attention
from attnspec.properties.bounds_preconditions import inapplicable
from attnspec.properties.bounds_weights import of_lse, of_weights
from tests.properties.bound_cases import Case, exact
from tests.properties.bound_subjects import SUBJECTS, able, computed

CLASSES = [("float64", "wide"), ("float32", "wide")] + [
    (dtype, kind) for dtype in ("bfloat16", "float16") for kind in ("fused", "stored", "stored-blocks")
]


def ratio(got: np.ndarray, want: np.ndarray, error: np.ndarray) -> float:
    """r, the largest error in units of the bound; a NaN is infinitely wrong."""
    off = np.abs(np.where(np.isnan(got), np.inf, got) - want).astype(float)
    with np.errstate(all="ignore"):
        return float(np.where(off <= 0, 0.0, off / error).max(initial=0.0))


def allowed(case: Case, kind: str) -> dict[str, np.ndarray]:
    """The bounds of a class on all that it decides of a case: nothing where the preconditions fail."""
    f = precision(kind, case.dtype)
    y = Analysis(attention(case.q, case.k, case.v, **case.options()), f)
    if inapplicable(y.a, f) is not None:
        return {}
    found = {"o": of_output(y).error, "weights": of_weights(y), "lse": of_lse(y, case.dtype)}
    if inapplicable(y.a, f, case.cotangent) is None:
        of = of_gradients(y, case.cotangent, case.k.shape[1])
        found |= {} if of.undecided else {"q": of.q, "k": of.k, "v": of.v, "bias": of.bias}
    return found


def ratios(case: Case, kind: str, within: str | None = None) -> dict[tuple[str, str], float]:
    """r of each implementation of a class and each quantity, under the bounds of that class or of another."""
    bounds = allowed(case, within or kind)
    if not bounds:
        return {}
    want, found = exact(case), {}
    for name in able(case, kind):
        got = computed(case, SUBJECTS[kind][name])
        found |= {(name, y): ratio(got[y], want[y], bounds[y]) for y in bounds if y in got}
    return found
