"""Cross-entropy: its gradient is weights minus targets, and what changes nothing (I07)."""

from __future__ import annotations

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, ordered, proof, proven
from attnspec.properties.proofs.sums import linear


@proof(
    "train.cross-entropy-gradient",
    idea="I07",
    holds="for symbols",
    false={
        "gradient": lambda p, t: t - p,
        "smoothed": lambda same, eps, V: (1 - eps) * same + eps / (V - 1),
        "total": lambda V: V,
    },
)
def cross_entropy_gradient(
    gradient: Formula = lambda p, t: p - t,
    smoothed: Formula = lambda same, eps, V: (1 - eps) * same + eps / V,
    total: Formula = lambda _: 1,
) -> Derived:
    """The gradient of the loss for the logits is softmax minus the targets, also with label smoothing.

        l = -sum_w t_w log p_w,  sum_w t_w = 1:  dl/dx_w = p_w - t_w                        (1)
        t_w = [w = y], or (1 - eps) [w = y] + eps / V, which adds to one as it must         (2)

    Source: arXiv:1512.00567 sec. 7 for the smoothing; softmax.jacobian.
    """
    from sympy import IndexedBase, KroneckerDelta, Sum, diff, exp, log, symbols

    x, linear_rest = symbols("x_w c", real=True)
    rest, t, eps = symbols("R t_w eps", positive=True)
    z = exp(x) + rest
    # -sum_w t_w (x_w - log z) = log z - t_w x_w - what the other logits give, since the targets add to one
    found = diff(log(z) - t * x - linear_rest, x)
    before, after = symbols("y_0 V_0", integer=True, nonnegative=True)
    w, y, V = symbols("w", integer=True), before + 1, before + 1 + after
    targets = linear(Sum(smoothed(KroneckerDelta(w, y), eps, V), (w, 1, V)))
    target, logit, lse = IndexedBase("t"), IndexedBase("x"), symbols("lse", real=True)
    whole = linear(Sum(-target[w] * (logit[w] - lse), (w, 1, V))).subs(linear(Sum(target[w], (w, 1, V))), 1)
    proven("l", whole, lse - linear(Sum(target[w] * logit[w], (w, 1, V))))
    return {
        "dl/dx_w": proven("gradient", found, gradient(exp(x) / z, t)),
        "dl/dx_y": proven("at the target", found.subs(t, 1), gradient(exp(x) / z, 1)),
        "sum of smoothed targets": proven("total", targets, total(V)),
    }


@proof(
    "train.cross-entropy-invariants",
    idea="I07",
    holds="for symbols",
    false={"shifted": lambda loss, c: loss + c, "uniform": lambda V, log: 1 / V, "excess": lambda loss, exp: 1 - exp(loss)},
)
def cross_entropy_invariants(
    shifted: Formula = lambda loss, _: loss,
    uniform: Formula = lambda V, log: log(V),
    excess: Formula = lambda loss, exp: exp(loss) - 1,
) -> Derived:
    """The loss does not see a constant added to the logits, is positive, and is log V where all logits are equal.

        l = -x_y + log sum_w exp(x_w):  l(x + c) = l(x),  exp(l) - 1 = sum_(w != y) exp(x_w - x_y) > 0,  l(0) = log V     (1)

    Source: arXiv:1512.00567 sec. 7; softmax.shift-invariance.
    """
    from sympy import IndexedBase, Sum, exp, expand_log, log, symbols

    w, y = symbols("w y", integer=True)
    V = symbols("V", integer=True, positive=True)
    c, same, target = symbols("c x x_y", real=True)
    rest, z = symbols("R z", positive=True)
    x = IndexedBase("x", real=True)
    moved = linear(Sum(exp(x[w] + c), (w, 1, V))).subs(linear(Sum(exp(x[w]), (w, 1, V))), z)
    equal = -same + expand_log(log(linear(Sum(exp(same), (w, 1, V)))), force=True)
    loss = -target + log(exp(target) + rest)
    return {
        "l(x + c)": proven("shifted", -(x[y] + c) + expand_log(log(moved)), shifted(-x[y] + log(z), c)),
        "l of equal logits": proven("uniform", equal, uniform(V, log)),
        "exp(l) - 1": ordered("positive", 0, excess(loss, exp).expand(), strictly=True),
    }


@proof(
    "train.padding-does-not-count",
    idea="I07",
    holds="for symbols",
    false={"real": lambda t, n, choose: choose((1, t <= n), (2, True))},
)
def padding_does_not_count(real: Formula = lambda t, n, choose: choose((1, t <= n), (0, True))) -> Derived:
    """The mean over real tokens is the unpadded one, however many padded steps follow and whatever their losses are.

        sum_(t=1)^(n+P) m_t l_t = sum_(t=1)^n l_t,  sum_(t=1)^(n+P) m_t = n,  m_t = 1 if t <= n else 0     (1)

    By induction over P.

    Source: the definition of the mean; torch.nn.CrossEntropyLoss, argument ignore_index.
    """
    from sympy import IndexedBase, Piecewise, Sum, symbols

    t, n = symbols("t", integer=True), symbols("n", integer=True, positive=True)
    padded = symbols("P", integer=True, nonnegative=True)
    losses = IndexedBase("l", real=True)
    derived = {}
    for name, loss, whole in (("sum", lambda at: losses[at], linear(Sum(losses[t], (t, 1, n)))), ("count", lambda _: 1, n)):
        derived[name] = by_induction(
            name,
            lambda _, whole=whole: whole,
            padded,
            linear(Sum(real(t, n, Piecewise) * loss(t), (t, 1, n))),
            lambda sofar, count, loss=loss: sofar + real(n + count + 1, n, Piecewise) * loss(n + count + 1),
        )
    return derived
