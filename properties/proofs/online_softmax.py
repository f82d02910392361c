"""Online softmax: blocks of keys merge in any order and grouping to the whole (I18)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, proof, proven
from attnspec.properties.proofs.sums import last_apart, linear


@proof(
    "softmax.merge-is-associative",
    idea="I18",
    holds="for symbols",
    false={
        "join": lambda a, b, m, exp: (m(a[0], b[0]), a[1] * exp(a[0] - m(a[0], b[0])) + b[1], b[2] + a[2]),
        "meaning": lambda m, z, exp: z,
    },
)
def merge_is_associative(
    join: Formula = lambda a, b, m, exp: (
        m(a[0], b[0]),
        *(x * exp(a[0] - m(a[0], b[0])) + y * exp(b[0] - m(a[0], b[0])) for x, y in zip(a[1:], b[1:], strict=True)),
    ),
    meaning: Formula = lambda m, z, exp: z * exp(m),
) -> Derived:
    """Merging partial results (m, z, o) is associative and commutative, and keeps z exp(m) and o exp(m) adding up.

        m = max(m_a, m_b),  z = z_a exp(m_a - m) + z_b exp(m_b - m),  o alike;  z exp(m) = z_a exp(m_a) + z_b exp(m_b)     (1)

    Source: arXiv:1805.02867 eq. 4; arXiv:2307.08691 sec. 3.1 for o.
    """
    from sympy import Max, exp, symbols

    a, b, c = (tuple(symbols(f"m_{i} z_{i} o_{i}", real=True)) for i in "abc")

    def merge(x: Any, y: Any) -> Any:
        return join(x, y, Max, exp)

    derived = {}
    for name, left, right, swapped in zip(
        "mzo", merge(merge(a, b), c), merge(a, merge(b, c)), merge(merge(b, a), c), strict=True
    ):
        derived[f"{name} of a, b and c"] = proven(f"associative, {name}", left, right)
        proven(f"commutative, {name}", left, swapped)
    m, z, _ = merge(a, b)
    whole = meaning(a[0], a[1], exp) + meaning(b[0], b[1], exp)
    derived["z exp(m)"] = proven("meaning", meaning(m, z, exp), whole)
    return derived


@proof(
    "softmax.blocks-are-the-whole",
    idea="I18",
    holds="for symbols",
    false={"weights": lambda s, m, exp: exp(s), "lse": lambda m, log_z: m * log_z},
)
def blocks_are_the_whole(
    weights: Formula = lambda s, m, exp: exp(s - m), lse: Formula = lambda m, log_z: m + log_z
) -> Derived:
    """Merging one key after another gives the sums over all keys, for every number of keys; m + log z is their lse.

        z_n = sum_s exp(x_s - m_n),  o_n = sum_s exp(x_s - m_n) v_s                                    (1)
        z_(n+1) = z_n exp(m_n - m_(n+1)) + exp(x_(n+1) - m_(n+1)),  o alike, whatever m_(n+1) is       (2)

    By induction over n. With softmax.merge-is-associative the same holds for blocks of any sizes in any order.

    Source: arXiv:1805.02867 alg. 3 and theorem 1.
    """
    from sympy import IndexedBase, Sum, exp, log, symbols

    s, n = symbols("s", integer=True), symbols("n", integer=True, positive=True)
    x, v, m = (IndexedBase(name, real=True) for name in ("x", "v", "m"))
    top = symbols("m", real=True)

    def sums(value: Formula) -> Formula:
        def formula(count: Any) -> Any:
            total = Sum(weights(x[s], m[count], exp) * value(s), (s, 1, count))
            return linear(last_apart(total) if count == n + 1 else total.doit())

        return formula

    derived = {}
    for name, value in (("z", lambda _: 1), ("o", lambda s: v[s])):
        derived[f"{name}_n"] = by_induction(
            name,
            sums(value),
            n,
            start=exp(x[1] - m[1]) * value(1),
            step=lambda z, count, value=value: (
                z * exp(m[count] - m[count + 1]) + exp(x[count + 1] - m[count + 1]) * value(count + 1)
            ),
            first=1,
        )
    z, whole = linear(Sum(exp(x[s] - top), (s, 1, n))), linear(Sum(exp(x[s]), (s, 1, n)))
    derived["lse"] = proven("lse", exp(lse(top, log(z))), whole)
    return derived
