"""Recurrent layers: products of Jacobians, the path along the cell, states between others (I04)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, ordered, proof, proven
from attnspec.properties.proofs.sums import last_apart


@proof("rnn.linear-gradient", idea="I04", holds="for symbols", false={"power": lambda w, n: w ** (2 * n)})
def linear_gradient(power: Formula = lambda w, n: w**n) -> Derived:
    """In a linear recurrent layer the gradient across T steps is the T-th power of the recurrent weights.

        h_t = W h_(t-1) + U x_t:  dh_T/dh_0 = W^T     (1)

    By induction over T: the chain rule multiplies by W at every step.

    Source: arXiv:1211.5063 sec. 2.1.
    """
    from sympy import Identity, MatrixSymbol, symbols

    N = symbols("N", integer=True, positive=True)
    n = symbols("T", integer=True, nonnegative=True)
    w = MatrixSymbol("W", N, N)
    found = by_induction("power", lambda k: power(w, k).doit(), n, Identity(N), lambda jacobian, _: (w * jacobian).doit())
    return {"dh_T/dh_0": found}


@proof(
    "rnn.gradient-vanishes",
    idea="I04",
    holds="for symbols; one unit",
    false={
        "factor": lambda w, h: w * (1 - h),
        "bound": lambda a, n: a ** (n + 1) / 2,
        "limits": lambda zero, infinity: (infinity, zero),
    },
)
def gradient_vanishes(
    factor: Formula = lambda w, h: w * (1 - h**2),
    bound: Formula = lambda a, n: a**n,
    limits: Formula = lambda zero, infinity: (zero, infinity),
) -> Derived:
    """A tanh unit's gradient is a product of factors w (1 - h^2), at most |w|^T: it vanishes for |w| < 1.

        h_t = tanh(w h_(t-1) + a_t):  dh_t/dh_(t-1) = w (1 - h_t^2),  |dh_T/dh_0| = prod_t |w| (1 - h_t^2) <= |w|^T     (1)

    By induction over T. |w|^T tends to 0 for |w| < 1; without tanh it grows beyond all bounds for |w| > 1.

    Source: arXiv:1211.5063 sec. 2.1; Bengio, Simard, Frasconi 1994.
    """
    from sympy import Integer, cosh, diff, exp, limit, oo, symbols, tanh

    h, w, a = symbols("h w a", real=True)
    n = symbols("T", integer=True, nonnegative=True)
    size, more = symbols("|w| r", positive=True)
    after = tanh(w * h + a)
    proven("1 - tanh^2", (1 - after**2).rewrite(exp), (cosh(w * h + a) ** -2).rewrite(exp))
    ordered("a factor is not negative", 0, size * cosh(w * h + a) ** -2)
    ordered("bound, base", Integer(1), bound(size, Integer(0)))
    # A product of at most bound(n) times a factor that is not negative is at most bound(n) times it:
    ordered("bound, step", bound(size, n) * size * (1 - after**2), bound(size, n + 1))
    vanishes, explodes = limits(Integer(0), oo)
    return {
        "dh_t/dh_(t-1)": proven("factor", diff(after, h), factor(w, after)),
        "bound": bound(size, n),
        "limit for |w| < 1": proven("vanishes", limit((1 / (1 + more)) ** n, n, oo), vanishes),
        "limit for w > 1": proven("explodes", limit((1 + more) ** n, n, oo), explodes),
    }


@proof(
    "rnn.cell-path",
    idea="I04",
    holds="for symbols; one unit, gates held",
    false={"step": lambda f, i: f * i, "path": lambda f, product, t, n: product(f[1], (t, 1, n))},
)
def cell_path(step: Formula = lambda f, _: f, path: Formula = lambda f, product, t, n: product(f[t], (t, 1, n))) -> Derived:
    """Along the cell path an LSTM's gradient is the product of its forget gates, which is 1 where they are open.

        c_t = f_t c_(t-1) + i_t g_t:  dc_T/dc_0 = prod_t f_t;  f = 1: 1     (1)

    By induction over T. "Along the path" holds the gates fixed: they too depend on earlier states, by other paths.

    Source: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber, Cummins 2000 for the forget gate.
    """
    from sympy import IndexedBase, Integer, Product, diff, symbols

    n = symbols("T", integer=True, nonnegative=True)
    t = symbols("t", integer=True)
    c, gate, enter, new = symbols("c f i g", real=True)
    f = IndexedBase("f", real=True)
    once = proven("step", diff(gate * c + enter * new, c), step(gate, enter))

    def product(count: Any) -> Any:
        found = path(f, Product, t, count)
        return last_apart(found) if count == n + 1 else found.doit()

    whole = by_induction("path", product, n, Integer(1), lambda sofar, count: sofar * once.subs(gate, f[count + 1]))
    opened = Product(Integer(1), (t, 1, n)).doit()
    return {"dc_t/dc_(t-1)": once, "dc_T/dc_0": whole, "f = 1": proven("open gates", opened, 1)}


@proof(
    "rnn.gru-lies-between",
    idea="I04",
    holds="for symbols",
    false={"state": lambda z, h, n: h + z * n, "above": lambda h, low: low - h, "below": lambda high, h: h - high},
)
def gru_lies_between(
    state: Formula = lambda z, h, n: (1 - z) * n + z * h,
    above: Formula = lambda h, low: h - low,
    below: Formula = lambda high, h: high - h,
) -> Derived:
    """A GRU's state lies between the state before and the candidate; its gate of 1 copies, of 0 replaces.

        h' = (1 - z) n + z h,  0 <= z <= 1  =>  min(h, n) <= h' <= max(h, n)     (1)

    Source: arXiv:1406.1078 eq. 7.
    """
    from sympy import symbols

    low, x = symbols("low x", real=True)
    gap = symbols("g", nonnegative=True)
    z = 1 / (1 + symbols("r", nonnegative=True))  # every gate above 0; 0 itself below
    for h, n in ((low, low + gap), (low + gap, low)):
        for gate in (z, 1 - z):  # 1 - z takes the gate from 1 down to 0
            ordered("above the lower", 0, above(state(gate, h, n), low).together())
            ordered("below the higher", 0, below(low + gap, state(gate, h, n)).together())
    h, n = symbols("h n", real=True)
    return {
        "h'": state(x, h, n),
        "z = 1": proven("copied", state(1, h, n), h),
        "z = 0": proven("replaced", state(0, h, n), n),
    }
