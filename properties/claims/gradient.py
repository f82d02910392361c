"""Claims on gradients: they are the derivative, and what was hidden gets none."""

from __future__ import annotations

import numpy as np

from attnspec.properties.case import Case
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import nonzero, same_bits, within
from attnspec.properties.oracle import expected, expected_gradients
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import Attention

# Gains stay small: huge scores destroy P = exp(s - L) whatever the code does, and the bound is vacuous (docs/bounds.md).
SMALL = (1.0, 0.5)


@claim(
    "grad.causal",
    level="must",
    handle="MK2",
    idea="I25",
    source=Source("arXiv:1706.03762", "3.2.3"),
    needs=("gradients", "causal"),
    given=Cases(
        causal="always",
        square=True,
        mask="never",
        window="never",
        at_least={"T": 2, "S": 2, "D": 2},
        gains=SMALL,
        values={"q": ("normal",), "k": ("normal",), "v": ("normal",)},
    ),
    within="exact",
    about="causal",
    mutants=("mask.sees_next", "mask.minus_ten"),
    proof=("mask.triangle-is-prefix",),
)
def jacobian_is_lower_triangular(subject: Attention, case: Case) -> None:
    """The gradient of output t is exactly zero for keys and values after t, and not zero for values up to t."""
    x = case.build()
    queries = x.q.shape[2]
    t = min(case.seed % queries, queries - 1)
    cotangent = np.zeros((*x.q.shape[:3], x.v.shape[3]))
    cotangent[:, :, t] = 1.0
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    for name, gradient in (("keys", got.k), ("values", got.v)):
        later = gradient[:, :, t + 1 :]
        same_bits(later, np.zeros_like(later), f"gradient of output {t} for {name} after {t}", live=later.size > 0)
    seen = np.broadcast_to((np.arange(queries) <= t)[:, None], got.v.shape)
    nonzero(got.v, seen, f"gradient of output {t} for values up to {t}")


@claim(
    "grad.reference",
    level="must",
    handle="GR1",
    idea="I08",
    source=Source("arXiv:2205.14135", "B.2"),
    needs=("gradients",),
    given=Cases(
        gains=SMALL,
        values={"q": ("fine", "normal", "integers", "ties"), "k": ("fine", "normal", "integers", "ties")},
        storage="drawn",
        grid=True,
    ),
    within="bound",
    mutants=("gradient.always_causal", "gradient.empty_row_nan", "gradient.group_not_summed"),
    proof=("softmax.jacobian", "softmax.backward"),
)
def gradients_agree(subject: Attention, case: Case) -> None:
    """The gradients for queries, keys and values are the float64 reference's within the derived bound."""
    x = case.build()
    cotangent = case.cotangent()
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.options)
    forward = expected(subject.profile, x)
    within(got.out, forward.out, forward.error, "output while gradients are recorded", why=forward.why)
    for name, want in expected_gradients(subject.profile, x, cotangent).items():
        within(getattr(got, name), want.out, want.error, f"gradient for {name}", why=want.why)
