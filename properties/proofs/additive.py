"""Additive against multiplicative attention: two forms of one, and what each costs (I12, I13)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, ordered, proof, proven


@proof(
    "additive.concat-is-split",
    idea="I12",
    holds="for symbols",
    false={"split": lambda a, b, s, h: a * s - b * h},
)
def concat_is_split(split: Formula = lambda a, b, s, h: a * s + b * h) -> Derived:
    """One matrix on the joined states is two matrices on the single ones, so that the keys' part is computed once.

        [W_s W_h] [s; h] = W_s s + W_h h     (1)

    Source: arXiv:1409.0473 app. A.1.2.
    """
    from sympy import BlockMatrix, MatrixSymbol, block_collapse, symbols

    A, N, K = symbols("A N K", integer=True, positive=True)
    a, b = MatrixSymbol("W_s", A, N), MatrixSymbol("W_h", A, K)
    s, h = MatrixSymbol("s", N, 1), MatrixSymbol("h", K, 1)
    joined = block_collapse(BlockMatrix([[a, b]]) * BlockMatrix([[s], [h]]))
    return {"[W_s W_h] [s; h]": proven("split", joined, split(a, b, s, h))}


@proof("additive.dot-is-general", idea="I13", holds="for symbols", false={"dot": lambda s, h: -s.T * h})
def dot_is_general(dot: Formula = lambda s, h: s.T * h) -> Derived:
    """The dot score is the general one with W = I.

        s^T I h = s·h     (1)

    Source: arXiv:1508.04025 sec. 3.1.
    """
    from sympy import Identity, MatrixSymbol, symbols

    N = symbols("N", integer=True, positive=True)
    s, h = MatrixSymbol("s", N, 1), MatrixSymbol("h", N, 1)
    return {"s^T I h": proven("dot", (s.T * Identity(N) * h).doit(), dot(s, h))}


@proof(
    "additive.costs-more",
    idea="I13",
    holds="for symbols",
    false={"parameters": lambda N, A: 2 * A * N, "products": lambda N, A, T, S: A * N * T * S, "saved": lambda x: -x},
)
def costs_more(
    parameters: Formula = lambda N, A: 2 * A * N + A,
    products: Formula = lambda N, A, T, S: A * N * (T + S) + A * T * S,
    saved: Formula = lambda x: x,
) -> Derived:
    """Per table of T by S scores of states N wide, additive attention has parameters and tanh that the dot product lacks.

        additive: 2 A N + A parameters, A N (T + S) + A T S products, A T S tanh     (1)
        general:  N^2 parameters, N^2 T + N T S products;  dot: none, N T S          (2)

    With A = N the additive form exceeds the general one in all three.

    Source: arXiv:1508.04025 sec. 3.1; arXiv:1706.03762 sec. 3.2.1 on both in practice.
    """
    from sympy import Sum, symbols

    N, A, T, S = symbols("N A T S", integer=True, positive=True)
    t, s, a, n = symbols("t s a n", integer=True)

    def per(*counts: Any) -> Any:
        """How often a loop over these runs."""
        return Sum(1, *((index, 1, count) for index, count in zip((t, s, a, n), counts, strict=False))).doit()

    weights = per(A, N) + per(A, N) + per(A)
    work = per(T, A, N) + per(S, A, N) + per(T, S, A)
    general = per(T, N, N) + per(T, S, N)
    tanh = per(T, S, A)
    more = (parameters(N, A) - per(N, N)).subs(A, N), (products(N, A, T, S) - general).subs(A, N)
    ordered("parameters more than general", 0, saved(more[0]), strictly=True)
    ordered("products more than general", 0, saved(more[1]), strictly=True)
    return {
        "parameters": proven("parameters", weights, parameters(N, A)),
        "products": proven("products", work, products(N, A, T, S)),
        "tanh": tanh,
    }
