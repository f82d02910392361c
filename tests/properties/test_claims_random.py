"""The claims on dropout: they hold for dropout done right, and reject their twin and a bug of another kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from attnspec.properties.case import Inputs
from attnspec.properties.claim import Claim, claims
from attnspec.properties.claims.random import ALPHA, RATES, counts, drawn, dropped, dropped_right
from attnspec.properties.subject import FloatArray, Result
from attnspec.properties.twins import GradientTwin, Honest, TwinSubject
from attnspec.properties.verdict import Violation
from tests.properties.claim_runs import EVERYTHING, some_cases

MINE = [c for c in claims().values() if c.family == "random"]
Bug = Callable[[Honest, Inputs], FloatArray | Result]


def right_gradients(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    """The gradient for queries under dropout, from the formula; keys and values are not looked at."""
    weights = honest.weights(x.but(dropout=0.0))
    repeated = [np.repeat(a, x.q.shape[1] // a.shape[1], axis=1) for a in (x.k, x.v)]
    kept = drawn(x, weights.shape) / (1 - x.dropout)
    back = kept * (cotangent @ repeated[1].swapaxes(-1, -2))
    score = weights * (back - (weights * back).sum(-1, keepdims=True))
    if x.softcap is not None:
        s = repeated[0] @ x.q.swapaxes(-1, -2)
        s = s.swapaxes(-1, -2) * (x.q.shape[3] ** -0.5 if x.scale is None else x.scale)
        score = score * (1 - np.tanh(s / x.softcap) ** 2)
    scale = x.q.shape[3] ** -0.5 if x.scale is None else x.scale
    return {"q": scale * score @ repeated[0], "k": np.zeros_like(x.k), "v": np.zeros_like(x.v)}


def drops_as_many_as_kept(honest: Honest, x: Inputs) -> FloatArray:
    """The rate to keep is taken for the rate to drop."""
    return dropped(honest, x, drawn(x, _full(x), x.dropout))


def repeats_after_16_keys(honest: Honest, x: Inputs) -> FloatArray:
    block = drawn(x, (*x.q.shape[:3], 16))
    return dropped(honest, x, np.tile(block, -(-x.k.shape[2] // 16))[..., : x.k.shape[2]])


def one_mask_for_the_batch(honest: Honest, x: Inputs) -> FloatArray:
    return dropped(honest, x, np.broadcast_to(drawn(x, (1, *_full(x)[1:])), _full(x)))


def drops_outputs(honest: Honest, x: Inputs) -> FloatArray:
    """Dropout of the output in place of the weights."""
    out = honest(x.but(dropout=0.0))
    return out * drawn(x, out.shape) / (1 - x.dropout)


def divided_by_rate(honest: Honest, x: Inputs) -> FloatArray:
    return dropped(honest, x, drawn(x, _full(x)), 1 / x.dropout if x.dropout else 1.0)


def seed_counts_calls(honest: Honest, x: Inputs) -> FloatArray:
    """The seed is only where the first call starts."""
    seed_counts_calls.calls = getattr(seed_counts_calls, "calls", 0) + 1  # type: ignore[attr-defined]
    return dropped_right(honest, x.but(seed=x.seed + seed_counts_calls.calls))  # type: ignore[attr-defined]


def other_seed_backward(honest: Honest, x: Inputs, cotangent: FloatArray) -> dict[str, FloatArray]:
    return right_gradients(honest, x.but(seed=x.seed + 1), cotangent)


def draws_from_numpy_too(honest: Honest, x: Inputs) -> Result:
    return Result(dropped_right(honest, x), x.dtype, changed=("NumPy's random state",) if x.dropout else ())


def _full(x: Inputs) -> tuple[int, ...]:
    return (*x.q.shape[:3], x.k.shape[2])


BUGS: dict[str, tuple[Bug, GradientTwin]] = {
    "random.leaves-the-global-state": (draws_from_numpy_too, right_gradients),
    "random.keep-rate": (drops_as_many_as_kept, right_gradients),
    "random.independent": (repeats_after_16_keys, right_gradients),
    "random.heads-differ": (one_mask_for_the_batch, right_gradients),
    "random.kept-is-scaled": (drops_outputs, right_gradients),
    "random.mean-is-plain": (divided_by_rate, right_gradients),
    "random.seed-decides": (seed_counts_calls, right_gradients),
    "random.same-in-backward": (dropped_right, other_seed_backward),
}


def rejected(claim: Claim, dtype: str, bug: Bug | None, gradient_bug: GradientTwin | None) -> list[bool]:
    """For each of some cases and rates, whether the claim rejects the reference with this dropout."""
    found = []
    for case in some_cases(claim, dtype, 4):
        for seed in range(1, 1 + len(RATES)):
            try:
                claim.body(TwinSubject(EVERYTHING, bug, gradient_bug), case.but(seed=seed))
            except Violation:
                found.append(True)
            else:
                found.append(False)
    return found


def test_a_bug_is_planted_for_each_claim() -> None:
    assert sorted(BUGS) == sorted(c.id for c in MINE)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_holds_for_dropout_done_right(claim: Claim, dtype: str) -> None:
    assert not any(rejected(claim, dtype, dropped_right, right_gradients))


@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_rejects_its_twin_and_a_planted_bug(claim: Claim) -> None:
    assert any(rejected(claim, "float64", claim.twin, claim.gradient_twin))
    assert any(rejected(claim, "float64", *BUGS[claim.id]))


@pytest.mark.parametrize("n", [1, 10, 100, 4096])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_the_binomial_interval_is_exact(n: int, p: float) -> None:
    """Against scipy, which the claims do without: each tail is below half the level, and no smaller interval does."""
    scipy = pytest.importorskip("scipy.stats")
    for alpha in (ALPHA, 0.01):
        low, high = counts(n, p, alpha)
        slack = 1 + 1e-6  # the masses here are sums of up to n logarithms
        assert scipy.binom.cdf(low - 1, n, p) <= alpha / 2 * slack
        assert scipy.binom.sf(high, n, p) <= alpha / 2 * slack
        assert low == 0 or scipy.binom.cdf(low, n, p) > alpha / 2 / slack
        assert high == n or scipy.binom.sf(high - 1, n, p) > alpha / 2 / slack


def test_a_few_keys_more_or_less_are_no_violation_and_half_as_many_are() -> None:
    low, high = counts(4096, 0.5)
    assert 2048 - 4 * 32 * 2 < low < 2048 - 6 * 32  # 32 is one standard deviation
    assert 2048 + 6 * 32 < high < 2048 + 4 * 32 * 2
    assert low + high == 4096
