"""Claims on dropout: what is dropped is random, what is kept is scaled, and a seed says which is which.

One-hot values make the output the weights, so that a zero tells a dropped weight. The tests are exact or have a bound that
holds for every sample size, at a level of 1e-13 each: ten thousand of them raise a false alarm once in a billion runs.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from attnspec.properties import numbers
from attnspec.properties.case import Case, Inputs
from attnspec.properties.claim import Source, claim
from attnspec.properties.compare import none_of, same_bits, statistic, within
from attnspec.properties.oracle import expected, expected_gradients, noise, output, unit, visible
from attnspec.properties.strategies import Cases
from attnspec.properties.subject import UNDER, Attention, BoolArray, FloatArray, Profile, Result
from attnspec.properties.twins import Honest

SRIVASTAVA = Source("Srivastava et al., JMLR 15 (2014)", "sec. 4")
TORCH = Source("torch.nn.functional.scaled_dot_product_attention", "argument dropout_p")
ALPHA = 1e-13  # of one test
RATES = (0.5, 0.3, 0.1)
LAGS = (1, 2, 4, 8, 16, 32)  # from neighbours to the next block of a kernel
SEEDS = (0, 1, 256, 65536)  # after the case's own: also seeds that differ in high bits only
ROUNDINGS = 4  # of 1 - p, of its reciprocal, of the product, and of p itself
MANY = Cases(
    mask="never",
    scale="never",
    window="never",
    softcap="never",
    grouped="never",
    sizes={"B": 1, "H": 1, "T": 64, "S": 64, "D": 4},
    values={"q": ("zeros",), "k": ("normal",)},  # equal scores: no weight underflows
)
SOME = Cases(empty="never", gains=(1.0, 0.5), values={"q": ("normal",), "k": ("normal",)}, at_least={"T": 2, "S": 3})


def rate(case: Case) -> float:
    """The dropout rate of a case."""
    return RATES[case.seed % len(RATES)]


def one_hot(profile: Profile, x: Inputs, times: int = 1) -> Inputs:
    """The inputs with values that make the output the weights, `times` over, side by side."""
    keys = x.k.shape[2]
    width = times * keys
    if not profile.offers("value-width") and x.q.shape[3] != width:  # then q and k have as many channels
        spare = [(0, 0)] * 3 + [(0, max(0, width - x.q.shape[3]))]
        x = x.but(q=np.pad(x.q[..., :width], spare), k=np.pad(x.k[..., :width], spare))
    return x.but(v=np.broadcast_to(np.tile(np.eye(keys), times), (*x.k.shape[:3], width)).copy())


@cache
def counts(n: int, p: float, alpha: float = ALPHA) -> tuple[int, int]:
    """How many of n independent events of probability p an exact binomial test of this level lets pass: least and most."""
    k = np.arange(n)
    log_ratio = np.log(n - k) - np.log(k + 1) + np.log(p) - np.log1p(-p)
    mass = np.exp(n * np.log1p(-p) + np.concatenate([[0.0], np.cumsum(log_ratio)]))
    low = int(np.searchsorted(np.cumsum(mass), alpha / 2))
    high = n - int(np.searchsorted(np.cumsum(mass[::-1]), alpha / 2))
    return low, high


def frequency(happened: BoolArray, p: float, what: str, why: str) -> None:
    """The share of independent events of probability p, as a ratio to p, lies where the exact binomial test lets it."""
    n = happened.size
    if n == 0:
        return
    low, high = counts(n, p)
    statistic(happened.sum() / (n * p), low / (n * p), high / (n * p), f"{what}, relative to {p:.3f}", why=f"{why}, n = {n}")


def dropped(honest: Honest, x: Inputs, kept: BoolArray, factor: float | None = None) -> FloatArray:
    """The reference with these weights kept, divided by 1 - p."""
    weights = honest.weights(x.but(dropout=0.0)) * kept * (1 / (1 - x.dropout) if factor is None else factor)
    return np.asarray(weights @ np.repeat(x.v, x.q.shape[1] // x.v.shape[1], axis=1))


def drawn(x: Inputs, shape: tuple[int, ...], share: float | None = None) -> BoolArray:
    """What is kept, from the seed alone; all of it without dropout."""
    keep = 1 - x.dropout if share is None else share
    return numbers.below(1 << 20, x.seed, "kept", shape) < (1 << 20) * keep


def _full(x: Inputs) -> tuple[int, ...]:
    return (*x.q.shape[:3], x.k.shape[2])


def keeps_too_many(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: half of what is to be dropped is dropped."""
    return dropped(honest, x, drawn(x, _full(x), 1 - x.dropout / 2))


