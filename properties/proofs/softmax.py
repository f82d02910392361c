"""Softmax: shift, sum, order, Jacobian, permutations, for any number of scores (I08, I18).

Where one or two scores matter, the others enter as R, the sum of their exponentials: any R > 0, so any number of them.
"""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, ordered, proof, proven
from attnspec.properties.proofs.sums import linear


@proof("softmax.shift-invariance", idea="I18", holds="for symbols", false={"shifted": lambda p, c: 2**c * p})
def shift_cancels(shifted: Formula = lambda p, _: p) -> Derived:
    """A constant added to every score cancels, so that subtracting the maximum changes no weight.

        exp(x_i + c) / sum_j exp(x_j + c) = exp(x_i) / sum_j exp(x_j)     (1)

    Source: arXiv:1805.02867 sec. 2, eq. 2.
    """
    from sympy import IndexedBase, Sum, exp, symbols

    i, j = symbols("i j", integer=True)
    n = symbols("n", integer=True, positive=True)
    c, x = symbols("c", real=True), IndexedBase("x", real=True)

    def weight(shift: Any) -> Any:
        return exp(x[i] + shift) / linear(Sum(exp(x[j] + shift), (j, 1, n)))

    return {"softmax(x + c)_i": proven("shifted", weight(c), shifted(weight(0), c))}


@proof(
    "softmax.weights-add-to-one",
    idea="I18",
    holds="for symbols",
    false={"total": lambda n: n, "above_zero": lambda p: -p, "below_one": lambda p: p - 1},
)
def weights_add_to_one(
    total: Formula = lambda _: 1, above_zero: Formula = lambda p: p, below_one: Formula = lambda p: 1 - p
) -> Derived:
    """The weights of a row add to one, are positive, and are below one if there are two or more.

        sum_i exp(x_i) / z = 1,  0 < exp(x_i) / z < 1,  z = sum_j exp(x_j)     (1)

    Source: arXiv:1706.03762 eq. 1.
    """
    from sympy import IndexedBase, Sum, exp, symbols

    i, n = symbols("i", integer=True), symbols("n", integer=True, positive=True)
    x, z = IndexedBase("x", real=True), symbols("z", positive=True)
    score, rest = symbols("x_i", real=True), symbols("R", positive=True)
    weight = exp(score) / (exp(score) + rest)
    summed = linear(Sum(exp(x[i]) / z, (i, 1, n))).subs(z, linear(Sum(exp(x[i]), (i, 1, n))))
    return {
        "sum of the weights": proven("sum", summed, total(n)),
        "p_i > 0": ordered("above zero", 0, above_zero(weight), strictly=True),
        "1 - p_i > 0": ordered("below one", 0, below_one(weight).together(), strictly=True),
    }


@proof("softmax.equal-entries", idea="I18", holds="for symbols", false={"weight": lambda _: 1, "output": lambda v, n: n * v})
def equal_entries(weight: Formula = lambda n: 1 / n, output: Formula = lambda v, _: v) -> Derived:
    """Equal scores weigh every key alike, so that the output is the values' mean; equal values are returned as they are.

        exp(c) / sum_s exp(c) = 1 / S,  sum_s p_s v = v  for  sum_s p_s = 1     (1)

    Source: arXiv:1706.03762 eq. 1.
    """
    from sympy import IndexedBase, Sum, exp, symbols

    s, n = symbols("s", integer=True), symbols("S", integer=True, positive=True)
    c, v, p = symbols("c", real=True), symbols("v", real=True), IndexedBase("p", positive=True)
    same = linear(Sum(p[s] * v, (s, 1, n))).subs(linear(Sum(p[s], (s, 1, n))), 1)
    return {
        "weight of equal scores": proven("weight", exp(c) / linear(Sum(exp(c), (s, 1, n))), weight(n)),
        "mean of equal values": proven("output", same, output(v, n)),
    }


