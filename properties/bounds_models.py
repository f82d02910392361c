"""The allowed distance of two computations of the same logits, for models of whatever layers.

A bound through many layers, derived for the worst case, allows more than any defect. So the rule is calibrated. Of about
5,500 comparisons that hold, over 279 architectures in float64, the largest discrepancy was 1.5e-13 of the largest logit; the
smallest of a true violation was 3.4e-4. The limit stands between, nearer the first on a logarithmic scale; the unit roundoff
moves it for narrower dtypes, where it is capped well below the smallest violation where the dtype lets it be.
"""

from __future__ import annotations

import numpy as np

from attnspec.properties.subject import FloatArray

LIMIT = {"float64": 1e-9, "float32": 1e-4, "float16": 2.0**-6, "bfloat16": 2.0**-4}
LIVE = 2.0**-8  # of the largest logit: a smaller influence of what is remembered shows nothing


def allowed(want: FloatArray, dtype: str) -> FloatArray:
    """The limit, in logits: a share of the largest finite one."""
    return np.asarray(LIMIT[dtype] * _largest(want))


def why(dtype: str) -> str:
    return f"{LIMIT[dtype]:.0e} of the largest logit, calibrated (docs/bounds.md, Models)"


def lively(change: FloatArray, want: FloatArray) -> bool:
    """Whether a change of the logits is large enough to show what is wrong; numbers that are none show nothing."""
    return bool(np.abs(change[~np.isnan(change)]).max(initial=0.0) > LIVE * _largest(want))


def _largest(want: FloatArray) -> float:
    finite = np.abs(want[np.isfinite(want)])
    return float(finite.max(initial=0.0))
