"""Saturation: where one weight nears 1, every derivative of softmax vanishes (I20)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, ordered, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "softmax.jacobian-is-bounded",
    idea="I20",
    holds="for symbols",
    false={"row": lambda p: p * (1 - p), "form": lambda square, mean: square - mean, "spare": lambda f: 2 * f},
)
def jacobian_is_bounded(
    row: Formula = lambda p: 2 * p * (1 - p),
    form: Formula = lambda square, mean: square - mean**2,
    spare: Formula = lambda f: f,
) -> Derived:
    """The Jacobian's norms, of rows and spectral, are at most the largest 2 p_i (1 - p_i).

        sum_j |J_ij| = 2 p_i (1 - p_i)                                                          (1)
        u J u = sum_i p_i u_i^2 - (sum_i p_i u_i)^2 = 1/2 sum_ij p_i p_j (u_i - u_j)^2 >= 0     (2)
        sum_i 2 p_i (1 - p_i) u_i^2 - u J u = 1/2 sum_(i != j) p_i p_j (u_i + u_j)^2 >= 0       (3)

    Source: softmax.jacobian; (3) is the theorem of Gershgorin for this matrix.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, symbols

    before, after = symbols("i_0 n_0", integer=True, nonnegative=True)
    i, j = symbols("i j", integer=True)
    here, n = before + 1, before + 1 + after
    p, u = IndexedBase("p", positive=True), IndexedBase("u", real=True)

    def total(term: Any) -> Any:
        return linear(Sum(term, (j, 1, n))).subs(linear(Sum(p[j], (j, 1, n))), 1)

    def pairs(term: Any) -> Any:
        return linear(Sum(term, (i, 1, n), (j, 1, n))).subs(linear(Sum(p[j], (j, 1, n))), 1) / 2

    same = KroneckerDelta(i, j)
    beside = total(p[here] * p[j] * (1 - KroneckerDelta(here, j)))
    quadratic = form(total(p[j] * u[j] ** 2), total(p[j] * u[j]))
    left = total(2 * p[j] * (1 - p[j]) * u[j] ** 2) - quadratic
    return {
        "sum_j |J_ij|": proven("row", p[here] * (1 - p[here]) + beside, row(p[here])),
        "u J u": proven("quadratic form", pairs(p[i] * p[j] * (u[i] - u[j]) ** 2), quadratic),
        "what (3) leaves": proven("Gershgorin", left, spare(pairs((1 - same) * p[i] * p[j] * (u[i] + u[j]) ** 2))),
    }


@proof(
    "softmax.saturation",
    idea="I20",
    holds="for symbols",
    false={"most": lambda others: others / 2, "half": lambda one: one / 4, "limit": lambda one: one},
)
def saturation(
    most: Formula = lambda others: 2 * others, half: Formula = lambda one: one / 2, limit: Formula = lambda one: 0 * one
) -> Derived:
    """The Jacobian's norm is at most 1/2 and at most 2 (1 - p_max): it vanishes where one key takes all weight.

        2 p_i (1 - p_i) <= 1/2,  2 p_i (1 - p_i) <= 2 (1 - p_max) -> 0  for p_max -> 1     (1)

    Source: arXiv:1706.03762 sec. 3.2.1 ("extremely small gradients"); softmax.jacobian-is-bounded.
    """
    from sympy import Integer, symbols
    from sympy import limit as towards

    p = symbols("p", positive=True)
    spare = symbols("s", nonnegative=True)
    others = p + spare  # 1 - p_max: the weight p of one other key and that of the rest
    one = Integer(1)

    def row(weight: Any) -> Any:
        return 2 * weight * (1 - weight)

    return {
        "1/2 - 2 p (1 - p)": ordered("half", row(p), half(one)),
        "2 (1 - p_max) - 2 p (1 - p)": ordered("another key", row(p), most(others)),
        "2 (1 - p_max) - 2 p_max (1 - p_max)": ordered("the largest", row(1 - others), most(others)),
        "limit of 2 (1 - p_max)": proven("limit", towards(most(p), p, 0), limit(one)),
    }


@proof(
    "softmax.large-scores-saturate",
    idea="I20",
    holds="for symbols",
    false={"others": lambda r, x: r * x / (1 + x), "most": lambda r, x: r * x / 2, "limit": lambda r: r},
)
def large_scores_saturate(
    others: Formula = lambda r, x: r * x / (1 + r * x),
    most: Formula = lambda r, x: r * x,
    limit: Formula = lambda r: 0 * r,
) -> Derived:
    """Where one score leads the others by g, their weights together are at most (S - 1) exp(-g), and gradients with them.

        1 - p_max = R exp(-g) / (1 + R exp(-g)) <= R exp(-g),  R = sum_s exp(x_s + g - x_max) <= S - 1     (1)

    Scores a times as large lead by a g: the bound falls exponentially.

    Source: arXiv:1706.03762 sec. 3.2.1; softmax.saturation turns the weight into a bound on the Jacobian.
    """
    from sympy import exp, oo, symbols
    from sympy import limit as towards

    top = symbols("x_max", real=True)
    r, g, a = symbols("R g a", positive=True)
    rest = r * exp(top - a * g)  # sum of the exponentials of all other scores
    weight = rest / (exp(top) + rest)
    return {
        "1 - p_max": proven("others", weight, others(r, exp(-a * g))),
        "R exp(-a g) - (1 - p_max)": ordered(
            "bound", r * exp(-a * g) / (1 + r * exp(-a * g)), most(r, exp(-a * g)).together()
        ),
        "limit of 1 - p_max": proven("limit", towards(weight, a, oo), limit(r)),
    }
