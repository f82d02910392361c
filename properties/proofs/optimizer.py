"""Training steps: Adam's correction, SGD on a parabola, the gradients of a linear map (I08)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "train.adam-is-unbiased",
    idea="I08",
    holds="for symbols",
    false={"mean": lambda b, t, g: (1 - b) ** t * g, "corrected": lambda g, b, t: g / (1 - b**t)},
)
def adam_is_unbiased(mean: Formula = lambda b, t, g: (1 - b**t) * g, corrected: Formula = lambda g, b, t: g) -> Derived:
    """Adam's running mean is short of the gradient's by 1 - beta^t, and its correction divides by just that.

        m_t = beta m_(t-1) + (1 - beta) g_t,  m_0 = 0:  E[m_t] = (1 - beta^t) E[g],  E[m_t / (1 - beta^t)] = E[g]     (1)

    By induction over t, for gradients of one mean; with g^2 for g the same holds of the second moment.

    Source: arXiv:1412.6980 sec. 3.
    """
    from sympy import Integer, symbols

    b, g = symbols("beta g", real=True)
    t = symbols("t", integer=True, nonnegative=True)
    found = by_induction("E[m_t]", lambda n: mean(b, n, g), t, Integer(0), lambda m, _: b * m + (1 - b) * g)
    return {"E[m_t]": found, "E[m_t / (1 - beta^t)]": proven("corrected", found / (1 - b**t), corrected(g, b, t))}


@proof(
    "train.sgd-on-a-parabola", idea="I08", holds="for symbols; one weight", false={"weight": lambda w, s, n: w * (1 + s) ** n}
)
def sgd_on_a_parabola(weight: Formula = lambda w, s, n: w * (1 - s) ** n) -> Derived:
    """On a w^2 / 2 each step of gradient descent multiplies w by 1 - eta a: it converges exactly for 0 < eta a < 2.

        w_(n+1) = w_n - eta d/dw (a w_n^2 / 2)  =>  w_n = (1 - eta a)^n w_0     (1)

    Source: LeCun, Bottou, Orr, Mueller 1998, Efficient BackProp, sec. 5.1.
    """
    from sympy import diff, symbols

    start, w = symbols("w_0 w", real=True)
    a, eta = symbols("a eta", positive=True)
    n = symbols("n", integer=True, nonnegative=True)
    slope = diff(a * w**2 / 2, w)
    found = by_induction(
        "w_n", lambda k: weight(start, eta * a, k), n, start, lambda before, _: before - eta * slope.subs(w, before)
    )
    return {"w_n": found}


@proof(
    "grad.linear-map",
    idea="I08",
    holds="for symbols",
    false={"inputs": lambda w, g, total: -total(g, w), "weights": lambda g, x: g + x},
)
def linear_map(inputs: Formula = lambda w, g, total: total(g, w), weights: Formula = lambda g, x: g * x) -> Derived:
    """The gradients of y = W x are W^T g for x and g x^T for W.

        l = sum_o g_o sum_i W_oi x_i:  dl/dx_i = sum_o g_o W_oi,  dl/dW_oi = g_o x_i     (1)

    Source: the chain rule; Rumelhart, Hinton, Williams 1986.
    """
    from sympy import IndexedBase, Sum, diff, symbols

    first, second, third, fourth = symbols("i_0 I_0 o_0 O_0", integer=True, nonnegative=True)
    i, o = symbols("i o", integer=True)
    column, row = first + 1, third + 1
    w, g, x = (IndexedBase(name, real=True) for name in ("W", "g", "x"))
    loss = Sum(g[o] * w[o, i] * x[i], (i, 1, column + second), (o, 1, row + fourth))

    def total(left: Any, right: Any) -> Any:
        return linear(Sum(left[o] * right[o, column], (o, 1, row + fourth)))

    return {
        "dl/dx_i": proven("inputs", linear(diff(loss, x[column])), inputs(w, g, total)),
        "dl/dW_oi": proven("weights", linear(diff(loss, w[row, column])), weights(g[row], x[column])),
    }
