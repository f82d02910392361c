"""Why 1/sqrt(d_k): the variance of a dot product, for any moments of its components (I19)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "scale.variance-of-dot-product",
    idea="I19",
    holds="for symbols",
    false={"mean": lambda d: d, "variance": lambda d: d**2, "scaled": lambda d: 1 / d},
)
def variance_of_dot_product(
    mean: Formula = lambda _: 0, variance: Formula = lambda d: d, scaled: Formula = lambda _: 1
) -> Derived:
    """The dot product of independent queries and keys of mean 0 and variance 1 has variance d_k; divided by sqrt(d_k), 1.

        Var(q·k) = sum_ij E[q_i q_j] E[k_i k_j] - (sum_i E[q_i] E[k_i])^2 = d_k,  Var(q·k / sqrt(d_k)) = 1     (1)

    Source: arXiv:1706.03762 footnote 4.
    """
    from sympy import KroneckerDelta, Sum, sqrt, symbols

    d = symbols("d", integer=True, positive=True)
    i, j = symbols("i j", integer=True)
    second = KroneckerDelta(i, j)  # E[q_i q_j] of independent components of mean 0 and variance 1, and of keys alike
    spread = linear(Sum(second * second, (i, 1, d), (j, 1, d)))
    return {
        "E(q·k)": proven("mean", Sum(0 * i, (i, 1, d)).doit(), mean(d)),
        "Var(q·k)": proven("variance", spread, variance(d)),
        "Var(q·k/sqrt(d))": proven("scaled variance", spread * (1 / sqrt(d)) ** 2, scaled(d)),
    }


@proof(
    "scale.variance-of-other-components",
    idea="I19",
    holds="for symbols",
    false={
        "independent": lambda d, m, s, n, t: d * s**2 * t**2,
        "correlated": lambda d, _, s, __, t: d * s**2 * t**2,
    },
)
def variance_of_other_components(
    independent: Formula = lambda d, m, s, n, t: d * (s**2 * t**2 + m**2 * t**2 + n**2 * s**2),
    correlated: Formula = lambda d, r, s, p, t: d * s**2 * t**2 * (1 + (d - 1) * r * p),
) -> Derived:
    """Other means or variances keep the growth linear in d_k; correlated components make it quadratic.

        means m, n, deviations s, t, independent:           Var(q·k) = d (s^2 t^2 + m^2 t^2 + n^2 s^2)       (1)
        means 0, correlations r in a query and p in a key:  Var(q·k) = d s^2 t^2 (1 + (d - 1) r p)           (2)

    Source: arXiv:1706.03762 footnote 4, without its assumptions.
    """
    from sympy import KroneckerDelta, Sum, symbols

    d = symbols("d", integer=True, positive=True)
    i, j = symbols("i j", integer=True)
    m, n, r, p = symbols("m n r p", real=True)
    s, t = symbols("s t", positive=True)

    def spread(m: Any, r: Any, n: Any, p: Any) -> Any:
        """Var(q·k), with E[q_i q_j] = m^2 + s^2 (r + (1 - r) [i = j]) and the same for keys."""
        same = KroneckerDelta(i, j)
        queries, keys = m**2 + s**2 * (r + (1 - r) * same), n**2 + t**2 * (p + (1 - p) * same)
        return linear(Sum(queries * keys, (i, 1, d), (j, 1, d))) - linear(Sum(m * n, (i, 1, d))) ** 2

    return {
        "Var(q·k), means and variances": proven("independent", spread(m, 0, n, 0), independent(d, m, s, n, t)),
        "Var(q·k), correlated components": proven("correlated", spread(0, r, 0, p), correlated(d, r, s, p, t)),
    }


@proof(
    "scale.variance-where-query-meets-key",
    idea="I19",
    holds="for symbols; normal components",
    false={"mean": lambda _, __: 0, "variance": lambda d, _: d},
)
def variance_where_query_meets_key(
    mean: Formula = lambda d, r: d * r, variance: Formula = lambda d, r: d * (1 + r**2)
) -> Derived:
    """Where each query component correlates by r with its key component, the mean is d_k r and the variance d_k (1 + r^2).

        k_i = r q_i + sqrt(1 - r^2) e_i,  q_i and e_i independent normal     (1)

    Source: arXiv:1706.03762 footnote 4, without its assumption that q and k are independent.
    """
    from sympy import Sum, expand, sqrt, symbols
    from sympy.stats import E, Normal

    d = symbols("d", integer=True, positive=True)
    i = symbols("i", integer=True)
    r, x, e = symbols("r x e", real=True)
    normal = Normal("x", 0, 1)
    moment = {power: E(normal**power) for power in range(5)}

    def expected(product: Any) -> Any:
        """E of a polynomial in x and e, term by term, since x and e are independent."""
        return sum(constant * moment[a] * moment[b] for (a, b), constant in expand(product).as_poly(x, e).terms())

    component = x * (r * x + sqrt(1 - r**2) * e)
    first, second = expected(component), expected(component**2)
    return {
        "E(q·k)": proven("mean", Sum(first, (i, 1, d)).doit(), mean(d, r)),
        "Var(q·k)": proven("variance", Sum(second - first**2, (i, 1, d)).doit(), variance(d, r)),
    }


@proof("scale.variance-is-quadratic", idea="I19", holds="for symbols", false={"scaled": lambda a, v: a * v})
def variance_is_quadratic(scaled: Formula = lambda a, v: a**2 * v) -> Derived:
    """Scaling a random variable by a scales its variance by a^2, whatever its distribution.

        Var(aX) = E[(aX)^2] - E[aX]^2 = a^2 (E[X^2] - E[X]^2) = a^2 Var(X)     (1)

    Source: the definition of variance and the linearity of the mean.
    """
    from sympy import symbols
    from sympy.stats import Expectation
    from sympy.stats.rv import RandomSymbol

    a, x = symbols("a", real=True), RandomSymbol("X")

    def variance(y: Any) -> Any:
        return Expectation(y**2).expand() - Expectation(y).expand() ** 2

    return {"Var(aX)": proven("scaled", variance(a * x), scaled(a, variance(x)))}


@proof("scale.enters-by-the-queries", idea="I19", holds="for symbols", false={"scaled": lambda c, score: c**2 * score})
def enters_by_the_queries(scaled: Formula = lambda c, score: c * score) -> Derived:
    """The score is linear in the query, so that a factor on the scale is one on the queries, or on the keys.

        sum_d (c q_d) k_d = sum_d q_d (c k_d) = c q·k     (1)

    Source: arXiv:1706.03762 eq. 1.
    """
    from sympy import IndexedBase, Sum, symbols

    i, d = symbols("i", integer=True), symbols("d", integer=True, positive=True)
    c, q, k = symbols("c", real=True), IndexedBase("q", real=True), IndexedBase("k", real=True)
    score = linear(Sum(q[i] * k[i], (i, 1, d)))
    proven("keys", linear(Sum(q[i] * (c * k[i]), (i, 1, d))), scaled(c, score))
    return {"(c q)·k": proven("scaled", linear(Sum((c * q[i]) * k[i], (i, 1, d))), scaled(c, score))}
