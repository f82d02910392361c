"""Decoding: greedy search as the limit of sampling, and scores of beams that only fall (I09)."""

from __future__ import annotations

from attnspec.properties.proofs.proof import Derived, Formula, ordered, proof, proven


@proof(
    "seq2seq.greedy-is-cold-sampling",
    idea="I09",
    holds="for symbols",
    false={"same": lambda x, lse: x, "cold": lambda one: one / 2, "hot": lambda n: 1 + 0 * n},
)
def greedy_is_cold_sampling(
    same: Formula = lambda x, lse: x - lse, cold: Formula = lambda one: one, hot: Formula = lambda n: 1 / n
) -> Derived:
    """Sampling at temperature tau takes the most probable token as tau -> 0, and any token alike as tau grows.

        log p_w = x_w - lse, the same order as the logits;  p_max(tau) = 1 / (1 + n exp(-g / tau)) -> 1 for tau -> 0     (1)

    The largest logit leads n others by g; leads that differ are bounded by the smallest and the largest of them.

    Source: arXiv:1503.02531 sec. 2 for the temperature.
    """
    from sympy import Integer, exp, expand_log, limit, log, oo, symbols

    x = symbols("x", real=True)
    g, tau, rest = symbols("g tau R", positive=True)
    n = symbols("n", integer=True, positive=True)
    z = exp(x) + rest
    top = 1 / (1 + n * exp(-g / tau))
    found = expand_log(log(exp(x) / z), force=True)
    return {
        "log p_w": proven("same order", found, same(x, log(z))),
        "p_max, tau -> 0": proven("cold", limit(top, tau, 0, "+"), cold(Integer(1))),
        "p_max, tau -> oo": proven("hot", limit(top, tau, oo), hot(n + 1)),
    }


@proof("seq2seq.beam-scores-fall", idea="I09", holds="for symbols", false={"loss": lambda score, longer: longer - score})
def beam_scores_fall(loss: Formula = lambda score, longer: score - longer) -> Derived:
    """A longer hypothesis never scores higher, so that beam search may stop where the best one has ended.

        score(y w) = score(y) + log p_w,  0 < p_w < 1  =>  score(y w) < score(y)     (1)

    Of sums of log-probabilities without a length penalty; with one it need not hold.

    Source: arXiv:1409.3215 sec. 3.2.
    """
    from sympy import exp, log, symbols

    score, x = symbols("score x", real=True)
    rest = symbols("R", positive=True)
    inverse = (exp(x) + rest) / exp(x)  # 1 / p_w
    fallen = loss(score, score - log(inverse))
    ordered("1 / p_w is above one", 1, inverse, strictly=True)
    # exp(log(1 / p_w)) - 1 > 0, so log(1 / p_w) > 0
    ordered("falls", 0, (exp(fallen) - 1).expand(), strictly=True)
    return {"score(y) - score(y w)": proven("fall", fallen, log(inverse))}
