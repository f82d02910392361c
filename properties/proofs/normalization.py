"""Layer norm: what it makes, what it does not see, what its Jacobian annihilates (I28)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven
from attnspec.properties.proofs.sums import linear


class _Channels:
    """M channels of a token x and of a direction u, and means over channels."""

    def __init__(self) -> None:
        from sympy import IndexedBase, symbols

        self.i = symbols("i", integer=True)
        self.M = symbols("M", integer=True, positive=True)
        self.x, self.u = IndexedBase("x", real=True), IndexedBase("u", real=True)

    def mean(self, term: Any) -> Any:
        from sympy import Sum

        return linear(Sum(term, (self.i, 1, self.M))) / self.M

    def covariance(self, a: Any, b: Any) -> Any:
        from sympy import Symbol

        first, second = Symbol("mean_a"), Symbol("mean_b")
        together = self.mean((a - first) * (b - second))
        return together.subs({first: self.mean(a), second: self.mean(b)}).expand()


@proof("layer.norm-makes-unit", idea="I28", holds="for symbols", false={"mean": lambda v, _: v, "square": lambda v, e: v / e})
def norm_makes_unit(mean: Formula = lambda *_: 0, square: Formula = lambda v, e: v / (v + e)) -> Derived:
    """Layer norm gives every token mean 0 and variance 1, up to eps.

        y_i = (x_i - mu) / sqrt(v + eps):  mean y = 0,  mean y^2 = v / (v + eps), which is 1 for eps = 0     (1)

    Source: arXiv:1607.06450 eq. 3, with eps under the root.
    """
    from sympy import Symbol, symbols

    c = _Channels()
    v, e = symbols("v eps", positive=True)
    mu, here = Symbol("mu"), c.x[c.i]
    middle = c.mean(here)
    first = c.mean((here - mu) / (v + e)).subs(mu, middle) * (v + e)
    second = c.mean((here - mu) ** 2).subs(mu, middle) / (c.covariance(here, here) + e)
    return {
        "mean y": proven("mean", first, mean(v, e)),
        "mean y^2": proven("square", second, square(c.covariance(here, here), e)),
    }


@proof(
    "layer.norm-is-invariant",
    idea="I28",
    holds="for symbols",
    false={"moved": lambda norm, x, v, e, _: norm(x, v, e), "exact": lambda y, a: a * y},
)
def norm_is_invariant(
    moved: Formula = lambda norm, x, v, e, a: norm(x, v, e / a**2), exact: Formula = lambda y, _: y
) -> Derived:
    """Layer norm sees neither an added constant nor, for eps = 0, a positive scale; eps shrinks as the scale squared.

        mean(a x + b) = a mu + b,  var(a x + b) = a^2 v  =>  norm(a x + b; eps) = norm(x; eps / a^2)     (1)

    Source: arXiv:1607.06450 sec. 5.1 (invariance), eq. 3.
    """
    from sympy import sqrt, symbols

    c = _Channels()
    a, v, e = symbols("a v eps", positive=True)
    b, centred = symbols("b xi", real=True)  # xi is x_i - mu
    here = c.x[c.i]
    proven("mean", c.mean(a * here + b), a * c.mean(here) + b)
    proven("variance", c.covariance(a * here + b, a * here + b), a**2 * c.covariance(here, here))

    def norm(x: Any, variance: Any, eps: Any) -> Any:
        return x / sqrt(variance + eps)

    scaled = norm(a * centred, a**2 * v, e)
    return {
        "norm(a x + b; eps)": proven("moved", scaled, moved(norm, centred, v, e, a)),
        "norm(a x + b; 0)": proven("exact", scaled.subs(e, 0), exact(norm(centred, v, 0), a)),
    }


@proof(
    "layer.norm-jacobian",
    idea="I28",
    holds="for symbols",
    false={"slope": lambda u, y, c, s: u / s, "constants": lambda one: one, "itself": lambda y: y},
)
def norm_jacobian(
    slope: Formula = lambda u, y, c, s: (u - y * c / s) / s,
    constants: Formula = lambda one: 0 * one,
    itself: Formula = lambda y: 0 * y,
) -> Derived:
    """Layer norm's Jacobian annihilates constants and the normalized token itself: no gradient leads along them.

        J u = (u - mean u - y cov(x, u) / s) / s,  s = sqrt(var x):  J 1 = 0,  J y = 0 for eps = 0     (1)

    The derivative in any direction u, for any number of channels.

    Source: arXiv:1607.06450 eq. 3, differentiated.
    """
    from sympy import Integer, diff, sqrt, symbols

    c = _Channels()
    t, centred, direction = symbols("t xi eta", real=True)  # x_i and u_i minus their means
    v, w = symbols("v w", positive=True)
    k = symbols("cov", real=True)
    x, u = c.x[c.i], c.u[c.i]
    moved = c.covariance(x + t * u, x + t * u)
    proven("var(x + t u)", moved, c.covariance(x, x) + 2 * t * c.covariance(x, u) + t**2 * c.covariance(u, u))
    s = sqrt(v)
    found = diff((centred + t * direction) / sqrt(v + 2 * t * k + t**2 * w), t).subs(t, 0)
    stated = slope(direction, centred / s, k, s)
    proven("slope", found, stated)
    proven("cov(x, 1)", c.covariance(x, Integer(1)), 0)
    # In the direction of x - mu, s y: its deviation is x_i - mu, its covariance with x the variance.
    return {
        "J u": stated,
        "J 1": proven("constants", stated.subs({direction: 0, k: 0}), constants(1 / s)),
        "J y": proven("itself", stated.subs({direction: centred, k: v}) / s, itself(centred / s)),
    }
