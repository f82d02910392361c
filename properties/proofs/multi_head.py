"""Multi-head attention: what heads cost, and that they add up (I22)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, proof, proven


@proof(
    "heads.same-order-of-work",
    idea="I22",
    holds="for symbols",
    false={
        "products": lambda T, M, H: 4 * T * M**2 + 2 * T**2 * M * H,
        "weights": lambda M, H: 3 * M**2 + M**2 / H,
        "extra": lambda T, _: T**2,
    },
)
def same_order_of_work(
    products: Formula = lambda T, M, _: 4 * T * M**2 + 2 * T**2 * M,
    weights: Formula = lambda M, _: 4 * M**2,
    extra: Formula = lambda T, H: (H - 1) * T**2,
) -> Derived:
    """H heads of width M/H have the weights and products of one head of width M; only softmax does more, once a head.

        products: 3 maps T M D and T^2 D for scores and T^2 D for values, summed over heads, and the output map T M^2
                  = 4 T M^2 + 2 T^2 M;  weights: 4 M^2;  exponentials: H T^2, (H - 1) T^2 more than one head's     (1)

    Source: arXiv:1706.03762 sec. 3.2.2, last paragraph.
    """
    from sympy import Sum, symbols

    T, D, H = symbols("T D H", integer=True, positive=True)
    h, M = symbols("h", integer=True), D * H

    def all_heads(one: Any) -> Any:
        return Sum(one, (h, 1, H)).doit()

    work = all_heads(3 * T * M * D + 2 * T**2 * D) + T * M**2
    numbers = all_heads(3 * M * D) + M**2
    return {
        "products": proven("products", work, products(T, M, H)),
        "weights": proven("weights", numbers, weights(M, H)),
        "more exponentials": proven("exponentials", all_heads(T**2) - T**2, extra(T, H)),
    }


@proof(
    "heads.concat-is-sum",
    idea="I22",
    holds="for symbols",
    false={"added": lambda rest, o, w: rest - o * w, "order": lambda out, other: 2 * out - other},
)
def concat_is_sum(added: Formula = lambda rest, o, w: rest + o * w, order: Formula = lambda out, _: out) -> Derived:
    """The output map of the joined heads is a sum over heads, so that their order is free with W_o's rows to match.

        [O_1 .. O_h O_(h+1)] [W_1; ..; W_h; W_(h+1)] = [O_1 .. O_h] [W_1; ..; W_h] + O_(h+1) W_(h+1)     (1)

    By induction over heads it is sum_h O_h W_h; one head is [O_1] [W_1].

    Source: arXiv:1706.03762 sec. 3.2.2.
    """
    from sympy import BlockMatrix, MatrixSymbol, block_collapse, symbols

    T, N, E, M = symbols("T N E M", integer=True, positive=True)
    before, heads = MatrixSymbol("O_before", T, N), MatrixSymbol("O_next", T, E)
    above, rows = MatrixSymbol("W_before", N, M), MatrixSymbol("W_next", E, M)
    joined = block_collapse(BlockMatrix([[before, heads]]) * BlockMatrix([[above], [rows]]))
    swapped = block_collapse(BlockMatrix([[heads, before]]) * BlockMatrix([[rows], [above]]))
    return {
        "concat · W_o": proven("added", joined, added(before * above, heads, rows)),
        "concat in another order": proven("order", swapped, order(joined, heads * rows)),
    }


@proof("heads.slices-of-one-map", idea="I22", holds="for symbols", false={"slice_": lambda x, first, second: x * second})
def slices_of_one_map(slice_: Formula = lambda x, first, second: x * first) -> Derived:
    """Projecting by the joined weights and cutting out a head is projecting by the head's slice of the weights.

        X [W_1 W_2] = [X W_1  X W_2], and by induction over heads for any number of them     (1)

    Source: arXiv:1706.03762 sec. 3.2.2.
    """
    from sympy import BlockMatrix, MatrixSymbol, block_collapse, symbols

    T, M, D, N = symbols("T M D N", integer=True, positive=True)
    x = MatrixSymbol("X", T, M)
    first, second = MatrixSymbol("W_1", M, D), MatrixSymbol("W_2", M, N)
    joined = block_collapse(x * BlockMatrix([[first, second]]))
    return {
        "first head": proven("first", joined.blocks[0, 0], slice_(x, first, second)),
        "the others": proven("others", joined.blocks[0, 1], slice_(x, second, first)),
    }