def one_mask_for_queries(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: all queries lose the same keys."""
    return dropped(honest, x, np.broadcast_to(drawn(x, (*x.q.shape[:2], 1, x.k.shape[2])), _full(x)))


def one_mask_for_all_heads(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: all heads and batch rows lose the same weights."""
    return dropped(honest, x, np.broadcast_to(drawn(x, (1, 1, *_full(x)[2:])), _full(x)))


def not_scaled(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: what is kept is left as it is."""
    return dropped(honest, x, drawn(x, _full(x)), 1.0)


def other_each_time(honest: Honest, x: Inputs) -> FloatArray:
    """A twin: the seed is not read, and some weights are dropped whatever the rate."""
    _other_each_time.seed += 1
    share = 1 - max(x.dropout, 0.05)
    return dropped(honest, x, drawn(x.but(seed=_other_each_time.seed), _full(x), share))


class _other_each_time:  # noqa: N801 - the twin's own count of calls
    seed = 0


def reseeds_everyone(honest: Honest, x: Inputs) -> Result:
    """A twin: it seeds the global generator."""
    return Result(dropped_right(honest, x), x.dtype, changed=("the random state",))


def dropped_right(honest: Honest, x: Inputs) -> FloatArray:
    """Dropout as it should be."""
    return dropped(honest, x, drawn(x, _full(x)))


@claim(
    "random.keep-rate",
    level="must",
    handle="ST1",
    idea="I28",
    source=SRIVASTAVA,
    needs=("dropout",),
    given=MANY,
    within="statistic",
    about="dropout",
    mutants=("random.keeps_the_dropped", "random.rate_on_a_grid"),
    twin=keeps_too_many,
)
def a_weight_is_kept_as_often_as_asked(subject: Attention, case: Case) -> None:
    """Dropout at rate p keeps each weight with probability 1 - p."""
    x, p = one_hot(subject.profile, case.build()), rate(case)
    seen = visible(subject.profile, x)
    kept = [x.but(dropout=p, seed=case.seed + s).through(subject)[seen] != 0 for s in SEEDS]
    frequency(np.concatenate(kept), 1 - p, f"share of weights kept at p = {p}", "exact binomial test")


@claim(
    "random.independent",
    level="must",
    handle="ST1",
    idea="I28",
    source=SRIVASTAVA,
    needs=("dropout",),
    given=MANY,
    within="statistic",
    about="dropout",
    mutants=("random.mask_repeats", "random.one_mask_for_queries", "random.constant_seed"),
    twin=one_mask_for_queries,
)
def positions_and_calls_are_independent(subject: Attention, case: Case) -> None:
    """Whether a weight is dropped says nothing about other keys, other queries and calls with other seeds.

    Two independent weights share their fate with probability p^2 + (1 - p)^2. The pairs of one test have no weight in common.
    """
    x, p = one_hot(subject.profile, case.build()), rate(case)
    alike, why = p**2 + (1 - p) ** 2, "exact binomial test of independence"
    seen = visible(subject.profile, x)[0, 0]
    kept = [x.but(dropout=p, seed=case.seed + s).through(subject)[0, 0] != 0 for s in SEEDS]
    for lag in LAGS:
        here = np.nonzero(np.arange(len(seen)) & lag == 0)[0]  # each paired with the one `lag` further on
        for name, first, both in (("keys", kept[0], seen), ("queries", kept[0].T, seen.T)):
            same = (first[:, here] == first[:, here + lag])[both[:, here] & both[:, here + lag]]
            frequency(same, alike, f"share of equal fates, {name} {lag} apart, p = {p}", why)
    for other, apart in zip(kept[1:], SEEDS[1:], strict=True):
        frequency((kept[0] == other)[seen], alike, f"share of equal fates, seeds {apart} apart, p = {p}", why)


@claim(
    "random.heads-differ",
    level="should",
    handle="ST1",
    idea="I22",
    source=SRIVASTAVA,
    needs=("dropout", "heads", "batch"),
    given=Cases(
        mask="never",
        scale="never",
        window="never",
        softcap="never",
        grouped="never",
        sizes={"B": 2, "H": 2, "T": 24, "S": 24, "D": 4},
        values={"q": ("zeros",), "k": ("normal",)},
    ),
    within="statistic",
    about="dropout",
    mutants=("random.one_mask_for_heads", "random.one_mask_for_batch"),
    twin=one_mask_for_all_heads,
)
def heads_and_batch_rows_are_independent(subject: Attention, case: Case) -> None:
    """Each head and each batch row loses weights of its own."""
    x, p = one_hot(subject.profile, case.build()), rate(case)
    alike, seen = p**2 + (1 - p) ** 2, visible(subject.profile, x)
    kept = x.but(dropout=p, seed=case.seed).through(subject) != 0
    for name, first, second in (("heads", kept[:, 0], kept[:, 1]), ("batch rows", kept[0], kept[1])):
        same = (first == second)[seen[0]]
        frequency(same, alike, f"share of equal fates in two {name}, p = {p}", "exact binomial test of independence")


@claim(
    "random.kept-is-scaled",
    level="must",
    handle="ST2",
    idea="I28",
    source=TORCH,
    needs=("dropout",),
    given=SOME,
    within="bound",
    about="dropout",
    mutants=("random.not_scaled", "random.before_softmax", "random.on_the_output", "random.drops_causal"),
    twin=not_scaled,
)
def kept_weights_are_divided_by_their_share(subject: Attention, case: Case) -> None:
    """Each weight is dropped to exactly zero or divided by 1 - p, for every channel of the values alike."""
    x, p = one_hot(subject.profile, case.build(), times=2), rate(case)
    keys = x.k.shape[2]
    out, want = x.but(dropout=p).through(subject), expected(subject.profile, x)
    kept = out[..., :keys] != 0
    again = (out[..., keys:] != 0).astype(np.float64)
    same_bits(again, kept.astype(np.float64), "whether a weight is kept, seen through a second channel", live=True)
    error = want.error + ROUNDINGS * unit(case.dtype) * (np.abs(want.out) + want.error)
    within(
        out,
        np.where(np.tile(kept, 2), want.out, 0.0) / (1 - p),
        np.where(np.tile(kept, 2), error, 0.0) / (1 - p),
        f"weight under dropout of {p}, zero or divided by {1 - p}",
        why=f"{want.why}, and {ROUNDINGS} roundings of the factor",
    )


@claim(
    "random.mean-is-plain",
    level="must",
    handle="ST2",
    idea="I28",
    source=SRIVASTAVA,
    needs=("dropout",),
    given=Cases(
        mask="never",
        scale="never",
        window="never",
        softcap="never",
        grouped="never",
        sizes={"B": 1, "H": 1, "T": 64, "S": 64, "D": 4},
        values={"q": ("normal",), "k": ("normal",), "v": ("ones", "normal")},
        gains=(0.5, 1.0),
    ),
    within="statistic",
    about="dropout",
    mutants=("random.not_scaled", "random.multiplied_by_keep", "random.divided_by_rate"),
    twin=not_scaled,
)
def mean_under_dropout_is_the_plain_output(subject: Attention, case: Case) -> None:
    """The mean over many rows and seeds under dropout is the mean of the plain outputs.

    Hoeffding: a sum of independent terms in ranges c strays by more than sqrt(ln(2/alpha)/2 sum c^2) with a probability of at
    most alpha. A weight w of a value v is one term, of range w |v| / (1 - p).
    """
    x, p = case.build(), rate(case)
    want = expected(subject.profile, x)
    outputs = [x.but(dropout=p, seed=case.seed + s).through(subject) for s in SEEDS]
    weights = output(subject.profile, x.but(v=np.broadcast_to(np.eye(x.k.shape[2]), (*x.k.shape[:3], x.k.shape[2]))))
    squares = ((weights / (1 - p)) ** 2 @ x.v**2).sum(2) * len(SEEDS)
    stray = np.sqrt(np.log(2 * x.v.shape[3] / ALPHA) / 2 * squares) / (len(SEEDS) * x.q.shape[2])
    within(
        np.mean(outputs, axis=0).mean(2),
        want.out.mean(2),
        stray + want.error.max(2) / (1 - p),
        f"mean over rows and {len(SEEDS)} seeds under dropout of {p}",
        why=f"Hoeffding at a level of {ALPHA}, and the {want.why}",
    )


@claim(
    "random.seed-decides",
    level="must",
    handle="ST1",
    idea="I28",
    source=TORCH,
    needs=("dropout",),
    given=SOME,
    within="exact",
    about="dropout",
    mutants=("random.seed_unread",),
    twin=other_each_time,
)
def seed_says_what_is_dropped(subject: Attention, case: Case) -> None:
    """The same call with the same seed gives the same bits, whatever was called between; without dropout any seed does."""
    x = case.build().but(dropout=rate(case))
    first = x.through(subject)
    x.but(seed=case.seed + 1).through(subject)
    allowed = noise(subject, x.but(dropout=0.0))
    allowed = None if allowed is None else allowed / (1 - x.dropout)
    same_bits(x.through(subject), first, "output of the same call with the same seed", live=True, noise=allowed)
    plain, other = x.but(dropout=0.0), x.but(dropout=0.0, seed=case.seed + 1)
    same_bits(other.through(subject), plain.through(subject), "output at rate 0 for another seed", live=True, noise=allowed)


@claim(
    "random.leaves-the-global-state",
    level="must",
    handle="IV9",
    idea="I28",
    source=Source("https://numpy.org/neps/nep-0019-rng-policy.html"),
    needs=("dropout", "own-seed"),
    given=SOME,
    within="exact",
    about="dropout",
    mutants=("state.reseeds_everyone",),
    twin=reseeds_everyone,
)
def a_seed_of_its_own_is_all_it_takes(subject: Attention, case: Case) -> None:
    """A function that is given a seed or a generator draws from no other and leaves the global ones as they were."""
    x = case.build().but(dropout=rate(case))
    none_of(x.result(subject, UNDER + "another random state").changed, "global state that a call with a seed altered")


@claim(
    "random.same-in-backward",
    level="must",
    handle="ST3",
    idea="I08",
    source=Source("arXiv:2205.14135", "B.2, dropout"),
    needs=("dropout", "gradients"),
    given=Cases(
        empty="never",
        mask="never",
        grouped="never",
        gains=(1.0, 0.5),
        values={"q": ("normal",), "k": ("normal",)},
        at_least={"T": 2, "S": 3},
    ),
    within="exact, bound",
    about="dropout",
    mutants=("random.other_mask_backward", "random.undropped_backward", "random.backward_scaled_by_rate"),
    gradient_twin=Honest.gradients,
    twin=dropped_right,
)
def backward_drops_what_forward_dropped(subject: Attention, case: Case) -> None:
    """The gradient uses the weights that the output used: zero for those dropped, divided by 1 - p for those kept.

    A cotangent that reads one key's weight gives query t the gradient of that weight: none if it was dropped, else 1/(1 - p)
    times the gradient without dropout.
    """
    x, p = one_hot(subject.profile, case.build()), rate(case)
    key = case.seed % x.k.shape[2]
    cotangent = np.zeros((*x.q.shape[:3], x.v.shape[3]))
    cotangent[..., key] = 1.0
    got = subject.vjp(x.q, x.k, x.v, cotangent, **x.but(dropout=p).options)
    kept = got.out[..., key, None] != 0
    want = expected_gradients(subject.profile, x, cotangent)["q"]
    error = want.error + ROUNDINGS * unit(case.dtype) * (np.abs(want.out) + want.error)
    within(
        got.q,
        np.where(kept, want.out, 0.0) / (1 - p),
        np.where(kept, error, 0.0) / (1 - p),
        f"gradient for queries of the weight of key {key} under dropout of {p}",
        why=f"zero where it was dropped; else {want.why}, and {ROUNDINGS} roundings of the factor",
    )
