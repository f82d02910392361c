"""Sums with symbolic limits: linearity, the limits known inside, the last term apart.

sympy leaves these steps to its user.
"""

from __future__ import annotations

from typing import Any


def linear(expression: Any) -> Any:
    """Every sum as constants times sums of single terms, those of Kronecker deltas done.

        sum_i (a f(i) + b g(i)) = a sum_i f(i) + b sum_i g(i)     (1)

    Finite sums are linear; no other rule is used, but for those of sympy's own `doit`.
    """
    from sympy import Add, Integer, Sum, Symbol, expand

    def over(term: Any, index: Any, low: Any, high: Any) -> Any:
        done = Integer(0)
        for part in Add.make_args(expand(_within(term, index, low, high))):
            constant, rest = part.as_independent(index, as_Add=False)
            done += constant * Sum(rest, (index, low, high)).doit()
        return done

    def split(total: Any) -> Any:
        done = total.function
        for limits in total.limits:  # the first is the innermost sum
            done = over(done, *limits)
        return done

    def renamed(total: Any) -> Any:
        index, low, high = total.limits[0]
        return total if total.has(name) or len(total.limits) > 1 else Sum(total.function.subs(index, name), (name, low, high))

    name = Symbol("j", integer=True)  # one index for all sums that are left, so that equal sums are seen to be equal
    return expand(expression.replace(lambda e: isinstance(e, Sum), split)).replace(lambda e: isinstance(e, Sum), renamed)


def last_apart(total: Any) -> Any:
    """A sum to n + 1 as the sum to n and the term at n + 1, or a product so: how both are defined."""
    from sympy import Product

    ((index, low, high),) = total.limits
    before, last = total.func(total.function, (index, low, high - 1)), total.function.subs(index, high)
    return before * last if isinstance(total, Product) else before + last


def _within(expression: Any, index: Any, low: Any, high: Any) -> Any:
    """Inside a sum its index lies between its limits."""
    from sympy import true

    return expression.subs({low <= index: true, index >= low: true, index <= high: true, high >= index: true})
