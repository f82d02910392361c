"""Queries, keys and values as linear maps: what of their weights the scores can see (I17)."""

from __future__ import annotations

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "heads.only-the-product-counts",
    idea="I17",
    holds="for symbols",
    false={"scores": lambda x, q, k, y, a: x * q * a * k.T * y.T},
)
def only_the_product_counts(scores: Formula = lambda x, q, k, y, _: x * q * k.T * y.T) -> Derived:
    """Scores see the maps of queries and keys only as the product W_q W_k^T: any invertible A between them cancels.

        (X W_q A) (Y W_k A^-T)^T = X W_q W_k^T Y^T     (1)

    Source: arXiv:1706.03762 sec. 3.2.1 and 3.2.2.
    """
    from sympy import MatrixSymbol, symbols

    T, S, M, D = symbols("T S M D", integer=True, positive=True)
    x, y = MatrixSymbol("X", T, M), MatrixSymbol("Y", S, M)
    q, k, a = MatrixSymbol("W_q", M, D), MatrixSymbol("W_k", M, D), MatrixSymbol("A", D, D)
    changed = (x * q * a) * (y * k * a.inverse().T).T
    return {"scores": proven("scores", changed.doit(), scores(x, q, k, y, a).doit())}


@proof("softmax.key-bias-cancels", idea="I17", holds="for symbols", false={"added": lambda _, moved: moved})
def key_bias_cancels(added: Formula = lambda same, _: same) -> Derived:
    """One vector added to every key adds one number to all scores of a query, which softmax does not see.

        q·(k_s + b) - q·k_s = q·b for every s     (1)

    Source: arXiv:1706.03762 eq. 1 and softmax.shift-invariance.
    """
    from sympy import IndexedBase, Sum, symbols

    d, s = symbols("d s", integer=True)
    width = symbols("D", integer=True, positive=True)
    q, k, b = (IndexedBase(name, real=True) for name in "qkb")
    gained = linear(Sum(q[d] * (k[s, d] + b[d]), (d, 1, width)) - Sum(q[d] * k[s, d], (d, 1, width)))
    same, moved = linear(Sum(q[d] * b[d], (d, 1, width))), linear(Sum(q[d] * b[s, d], (d, 1, width)))
    return {"q·(k_s + b) - q·k_s": proven("added", gained, added(same, moved))}
