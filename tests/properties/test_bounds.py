"""The bounds hold for correct implementations of many kinds, and reject wrong ones (docs/bounds.md).

`python benchmarks/bounds.py --cases 2000` looks longer, and prints the table of docs/bounds.md.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from attnspec.properties.bounds import Analysis, of_output
from attnspec.properties.bounds_classes import ORACLE
from attnspec.properties.bounds_oracle import attention
from tests.properties.bound_cases import INPUTS, MASKS, Case, drawn, exact, held, make
from tests.properties.bound_ratios import CLASSES, allowed, ratio, ratios
from tests.properties.bound_subjects import SUBJECTS, computed

torch.set_num_threads(1)
FEW = 25


@pytest.mark.filterwarnings("ignore:.*Flash.*")
@pytest.mark.parametrize(("dtype", "kind"), CLASSES)
def test_correct_implementations_stay_within_the_bounds(dtype: str, kind: str) -> None:
    compared = 0
    for number in range(FEW):
        found = ratios(drawn(np.random.default_rng((1, number)), dtype), kind)
        compared += len(found)
        assert all(r <= 1 for r in found.values()), (number, {key: r for key, r in found.items() if r > 1})
    assert compared > 4 * FEW


@pytest.mark.parametrize("kind", ["fused", "stored", "stored-blocks"])
def test_gradients_near_the_smallest_subnormal_of_float16_stay_within_the_bounds(kind: str) -> None:
    for number in range(FEW):
        found = ratios(drawn(np.random.default_rng((2, number)), "float16", "tiny gradient"), kind)
        assert all(r <= 1 for r in found.values()), (number, {key: r for key, r in found.items() if r > 1})


# Cases on which a term was missing once: what underflows counts z times where autograd crosses the division by z in float16,
# and a merge of parts by their log-sum-exp adds and subtracts outputs of parts, which are as large as the largest value.
@pytest.mark.parametrize(
    ("dtype", "kind", "name", "seed", "inputs"),
    [
        ("float16", "stored", "rows", (8, 239), "tiny gradient"),
        ("float16", "stored", "rows", (7, 332), None),
        ("float64", "wide", "merged", (7, 84), None),
        ("float32", "wide", "merged", (7, 133), None),
    ],
)
def test_cases_that_once_exceeded_the_bound(dtype: str, kind: str, name: str, seed: tuple, inputs: str | None) -> None:
    case = drawn(np.random.default_rng(seed), dtype, inputs)
    bounds, want, got = allowed(case, kind), exact(case), computed(case, SUBJECTS[kind][name])
    assert "bias" in bounds
    assert all(ratio(got[y], want[y], bounds[y]) <= 1 for y in bounds.keys() & got.keys())


def rising(seed: int, step: float) -> Case:
    """Scores that rise from block to block, where gradients near 2^-24 are rescaled once a block, and large values."""
    rng, keys = np.random.default_rng(seed), np.arange(40)
    v, cotangent = 100 * rng.normal(size=(1, 1, 40, 2)), 5e-5 * rng.normal(size=(1, 1, 4, 2))
    bias = np.broadcast_to(keys // 5 * step - 0.25 * (keys % 5 > 0), (1, 1, 4, 40))
    zeros = np.zeros((1, 1, 40, 2))
    everything = np.ones((1, 1, 4, 40), dtype=bool)
    held_v, held_cotangent = held(v, "float16"), held(cotangent, "float16")
    return Case(zeros[:, :, :4], zeros, held_v, held_cotangent, everything, bias, 1.0, None, "float16")


@pytest.mark.parametrize("step", [0.5, 1.0, 3.0])
def test_running_sums_in_float16_may_lose_gradients_at_each_block(step: float) -> None:
    worst = max(r for seed in range(5) for r in ratios(rising(seed, step), "stored-blocks").values())
    assert 0.05 < worst <= 1  # without the term for blocks, 6 to 9


def test_float64_oracle_stays_within_its_share() -> None:
    for number in range(FEW):
        case = drawn(np.random.default_rng((3, number)), "float64")
        got, want = exact(case), exact(case, np.longdouble)
        assert all(ratio(got[y], want[y], error / 2) <= 1 for y, error in allowed(case, "wide").items())


def ordinary(seed: int, dtype: str) -> Case:
    """Ordinary numbers and few keys, where the bounds have power (docs/bounds.md)."""
    return make(seed, "normal", "causal", 1.0, (9, 9, 8, 8), (2, 1), None, dtype)


def rounded_inside(kind: torch.dtype) -> Callable[[Case], dict[str, np.ndarray]]:
    """Everything computed in a lower precision, from inputs that it may round."""

    def run(case: Case) -> dict[str, np.ndarray]:
        name = str(kind).removeprefix("torch.")
        return computed(replace(case, dtype=name), SUBJECTS["wide"]["plain"])

    return run


def seeing(case: Case, visible: np.ndarray) -> dict[str, np.ndarray]:
    return exact(replace(case, visible=np.broadcast_to(visible, case.visible.shape)))


def without_mean(case: Case) -> dict[str, np.ndarray]:
    """The gradient of the scores without its -D term."""
    p, v = exact(case)["weights"], case.v.repeat(case.group, axis=1)
    return {"q": case.scale * (p * (case.cotangent @ v.swapaxes(-1, -2))) @ case.k.repeat(case.group, axis=1)}


def base_two(case: Case) -> dict[str, np.ndarray]:
    return {"lse": exact(case)["lse"] / math.log(2)}


def rotated_weights(case: Case) -> dict[str, np.ndarray]:
    return {"weights": np.roll(exact(case)["weights"], 1, axis=-1)}


KEYS, QUERIES = np.arange(9)[None, :], np.arange(9)[:, None]
Wrong = Callable[[Case], dict[str, np.ndarray]]
COARSE: dict[str, Wrong] = {  # rejected in every class
    "zeros": lambda case: {name: 0 * y for name, y in exact(case).items()},
    "mean of values": lambda case: {"o": case.v.mean(-2, keepdims=True) + np.zeros_like(case.cotangent)},
    "nan": lambda case: {name: np.nan * y for name, y in exact(case).items()},
    "scale 1/d": lambda case: exact(replace(case, scale=case.scale / math.sqrt(case.q.shape[-1]))),
    "causal one key too many": lambda case: seeing(case, KEYS <= QUERIES + 1),
    "causal one key too few": lambda case: seeing(case, np.maximum(QUERIES - 1, 0) >= KEYS),
    "last key dropped": lambda case: seeing(case, (KEYS <= QUERIES) & (KEYS < 8)),
    "values swapped": lambda case: {"o": exact(replace(case, v=case.v[:, :, [1, 0, *range(2, 9)]]))["o"]},
    "no -D term": without_mean,
    "lse to the base 2": base_two,
    "weights of the next key": rotated_weights,
}
FINE: dict[str, Wrong] = {  # needs the wide class
    "1e-3 in the denominator": lambda case: {
        "o": exact(case)["o"] / (1 + 1e-3 * exact(case)["weights"].max(-1, keepdims=True))
    },
    "bfloat16 inside": rounded_inside(torch.bfloat16),
    "float16 inside": rounded_inside(torch.float16),
    "float32 inside": rounded_inside(torch.float32),
}


@pytest.mark.parametrize(("name", "of"), sorted(product(COARSE, CLASSES)))
def test_wrong_computations_are_rejected(name: str, of: tuple[str, str]) -> None:
    rejected(COARSE[name], *of)


@pytest.mark.parametrize(("name", "of"), sorted(set(product(FINE, CLASSES[:2])) - {("float32 inside", ("float32", "wide"))}))
def test_lost_precision_is_rejected(name: str, of: tuple[str, str]) -> None:
    rejected(FINE[name], *of)


def rejected(wrong: Wrong, dtype: str, kind: str) -> None:
    """In every quantity in float64 and float32; in 16 bits in one, since gradients of scores are bounded loosely there."""
    for seed in range(5):
        case = ordinary(seed, dtype)
        want, bounds, got = exact(case), allowed(case, kind), wrong(case)
        names = bounds.keys() & got.keys()
        found = {y: ratio(got[y], want[y], bounds[y]) for y in names}
        assert (min if kind == "wide" else max)(found.values()) > 1, found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_stored_scores_are_seen_by_the_class_that_stores_none(dtype: str) -> None:
    assert max(max(ratios(ordinary(seed, dtype), "stored", within="fused").values()) for seed in range(10)) > 1


def test_every_kind_of_case_is_decided_in_some_dtype() -> None:
    decided = {
        (inputs, dtype): bool(allowed(make(1, inputs, mask, 1.0, (5, 6, 4, 4), (2, 1), None, dtype), kind))
        for inputs, mask, (dtype, kind) in product(INPUTS, MASKS[:2], CLASSES)
    }
    assert {inputs for (inputs, _), yes in decided.items() if yes} == set(INPUTS)


def test_the_share_of_the_oracle_is_what_float64_itself_is_granted() -> None:
    case = ordinary(0, "float64")
    y = Analysis(attention(case.q, case.k, case.v, **case.options()), ORACLE)
    assert (of_output(y).error > 0).all()
