"""Masks: -inf is weight zero is the prefix alone; padding is not seen; without a mask the future leaks (I03, I24, I25)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, ordered, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "mask.minus-infinity-hides",
    idea="I25",
    holds="for symbols",
    false={
        "hidden": lambda rest: 1 / (1 + rest),
        "others": lambda e, rest: e / (e + rest + 1),
        "output": lambda r, v: (r + v) / 2,
        "leak": lambda w, v, r: 0 * w * v * r,
    },
)
def minus_infinity_hides(
    hidden: Formula = lambda _: 0,
    others: Formula = lambda e, rest: e / (e + rest),
    output: Formula = lambda r, _: r,
    leak: Formula = lambda w, v, r: w * (v - r),
) -> Derived:
    """A bias b -> -inf takes a key's weight to 0 and leaves the softmax of the others; any finite b leaks.

        p_s -> 0,  p_t -> exp(x_t) / sum_(u != s) exp(x_u),  out -> r, the others' mean;  out - r = p_s (v_s - r)     (1)

    Source: arXiv:1706.03762 sec. 3.2.3.
    """
    from sympy import exp, limit, oo, symbols

    b, x, y, v, r = symbols("b x_s x_t v_s r", real=True)
    rest = symbols("R", positive=True)
    masked = exp(x + b)
    weight = masked / (masked + rest)
    out = (masked * v + rest * r) / (masked + rest)
    return {
        "p_s at -inf": proven("hidden", limit(weight, b, -oo), hidden(rest)),
        "p_t at -inf": proven("others", limit(exp(y) / (exp(y) + masked + rest), b, -oo), others(exp(y), rest)),
        "out at -inf": proven("output", limit(out, b, -oo), output(r, v)),
        "out - r": proven("leak", out - r, leak(weight, v, r)),
        "p_s at a finite b": ordered("finite", 0, weight, strictly=True),
    }


@proof(
    "mask.triangle-is-prefix",
    idea="I25",
    holds="for symbols",
    false={
        "bias": lambda s, t, choose, oo: choose((0, s <= t), (-10, True)),
        "later": lambda e: e,
        "earlier": lambda _: 0,
    },
)
def triangle_is_prefix(
    bias: Formula = lambda s, t, choose, oo: choose((0, s <= t), (-oo, True)),
    later: Formula = lambda _: 0,
    earlier: Formula = lambda e: e,
) -> Derived:
    """Under the triangle of 0 and -inf, row t is attention on keys 1..t alone, however many follow.

        sum_(s=1)^(t+n) exp(x_s) exp(b_ts) v_s = sum_(s=1)^t exp(x_s) v_s,  b_ts = 0 if s <= t else -inf     (1)
        d/dv_u of it = 0 for u > t, exp(x_u) > 0 for u <= t                                                  (2)

    By induction over n, the number of later keys; v = 1 gives the denominator, which no value enters.

    Source: arXiv:1706.03762 sec. 3.2.3.
    """
    from sympy import IndexedBase, Piecewise, Sum, diff, exp, oo, symbols

    s, t = symbols("s", integer=True), symbols("t", integer=True, positive=True)
    n, before = symbols("n u_0", integer=True, nonnegative=True)
    x, v = IndexedBase("x", real=True), IndexedBase("v", real=True)

    def term(key: Any) -> Any:
        return exp(x[key]) * exp(bias(key, t, Piecewise, oo)) * v[key]

    prefix = linear(Sum(exp(x[s]) * v[s], (s, 1, t)))
    start = linear(Sum(term(s), (s, 1, t)))
    whole = by_induction("prefix", lambda _: prefix, n, start, lambda total, count: total + term(t + count + 1))
    after, here = t + n + 1, before + 1
    inside = diff(prefix.subs(t, before + 1 + n), v[here])
    ordered("a visible value counts", 0, exp(x[here]), strictly=True)
    return {
        "sum over t + n keys": whole,
        "d/dv_u, u > t": proven("later", linear(diff(prefix, v[after])), later(exp(x[after]))),
        "d/dv_u, u <= t": proven("earlier", linear(inside), earlier(exp(x[here]))),
    }


@proof("mask.leak-without-mask", idea="I24", holds="for symbols", false={"leak": lambda _: 0})
def leak_without_mask(leak: Formula = lambda p: p) -> Derived:
    """Without a mask every output depends on every later value, by its weight, which is never zero.

        d out_t / dv_u = p_tu > 0 for every u, also u > t     (1)

    Source: arXiv:1706.03762 sec. 3.2.3, which masks for this reason.
    """
    from sympy import diff, exp, symbols

    x, v, r = symbols("x_u v_u r", real=True)
    rest = symbols("R", positive=True)
    weight = exp(x) / (exp(x) + rest)
    out = (exp(x) * v + rest * r) / (exp(x) + rest)
    proven("leak", diff(out, v), leak(weight))
    return {"d out_t / dv_u": leak(weight), "p_tu": ordered("positive", 0, leak(weight), strictly=True)}


@proof(
    "batch.padding-changes-nothing",
    idea="I03",
    holds="for symbols",
    false={
        "hides": lambda s, n, choose, oo: choose((0, s <= n), (-10, True)),
        "held": lambda real, after, before: real * after,
    },
)
def padding_changes_nothing(
    hides: Formula = lambda s, n, choose, oo: choose((0, s <= n), (-oo, True)),
    held: Formula = lambda real, after, before: real * after + (1 - real) * before,
) -> Derived:
    """A row padded to any length gives its unpadded answer: padded keys weigh nothing, and a state is held over padded steps.

        sum_(s=1)^(n+P) exp(x_s + b_s) v_s = sum_(s=1)^n exp(x_s) v_s,  b_s = 0 if s <= n else -inf                       (1)
        h_t = m_t f(h_(t-1), x_t) + (1 - m_t) h_(t-1),  m_t = 0 if padded:  h_(n+P) = h_n,  and one step is f if m = 1    (2)

    By induction over P; v = 1 gives the denominator.

    Source: the definition of a padded batch; torch.nn.utils.rnn.pack_padded_sequence.
    """
    from sympy import IndexedBase, Piecewise, Sum, exp, oo, symbols

    s, n = symbols("s", integer=True), symbols("n", integer=True, positive=True)
    padded = symbols("P", integer=True, nonnegative=True)
    x, v, f = IndexedBase("x", real=True), IndexedBase("v", real=True), IndexedBase("f", real=True)
    state = symbols("h_n", real=True)

    def term(key: Any) -> Any:
        return exp(x[key]) * exp(hides(key, n, Piecewise, oo)) * v[key]

    alone, start = linear(Sum(exp(x[s]) * v[s], (s, 1, n))), linear(Sum(term(s), (s, 1, n)))
    proven("a real step", held(1, f[n], state), f[n])
    return {
        "sum over n + P keys": by_induction("keys", lambda _: alone, padded, start, lambda t, p: t + term(n + p + 1)),
        "h after n + P steps": by_induction("state", lambda _: state, padded, state, lambda h, p: held(0, f[n + p + 1], h)),
    }
