"""Permutations: attention knows no order (I16, I27).

With E = exp(scores), out = (E V) / (E 1) row by row: the proofs follow numerator and denominator through a permutation
matrix P.
"""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "softmax.permuted-rows",
    idea="I16",
    holds="for symbols",
    false={"row": lambda _, n: n, "entry": lambda _, here: here},
)
def permuted_rows(row: Formula = lambda one, _: one, entry: Formula = lambda there, _: there) -> Derived:
    """A permutation matrix keeps the vector of ones and commutes with exp taken element by element.

        P_ts = [s = pi(t)]:  (P 1)_t = 1,  exp((P S)_ts) = (P exp S)_ts = exp(S_pi(t),s)     (1)

    Source: arXiv:1810.00825 sec. 3.1.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, exp, symbols

    before, after = symbols("t_0 n_0", integer=True, nonnegative=True)
    s, u, t = symbols("s u t", integer=True)
    moved, n, score = before + 1, before + 1 + after, IndexedBase("S", real=True)
    ones = linear(Sum(KroneckerDelta(moved, u), (u, 1, n)))
    inside = exp(linear(Sum(KroneckerDelta(moved, u) * score[u, s], (u, 1, n))))
    outside = linear(Sum(KroneckerDelta(moved, u) * exp(score[u, s]), (u, 1, n)))
    proven("exp commutes with P", inside, outside)
    return {
        "(P 1)_t": proven("row", ones, row(1, n)),
        "(P exp S)_ts": proven("entry", outside, entry(exp(score[moved, s]), exp(score[t, s]))),
    }


@proof(
    "softmax.permuted-attention",
    idea="I27",
    holds="for symbols",
    false={"keys": lambda p, out: p * out, "queries": lambda _, out: out, "both": lambda _, out: out},
)
def permuted_attention(
    keys: Formula = lambda _, out: out, queries: Formula = lambda p, out: p * out, both: Formula = lambda p, out: p * out
) -> Derived:
    """Keys permuted with their values change nothing; permuted queries permute the rows; self-attention is equivariant.

        keys and values by P:  (E P^-1)(P V) = E V,          (E P^-1) 1 = E 1         (1)
        queries by P:          (P E) V = P (E V),            (P E) 1 = P (E 1)        (2)
        both by P:             (P E P^-1)(P V) = P (E V),    (P E P^-1) 1 = P (E 1)   (3)

    Source: arXiv:1810.00825 sec. 3.1.
    """
    from sympy import symbols

    p, e, v, one = symbols("P E V 1", commutative=False)

    def attention(weights: Any, values: Any) -> tuple[Any, Any]:
        """Numerator and denominator; P^-1 1 = 1 by softmax.permuted-rows."""
        return weights * values, (weights * one).subs(p**-1 * one, one)

    derived = {}
    for what, weights, values, stated in (
        ("keys", e * p**-1, p * v, keys),
        ("queries", p * e, v, queries),
        ("both", p * e * p**-1, p * v, both),
    ):
        above, below = attention(weights, values)
        derived[f"numerator, permuted {what}"] = proven(f"numerator, {what}", above, stated(p, e * v))
        derived[f"denominator, permuted {what}"] = proven(f"denominator, {what}", below, stated(p, e * one))
    return derived
