"""The claims on gradients: they hold on the reference, and reject their twin and a bug of another kind."""

from __future__ import annotations

import numpy as np
import pytest

from attnspec.properties.case import Call, Case, Inputs, Sizes, Values
from attnspec.properties.claim import claims
from attnspec.properties.subject import FloatArray, Profile, Setting
from attnspec.properties.twins import GradientTwin, Honest, TwinSubject
from attnspec.properties.verdict import Inapplicable
from tests.properties.claim_runs import EVERYTHING, holds, some_cases, violations

MINE = [c for c in claims().values() if c.body.__module__.rpartition(".")[2] in ("gradient", "gradient_laws")]
DTYPES = ("float64", "bfloat16", "float16")
Found = dict[str, FloatArray]


def leaks(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """A thousandth reaches every key."""
    found = honest.gradients(x, cotangent)
    return found | {"k": found["k"] + 2.0**-10, "v": found["v"] + 2.0**-10}


def turns_queries(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """The gradient for queries has the wrong sign."""
    found = honest.gradients(x, cotangent)
    return found | {"q": -found["q"]}


def values_lag(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """The gradient for values is that of the key before."""
    found = honest.gradients(x, cotangent)
    return found | {"v": np.roll(found["v"], 1, axis=2)}


def rows_do_not_cancel(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """Half of the first key is added to every query's gradient."""
    found = honest.gradients(x, cotangent)
    return found | {"q": found["q"] + np.repeat(x.k[:, :, :1], x.q.shape[1] // x.k.shape[1], axis=1)}


def first_of_group(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """Only the first query head of a group counts."""
    times = x.q.shape[1] // x.k.shape[1]
    first = np.where(np.arange(x.q.shape[1])[:, None, None] % times == 0, cotangent, 0.0)
    return honest.gradients(x, cotangent) | {name: honest.gradients(x, first)[name] for name in "kv"}


def rounds_cotangent(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """The cotangent becomes a multiple of one."""
    return honest.gradients(x, np.rint(cotangent))


def adds_a_constant(honest: Honest, x: Inputs, cotangent: FloatArray) -> Found:
    """A leftover of an earlier call stays in the buffer."""
    return {name: g + 1.0 for name, g in honest.gradients(x, cotangent).items()}


BUGS: dict[str, GradientTwin] = {
    "grad.hidden": leaks,
    "grad.empty-row": adds_a_constant,
    "grad.values-by-weights": values_lag,
    "grad.equal-keys": rows_do_not_cancel,
    "grad.key-order": values_lag,
    "grad.grouped-sum": first_of_group,
    "grad.cotangent-scales": rounds_cotangent,
    "grad.cotangents-add": adds_a_constant,
    "grad.reference": turns_queries,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_holds_on_the_reference_and_rejects_its_twin(claim, dtype: str) -> None:  # type: ignore[no-untyped-def]
    assert claim.twin is not None or claim.gradient_twin is not None
    assert holds(claim.id, dtype)
    assert any(violations(claim.id, dtype, claim.twin, claim.gradient_twin))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BUGS)
def test_rejects_another_bug(name: str, dtype: str) -> None:
    assert any(violations(name, dtype, None, BUGS[name]))


def test_an_output_that_differs_while_gradients_are_recorded_is_seen() -> None:
    def rounded_while_recording(honest: Honest, x: Inputs) -> FloatArray:
        return np.rint(8 * honest(x)) / 8 if "gradients" in honest.need else honest(x)

    assert all(violations("grad.output-unchanged", "float32", rounded_while_recording))


@pytest.mark.parametrize(("policy", "origin"), [("zero", "inferred"), ("mean", "inferred"), ("nan", "inferred")])
def test_an_empty_row_that_nobody_reads_must_not_spoil_the_others(policy: str, origin: str) -> None:
    """The reference passes under every convention that was found by probing."""
    claim = claims()["grad.empty-row"]
    profile = Profile(settings={"empty_row": Setting(policy, origin)}, features=EVERYTHING.features)  # type: ignore[arg-type]
    claim.body(TwinSubject(profile, None, None), some_cases(claim, "float32", 1)[0])


def test_an_empty_row_that_is_declared_to_be_nan_is_not_judged() -> None:
    claim = claims()["grad.empty-row"]
    profile = Profile(settings={"empty_row": Setting("nan", "declared")}, features=EVERYTHING.features)
    with pytest.raises(Inapplicable, match="declared to be NaN"):
        claim.body(TwinSubject(profile, None, None), some_cases(claim, "float32", 1)[0])


def test_a_weight_too_small_for_float16_may_get_no_gradient() -> None:
    """exp(-17.4) is below half of the least number of float16: it was called a broken influence."""
    normal = Values("normal")
    case = Case(
        claim="grad.causal", dtype="float16", sizes=Sizes(T=3, S=3, D=2), call=Call(causal=True, scale=2.0),
        values={"q": normal, "k": normal, "v": normal}, seed=125,
    )  # fmt: skip
    assert case.signed().id == "c0876655"
    claims()["grad.causal"].body(TwinSubject(EVERYTHING, None, None), case)
