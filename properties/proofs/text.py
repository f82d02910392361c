"""Words as vectors: one-hot, bag of words, lookup in a table, the mean over uses (I01, I02), and BLEU's brevity (I14)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, ordered, proof, proven
from attnspec.properties.proofs.sums import last_apart, linear


@proof("embed.lookup-is-product", idea="I02", holds="for symbols", false={"row": lambda e, x, m: e[x + 1, m]})
def lookup_is_product(row: Formula = lambda e, x, m: e[x, m]) -> Derived:
    """A one-hot vector times the table is the row of its word.

        sum_w [w = x] E_wm = E_xm for 1 <= x <= V     (1)

    Source: arXiv:1301.3781 sec. 2.1 (the projection layer).
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, symbols

    before, after = symbols("x_0 V_0", integer=True, nonnegative=True)
    w, m = symbols("w m", integer=True)
    table, x, words = IndexedBase("E"), before + 1, before + 1 + after
    return {"one-hot · E": proven("row", linear(Sum(KroneckerDelta(w, x) * table[w, m], (w, 1, words))), row(table, x, m))}


@proof(
    "text.one-hot-is-orthonormal",
    idea="I01",
    holds="for symbols",
    false={"same": lambda _: 0, "other": lambda one: one},
)
def one_hot_is_orthonormal(same: Formula = lambda one: one, other: Formula = lambda _: 0) -> Derived:
    """One-hot vectors have length one and are orthogonal: no word is nearer to one than to another.

        sum_w [w = x] [w = y] = [x = y]     (1)

    Source: arXiv:1301.3781 sec. 1 (words as indices, without similarity).
    """
    from sympy import Integer, KroneckerDelta, Sum, symbols

    before, between, after = symbols("x_0 y_0 V_0", integer=True, nonnegative=True)
    w, one = symbols("w", integer=True), Integer(1)
    x, y = before + 1, before + between + 2
    words = y + after
    length = linear(Sum(KroneckerDelta(w, x) * KroneckerDelta(w, x), (w, 1, words)))
    product = linear(Sum(KroneckerDelta(w, x) * KroneckerDelta(w, y), (w, 1, words)))
    return {"x·x": proven("same", length, same(one)), "x·y": proven("other", product, other(one))}