@proof("softmax.keeps-the-order", idea="I18", holds="for symbols", false={"log_ratio": lambda a, b: b - a})
def keeps_the_order(log_ratio: Formula = lambda a, b: a - b) -> Derived:
    """The larger of two scores gets the larger weight: the logarithm of their ratio is the difference of the scores.

        log p_i - log p_j = x_i - x_j     (1)

    Source: arXiv:1706.03762 eq. 1.
    """
    from sympy import exp, expand_log, log, symbols

    i, j = symbols("x_i x_j", real=True)
    gap, rest = symbols("g R", positive=True)
    z = exp(i) + exp(j) + rest
    ratio = expand_log(log(exp(i) / z) - log(exp(j) / z), force=True)
    return {
        "log p_i - log p_j": proven("log ratio", ratio, log_ratio(i, j)),
        "x_i - x_j > 0": ordered("a larger score has a larger weight", 0, log_ratio(j + gap, j), strictly=True),
    }


@proof(
    "softmax.jacobian",
    idea="I18",
    holds="for symbols",
    false={"entry": lambda p, q, same: p * (1 - q), "row": lambda p: p},
)
def jacobian(entry: Formula = lambda p, q, same: p * (same - q), row: Formula = lambda _: 0) -> Derived:
    """The Jacobian is diag(p) - p p^T: rising scores lift their own weight and press the others; rows add to zero.

        dp_i/dx_j = p_i ([i = j] - p_j),  sum_j dp_i/dx_j = 0     (1)

    Source: arXiv:2205.14135 app. B.2.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, diff, exp, symbols

    a, b, rest = symbols("x_i x_j R", positive=True)
    z = exp(a) + exp(b) + rest
    p, q = exp(a) / z, exp(b) / z
    # Row i of n weights that add to one, with i anywhere from 1 to n.
    before, after = symbols("i_0 n_0", integer=True, nonnegative=True)
    w, j, i, n = IndexedBase("p"), symbols("j", integer=True), before + 1, before + 1 + after
    everything = linear(Sum(w[j], (j, 1, n)))
    across = linear(Sum(entry(w[i], w[j], KroneckerDelta(i, j)), (j, 1, n))).subs(everything, 1)
    return {
        "dp_i/dx_i": proven("diagonal", diff(p, a), entry(p, p, 1)),
        "dp_i/dx_j": proven("beside the diagonal", diff(p, b), entry(p, q, 0)),
        "sum_j dp_i/dx_j": proven("row", across, row(w[i])),
    }


@proof(
    "softmax.backward",
    idea="I08",
    holds="for symbols",
    false={"score": lambda p, g, mean: p * g, "inner": lambda _: 0, "row": lambda g: g},
)
def backward(
    score: Formula = lambda p, g, mean: p * (g - mean), inner: Formula = lambda d: d, row: Formula = lambda _: 0
) -> Derived:
    """A score's gradient is its weight times what its key's gradient exceeds the mean by; a row of them adds to zero.

        dS_i = sum_j g_j dp_j/dx_i = p_i (g_i - sum_j p_j g_j),  sum_i dS_i = 0     (1)
        sum_j p_j (dO·v_j) = dO·o  for  o = sum_j p_j v_j                           (2)

    Source: arXiv:2205.14135 app. B.2.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, symbols

    before, after = symbols("i_0 n_0", integer=True, nonnegative=True)
    width = symbols("E", integer=True, positive=True)
    j, e = symbols("j e", integer=True)
    i, n = before + 1, before + 1 + after
    p, g, v, cotangent = (IndexedBase(name) for name in ("p", "g", "v", "dO"))
    mean, mu = linear(Sum(p[j] * g[j], (j, 1, n))), symbols("mu")
    gradient = linear(Sum(g[j] * p[j] * (KroneckerDelta(i, j) - p[i]), (j, 1, n)))
    across = linear(Sum(p[j] * (g[j] - mu), (j, 1, n))).subs(mu, mean).subs(linear(Sum(p[j], (j, 1, n))), 1)
    products = p[j] * cotangent[e] * v[j, e]
    by_key = Sum(products, (e, 1, width), (j, 1, n)).reorder((e, j))
    by_channel = Sum(products, (j, 1, n), (e, 1, width))
    return {
        "dS_i": proven("score", gradient, score(p[i], g[i], mean)),
        "sum_i dS_i": proven("row", across, row(g[i])),
        "sum_j p_j dO·v_j": proven("inner", by_key, inner(by_channel)),
    }
