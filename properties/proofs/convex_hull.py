"""The convex hull: an output lies among the values, and is pulled toward the heaviest (I21)."""

from __future__ import annotations

from attnspec.properties.proofs.proof import Derived, Formula, ordered, proof, proven


@proof(
    "softmax.mean-stays-in-hull",
    idea="I21",
    holds="for symbols",
    false={
        "blend": lambda out, v, w: out + w * v,
        "above": lambda out, low: low - out,
        "below": lambda high, out: out - high,
    },
)
def mean_stays_in_hull(
    blend: Formula = lambda out, v, w: (1 - w) * out + w * v,
    above: Formula = lambda out, low: out - low,
    below: Formula = lambda high, out: high - out,
) -> Derived:
    """Each further key moves the output by a weight between 0 and 1, so that it stays between the extremes of its values.

        out' = (z out + e v) / (z + e) = (1 - w) out + w v,  w = e / (z + e),  e = exp(x)            (1)
        low <= out, v <= high  =>  low <= out' <= high                                               (2)

    By induction over keys: the output of one key is its value.

    Source: arXiv:1706.03762 eq. 1.
    """
    from sympy import exp, symbols

    x, low, high = symbols("x low high", real=True)
    z = symbols("z", positive=True)
    out, v = symbols("out v", real=True)
    a, b = symbols("a b", nonnegative=True)
    weight = exp(x) / (z + exp(x))
    more = blend(out, v, weight)
    proven("next", (z * out + exp(x) * v) / (z + exp(x)), more)
    return {
        "out'": more,
        "out' - low": ordered("above", 0, above(more.subs({out: low + a, v: low + b}), low)),
        "high - out'": ordered("below", 0, below(high, more.subs({out: high - a, v: high - b}))),
    }


@proof(
    "softmax.pull",
    idea="I21",
    holds="for symbols",
    false={"slope": lambda p, v, _: p * v, "distance": lambda p, v, r: p * (v - r), "step": lambda p, grown: p * grown},
)
def pull(
    slope: Formula = lambda p, v, out: p * (v - out),
    distance: Formula = lambda p, v, r: (1 - p) * (v - r),
    step: Formula = lambda p, grown: p * grown / (1 + p * grown),
) -> Derived:
    """A rising score pulls the output straight toward its key's value, and the output is the nearer the heavier the key.

        d out / dx_s = p_s (v_s - out),  v_s - out = (1 - p_s) (v_s - r),  r the mean of the others       (1)
        out(x_s + g) - out(x_s) = w (v_s - out(x_s)),  w = p_s (e^g - 1) / (1 + p_s (e^g - 1))            (2)

    Source: arXiv:1706.03762 eq. 1, differentiated.
    """
    from sympy import diff, exp, symbols

    x, v, r = symbols("x v r", real=True)
    rest, g = symbols("R g", positive=True)
    p = exp(x) / (exp(x) + rest)
    out = (exp(x) * v + rest * r) / (exp(x) + rest)
    moved = out.subs(x, x + g) - out
    share = step(p, exp(g) - 1)
    proven("step", moved, share * (v - out))
    ordered("a share of the way", 0, step(p, g).together(), strictly=True)
    ordered("not all of it", 0, (1 - step(p, g)).together(), strictly=True)
    return {
        "d out / dx_s": proven("slope", diff(out, x), slope(p, v, out)),
        "v_s - out": proven("distance", v - out, distance(p, v, r)),
        "w": share,
    }
