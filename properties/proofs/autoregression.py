"""One token after another against all at once: how many runs, how much work, how many weights (I06, I10, I11, I26)."""

from __future__ import annotations

from typing import Any

from attnspec.properties.proofs.proof import Derived, Formula, by_induction, proof, proven
from attnspec.properties.proofs.sums import last_apart


@proof("seq2seq.decoder-runs", idea="I26", holds="for symbols", false={"runs": lambda n: 2 * n + 1})
def decoder_runs(runs: Formula = lambda n: n + 1) -> Derived:
    """A sentence of N words takes N + 1 decoder runs: one a word, and one that yields <END>.

        runs(0) = 1,  runs(N + 1) = runs(N) + 1  =>  runs(N) = N + 1     (1)

    Source: arXiv:1409.3215 sec. 2; the notes' 301 runs for 300 words.
    """
    from sympy import Integer, symbols

    n = symbols("N", integer=True, nonnegative=True)
    return {
        "runs(N)": by_induction("runs", runs, n, Integer(1), lambda sofar, _: sofar + 1),
        "runs(300)": proven("the notes' figure", 301, runs(Integer(300))),
    }


@proof(
    "cache.work-step-by-step",
    idea="I26",
    holds="for symbols",
    false={
        "cached": lambda n: n**2,
        "repeated": lambda n: n * (n + 1) * (2 * n + 1) / 3,
        "hidden": lambda n: n * (n + 1) / 2,
    },
)
def work_step_by_step(
    cached: Formula = lambda n: n * (n + 1) / 2,
    repeated: Formula = lambda n: n * (n + 1) * (2 * n + 1) / 6,
    hidden: Formula = lambda n: n * (n - 1) / 2,
) -> Derived:
    """Step by step with a cache N tokens take N (N + 1) / 2 scores, the visible half of the N^2 that one parallel run makes.

        with a cache: sum_t t = N (N + 1) / 2;  without: sum_t t^2 = N (N + 1) (2 N + 1) / 6     (1)
        in parallel: N^2, of which the mask hides N (N - 1) / 2                                  (2)

    Source: arXiv:1706.03762 sec. 3.2.3 and table 1 (one sequential operation against N).
    """
    from sympy import Integer, Sum, symbols

    n, t = symbols("N", integer=True, nonnegative=True), symbols("t", integer=True)
    zero = Integer(0)
    once = by_induction("cached", cached, n, zero, lambda sofar, step: sofar + (step + 1))
    again = by_induction("repeated", repeated, n, zero, lambda sofar, step: sofar + (step + 1) ** 2)
    unseen = Sum(n - t, (t, 1, n)).doit()  # row t hides the n - t keys after it
    proven("seen and hidden", n**2, once + unseen)
    return {"with a cache": once, "without": again, "hidden in parallel": proven("hidden", unseen, hidden(n))}


@proof("seq2seq.number-of-alphas", idea="I11", holds="for symbols", false={"count": lambda x, y: x + y})
def number_of_alphas(count: Formula = lambda x, y: x * y) -> Derived:
    """There is one weight for each pair of an output step and an input step: the product of the lengths.

        sum_i sum_j 1 = |y| |x|     (1)

    Source: arXiv:1409.0473 eq. 6; the notes' "i + j = 4 x 4 = 16".
    """
    from sympy import Sum, symbols

    x, y = symbols("|x| |y|", integer=True, positive=True)
    i, j = symbols("i j", integer=True)
    found = proven("count", Sum(1, (j, 1, x), (i, 1, y)).doit(), count(x, y))
    return {"alphas": found, "4 and 4 words": proven("the notes' figure", 16, count(4, 4))}


@proof(
    "seq2seq.reversed-source",
    idea="I10",
    holds="for symbols",
    false={"plain": lambda n, i: n + i, "reversed_": lambda i: i, "mean": lambda n: n / 2},
)
def reversed_source(
    plain: Formula = lambda n, _: n, reversed_: Formula = lambda i: 2 * i - 1, mean: Formula = lambda n: n
) -> Derived:
    """Reversing the source brings the first words next to each other and leaves the average distance as it is.

        word i of n is read at step i, or reversed at n + 1 - i; its translation comes at n + i     (1)
        distances: n, or 2 i - 1, which is 1 for the first; the mean of both is n                   (2)

    For a translation of equal length and order, the case that the paper argues with.

    Source: arXiv:1409.3215 sec. 3.3.
    """
    from sympy import Integer, Sum, symbols

    i, n = symbols("i", integer=True), symbols("n", integer=True, positive=True)

    def average(distance: Any) -> Any:
        return Sum(distance, (i, 1, n)).doit() / n

    proven("mean, plain", average(plain(n, i)), mean(n))
    return {
        "distance": proven("plain", (n + i) - i, plain(n, i)),
        "distance, reversed": proven("reversed", (n + i) - (n + 1 - i), reversed_(i)),
        "mean, reversed": proven("mean, reversed", average(reversed_(i)), mean(n)),
        "first word, reversed": proven("first", 1, reversed_(Integer(1))),
    }


@proof("train.loss-adds-the-steps", idea="I06", holds="for symbols", false={"joint": lambda total, exp: exp(2 * total)})
def loss_adds_the_steps(joint: Formula = lambda total, exp: exp(total)) -> Derived:
    """The log-probability of a sequence is the sum of its steps', given the tokens before: what teacher forcing computes.

        p(y) = prod_t p(y_t | y_1 .. y_(t-1)) = exp(sum_t log p_t)     (1)

    By induction over the length.

    Source: arXiv:1409.3215 eq. 1; arXiv:1409.0473 eq. 2.
    """
    from sympy import IndexedBase, Integer, Sum, exp, log, symbols

    t, n = symbols("t", integer=True), symbols("N", integer=True, nonnegative=True)
    p = IndexedBase("p", positive=True)

    def formula(count: Any) -> Any:
        total = Sum(log(p[t]), (t, 1, count))
        return joint(last_apart(total) if count == n + 1 else total.doit(), exp)

    return {"p(y)": by_induction("joint", formula, n, Integer(1), lambda sofar, step: sofar * p[step + 1])}