@proof(
    "text.bag-adds-one-hots",
    idea="I01",
    holds="for symbols",
    false={"joined": lambda a, b: a * b, "total": lambda tokens, words: words, "swapped": lambda a, b: a - b},
)
def bag_adds_one_hots(
    joined: Formula = lambda a, b: a + b,
    total: Formula = lambda tokens, _: tokens,
    swapped: Formula = lambda a, b: b + a,
) -> Derived:
    """A bag of words is the sum of one-hots: bags of joined texts add, counts add to the tokens, and order is lost.

        bag(x)_w = sum_t [x_t = w],  bag(x y) = bag(x) + bag(y),  sum_w bag(x)_w = T     (1)

    Texts grow by one token at a time, so the first holds by induction over y; neighbours swapped leave the sum, and swaps
    of neighbours make every order.

    Source: Harris 1954, Distributional structure, Word 10; the sum is the definition.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, symbols

    t, w = symbols("t w", integer=True)
    n = symbols("n", integer=True, nonnegative=True)
    length, words = symbols("T V", integer=True, positive=True)
    before, after = symbols("x_0 V_0", integer=True, nonnegative=True)
    x, y = IndexedBase("x", integer=True), IndexedBase("y", integer=True)
    first = Sum(KroneckerDelta(x[t], w), (t, 1, length))

    def bag(count: Any) -> Any:
        total = Sum(KroneckerDelta(y[t], w), (t, 1, count))
        return joined(first, last_apart(total) if count == n + 1 else total.doit())

    def longer(sofar: Any, count: Any) -> Any:
        return sofar + KroneckerDelta(y[count + 1], w)

    both = by_induction("joined", bag, n, first, longer)
    word, size = before + 1, before + 1 + after  # a token's word lies between 1 and V
    one = linear(Sum(KroneckerDelta(word, w), (w, 1, size)))
    a, b = KroneckerDelta(x[1], w), KroneckerDelta(x[2], w)
    return {
        "bag(x y)_w": both,
        "sum_w bag(x)_w": proven("total", linear(Sum(one, (t, 1, length))), total(length, words)),
        "two tokens": proven("swapped", a + b, swapped(a, b)),
    }


@proof("embed.mean-is-nearest", idea="I02", holds="for symbols", false={"best": lambda total, n: total / (n + 1)})
def mean_is_nearest(best: Formula = lambda total, n: total / n) -> Derived:
    """One vector for all uses of a word is nearest to them, in squares, where it is their mean.

        d/dm sum_i (m - u_i)^2 = 0 at m = (1/n) sum_i u_i;  the second derivative is 2 n > 0     (1)

    Source: the notes' "average meaning"; Gauss' least squares.
    """
    from sympy import IndexedBase, Sum, diff, symbols

    i, n = symbols("i", integer=True), symbols("n", integer=True, positive=True)
    m, u = symbols("m", real=True), IndexedBase("u", real=True)
    slope = diff(linear(Sum((m - u[i]) ** 2, (i, 1, n))), m)
    total = linear(Sum(u[i], (i, 1, n)))
    proven("slope at the mean", slope.subs(m, best(total, n)), 0)
    ordered("a minimum", 0, diff(slope, m), strictly=True)
    return {"mean": best(total, n), "slope": slope}


@proof("text.repeating-keeps-tf-idf", idea="I01", holds="for symbols", false={"direction": lambda x, m: m * x})
def repeating_keeps_tf_idf(direction: Formula = lambda x, _: x) -> Derived:
    """A document repeated m times has counts m times as large, and the same normalized TF-IDF vector.

        m f_w i_w / sqrt(sum_u (m f_u i_u)^2) = f_w i_w / sqrt(sum_u (f_u i_u)^2)     (1)

    For weights f_w that are the counts or proportional to them, not their logarithms.

    Source: Salton and Buckley 1988, Term-weighting approaches, cosine normalization.
    """
    from sympy import IndexedBase, Sum, sqrt, symbols

    w, words = symbols("w", integer=True), symbols("V", integer=True, positive=True)
    m, square = symbols("m S", positive=True)
    count, inverse = IndexedBase("f", positive=True), IndexedBase("i", positive=True)

    def normalized(times: Any) -> Any:
        squares = linear(Sum((times * count[w] * inverse[w]) ** 2, (w, 1, words)))
        once = linear(Sum((count[w] * inverse[w]) ** 2, (w, 1, words)))
        return times * count[w] * inverse[w] / sqrt(squares.subs(once, square))  # the squares' sum is positive

    return {"tf-idf of m copies": proven("direction", normalized(m), direction(normalized(1), m))}


@proof(
    "text.brevity-penalty",
    idea="I14",
    holds="for symbols",
    false={"even": lambda one: one / 2, "slope": lambda p, r, c: -p * r / c**2, "empty": lambda one: one},
)
def brevity_penalty(
    even: Formula = lambda one: one, slope: Formula = lambda p, r, c: p * r / c**2, empty: Formula = lambda one: 0 * one
) -> Derived:
    """BLEU's brevity penalty rises with the candidate's length c from 0 to 1 at the reference's length r, without a jump.

        BP = exp(1 - r / c) for c <= r, else 1:  BP(r) = 1,  dBP/dc = BP r / c^2 > 0,  BP -> 0 for c -> 0     (1)

    Source: Papineni, Roukos, Ward, Zhu 2002, BLEU, sec. 2.3.
    """
    from sympy import Integer, diff, exp, limit, symbols

    r, c = symbols("r c", positive=True)
    penalty, one = exp(1 - r / c), Integer(1)
    ordered("rises", 0, slope(penalty, r, c), strictly=True)
    return {
        "BP at c = r": proven("even", penalty.subs(c, r), even(one)),
        "dBP/dc": proven("slope", diff(penalty, c), slope(penalty, r, c)),
        "BP for c -> 0": proven("empty", limit(penalty, c, 0, "+"), empty(one)),
    }
