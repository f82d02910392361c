"""Transformer layers: the residual path, and how many weights there are (I28)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, proof, proven


@proof(
    "layer.residual-path",
    idea="I28",
    holds="for symbols",
    false={"one": lambda same, j: j, "silent": lambda same, j: same + j},
)
def residual_path(one: Formula = lambda same, j: same + j, silent: Formula = lambda same, _: same) -> Derived:
    """A residual layer's Jacobian is I plus its sublayer's: through silent sublayers a gradient passes any depth unchanged.

        y = x + f(x):  dy/dx = I + J_f,  dx_L/dx_0 = (I + J_L) .. (I + J_1),  which is I where every J is 0     (1)

    By induction over layers.

    Source: arXiv:1603.05027 sec. 2, eq. 5; arXiv:1706.03762 sec. 3.1 for the residual sublayer.
    """
    from sympy import Function, Identity, MatrixSymbol, ZeroMatrix, diff, symbols

    M = symbols("M", integer=True, positive=True)
    depth = symbols("L", integer=True, nonnegative=True)
    x, f = symbols("x", real=True), Function("f")
    j = MatrixSymbol("J", M, M)
    proven("one unit", diff(x + f(x), x), one(1, diff(f(x), x)))
    layer = one(Identity(M), j)
    quiet = layer.subs(j, ZeroMatrix(M, M)).doit()
    through = by_induction(
        "depth", lambda _: silent(Identity(M), j), depth, Identity(M), lambda path, _: (quiet * path).doit()
    )
    return {"dy/dx": layer, "dx_L/dx_0, silent": through}


@proof(
    "layer.number-of-weights",
    idea="I28",
    holds="for symbols",
    false={
        "attention": lambda M: 4 * M**2,
        "feed_forward": lambda M, F: 2 * M * F + 2 * F,
        "whole": lambda L, e, d: L * e + d,
    },
)
def number_of_weights(
    attention: Formula = lambda M: 4 * M**2 + 4 * M,
    feed_forward: Formula = lambda M, F: 2 * M * F + F + M,
    whole: Formula = lambda L, e, d: L * (e + d),
) -> Derived:
    """Counts the weights of L encoder and L decoder layers; the base model has 44 138 496 without embeddings.

        attention a = 4 M^2 + 4 M,  feed-forward f = 2 M F + F + M,  norm 2 M                 (1)
        encoder layer a + f + 2 (2 M),  decoder layer 2 a + f + 3 (2 M),  L of each           (2)

    With biases, whatever the number of heads (heads.same-order-of-work); without final norms.

    Source: arXiv:1706.03762 sec. 3.1 to 3.3 and table 3 (M = 512, F = 2048, L = 6).
    """
    from sympy import Sum, symbols

    M, F, L, H, D = symbols("M F L H D", integer=True, positive=True)
    i = symbols("i", integer=True)

    def linear_map(wide: Any, to: Any) -> Any:
        return Sum(wide + 1, (i, 1, to)).doit()  # a row of weights and a bias for each output

    heads = Sum(3 * linear_map(H * D, D), (i, 1, H)).doit() + linear_map(H * D, H * D)
    proven("attention", heads, attention(H * D))
    forward = linear_map(M, F) + linear_map(F, M)
    norm = 2 * M
    encoder = attention(M) + forward + 2 * norm
    decoder = 2 * attention(M) + forward + 3 * norm
    total = Sum(encoder + decoder, (i, 1, L)).doit()
    derived = {
        "attention": attention(M),
        "feed-forward": proven("feed-forward", forward, feed_forward(M, F)),
        "all layers": proven("whole", total, whole(L, encoder, decoder)),
    }
    proven("base model", total.subs({M: 512, F: 2048, L: 6}), 44138496)
    return derived
