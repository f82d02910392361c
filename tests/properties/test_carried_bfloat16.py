"""The enclosure of bfloat16: never too small, whatever all roundings are, and no wider than it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.properties import carried, carried_enclosure, carried_kinks, carried_rules
from attnspec.properties.carried import INSIDE, UNITS, Carried, carrying
from attnspec.properties.carried_tape import SLOPES, Operation, elementwise
from attnspec.reference import feed_forward, layer_norm, softmax
from attnspec.reference.attention import attention
from attnspec.reference.cross_entropy import cross_entropy
from attnspec.reference.transformer import transformer
from tests.properties.test_carried import COMPOSED, DOMAINS, NOTHING
from tests.reference.drawn_models import stack_parameters

BFLOAT16 = UNITS["bfloat16"]
WIDE = 2.0**-5  # errors whose squares count
seeds = st.integers(0, 2**32 - 1)


def boxed(x: np.ndarray, size: float) -> Carried:
    """Numbers that may be off by `size`, each on its own, and are computed with without any rounding."""
    return Carried(x, size, NOTHING, Operation(np.full(x.shape, size), []))


def plain(function: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(function(x))


def covered(function: Any, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(3, 4))
    with carrying("bfloat16"):
        radius = function(boxed(x, size)).enclosure()
    want = plain(function, x)
    assert radius.shape == want.shape
    for _ in range(8):
        ends = x + rng.choice([-1.0, 0.5, 1.0], size=x.shape) * size
        off = np.abs(plain(function, ends) - want)
        assert (off <= radius * (1 + 2.0**-30) + 2.0**-45).all()


@pytest.mark.parametrize("name", COMPOSED)
@hypothesis.settings(deadline=None, max_examples=15, derandomize=True)
@hypothesis.given(seed=seeds, size=st.sampled_from([2.0**-20, WIDE, 0.2]))
def test_no_choice_of_errors_leaves_the_enclosure(name: str, seed: int, size: float) -> None:
    covered(COMPOSED[name], seed, size)


@pytest.mark.parametrize("name", sorted(set(COMPOSED) - {"sort"}))
def test_of_small_errors_it_is_the_first_order_bound(name: str) -> None:
    """Sorting costs more: its enclosure does not ask which numbers may change places."""
    x = np.random.default_rng(3).uniform(-1, 1, size=(3, 4))
    with carrying():
        result = COMPOSED[name](boxed(x, 2.0**-20))
    first = np.reshape([result.first_order(i) for i in np.ndindex(result.shape)], result.shape)
    radius = result.enclosure()
    assert (first <= radius * (1 + 2.0**-30) + 2.0**-60).all()
    assert (radius <= first * (1 + 2.0**-9) + 2.0**-28).all()


@pytest.mark.parametrize("ufunc", DOMAINS, ids=lambda u: u.__name__)
@hypothesis.settings(deadline=None, max_examples=30, derandomize=True)
@hypothesis.given(seed=seeds, size=st.sampled_from([2.0**-12, WIDE, 0.2]))
def test_a_remainder_covers_what_the_derivative_leaves(ufunc: Any, seed: int, size: float) -> None:
    remains(ufunc, seed, size)


def remains(ufunc: Any, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = [rng.uniform(*domain, size=64) for domain in DOMAINS[ufunc]]
    errors = [size * (np.abs(one) + 0.1) * rng.uniform(0.1, 1, size=64) for one in x]
    if ufunc is np.power:  # exponents are numbers of the formula
        errors[1] = np.zeros(64)
    value = ufunc(*x)
    slopes = [np.broadcast_to(np.asarray(slope, dtype=np.float64), (64,)) for slope in SLOPES[ufunc](*x, value)]
    maps = [elementwise(slope, (64,)) for slope in slopes]
    again = carried_kinks.widened(ufunc, list(zip(x, errors, strict=True)), maps, errors, NOTHING)
    rest = again - sum(np.abs(slope) * e for slope, e in zip(slopes, errors, strict=True))
    for _ in range(8):
        a = [rng.choice([-1.0, -0.3, 1.0], 64) * e for e in errors]
        moved = ufunc(*(one + by for one, by in zip(x, a, strict=True)))
        linear = sum(slope * by for slope, by in zip(slopes, a, strict=True))
        assert (np.abs(moved - value - linear) <= rest * (1 + 2.0**-20) + 2.0**-44 * (1 + np.abs(value))).all()


@pytest.mark.parametrize("ufunc", carried_kinks.REMAINDERS, ids=lambda u: u.__name__)
def test_a_remainder_left_out_is_noticed(monkeypatch: Any, ufunc: Any) -> None:
    monkeypatch.setitem(carried_kinks.REMAINDERS, ufunc, lambda *_: np.zeros(64))
    with pytest.raises(AssertionError):
        each_seed(remains, ufunc)


def each_seed(test: Callable[..., None], function: Any) -> None:
    for seed in range(20):
        test(function, seed, 0.2)


def squares(x: Any) -> Any:
    return (x - x[0]) * (x + x[0]) - x * x


def differences(x: Any) -> Any:
    return x[0] - x[1]


def without_second_order(one: Operation, before: list[Any], inside: Any, K: int) -> Any:
    if one.again is not None:
        one = Operation(one.local, one.operands, None, one.entered)
    return ENCLOSED(one, before, inside, K)


def correlated(one: Operation, before: list[Any], inside: Any, K: int) -> Any:
    """Roundings of one operation share a row, as if all had the same sign."""
    found = ENCLOSED(one, before, inside, K)
    return found._replace(G=np.concatenate([found.G[:K], found.G[K:].sum(axis=0, keepdims=True)]))


ENCLOSED = carried_enclosure._enclosed


def weights(x: Any) -> Any:
    return softmax.softmax(x)  # found when it is called: that of `carrying`


def forgotten(one: Operation, before: list[Any], inside: Any, K: int) -> Any:
    """What happened inside of a function is lost."""
    return ENCLOSED(one, before, 0.0 * inside, K)


@pytest.mark.parametrize(
    ("wrong", "function"), [(without_second_order, squares), (correlated, differences), (forgotten, weights)]
)
def test_defects_of_the_enclosure_are_noticed(monkeypatch: Any, wrong: Callable[..., Any], function: Any) -> None:
    monkeypatch.setattr(carried_enclosure, "_enclosed", wrong)
    with pytest.raises(AssertionError):
        each_seed(covered, function)


IDS = np.array([[3, 1, 4, 2]])


def language_model(seed: int, norm: str, order: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A model of two layers, whose weights are tame: numbers of eight bits."""
    rng = np.random.default_rng(seed)
    shape = {"biased": True, "gated": False, "norm": norm, "order": order}
    made = stack_parameters(rng, 6, {"H": 2, "G": 1, "D": 4, "F": 5, "L": 2}, shape, cross=False)
    made = {f"decoder.{name}": one * (0.4 if one.ndim == 2 else 1.0) for name, one in made.items()}
    made |= {"target.embedding.weight": rng.normal(size=(7, 6)) * 0.4}
    short = {name: np.ldexp(np.round(256 * np.frexp(one)[0]), np.frexp(one)[1] - 8) for name, one in made.items()}
    return short, {"heads": 2, "kv_heads": 1, "norm": norm, "order": order, "eps": 1.0, "activation": "gelu"}


def nudging(patch: pytest.MonkeyPatch, signs: Callable[[Operation, int], Any]) -> None:
    """From now on every operation really makes the largest rounding error that it may make, of the signs given."""
    init, nudged = Carried.__init__, set()

    def with_error(self: Carried, value: Any, error: Any, unit: float, operation: Any = None) -> None:
        if operation is not None and operation.time not in nudged:
            nudged.add(operation.time)
            value = value + np.where(np.isfinite(value), signs(operation, len(nudged) - 1) * operation.local, 0.0)
        init(self, value, error, unit, operation)

    patch.setattr(Carried, "__init__", with_error)


def worst_corner(operations: list[Operation], result: Carried, index: tuple[int, ...]) -> list[Any]:
    """The sign of dy/dz for every operation, y one element of the result: to first order nothing moves it further."""
    seed = np.zeros(result.shape)
    seed[index] = 1.0
    slopes: dict[int, Any] = {result.operation.time: seed}  # type: ignore[union-attr]
    for one in sorted(operations, key=lambda one: -one.time):
        for operand, by in one.operands if one.time in slopes else ():
            slopes[operand.time] = slopes.get(operand.time, 0.0) + by.back(slopes[one.time])
    return [np.sign(slopes.get(one.time, 0.0)) for one in operations]


@pytest.mark.parametrize(("norm", "order"), [("layer", "post"), ("rms", "pre")])
def test_roundings_of_a_whole_model_stay_inside(norm: str, order: str) -> None:
    parameters, options = language_model(0, norm, order)

    def model(signs: Callable[[Operation, int], Any]) -> Carried:
        with pytest.MonkeyPatch.context() as patch, carrying("bfloat16") as numbers:
            nudging(patch, signs)
            result: Carried = transformer(None, IDS, numbers(parameters), **options)
        return result

    operations: list[Operation] = []
    want = model(lambda one, _: operations.append(one) or 0.0)
    radius, rng = want.enclosure(), np.random.default_rng(0)
    for signs in (lambda *_: 1.0, lambda *_: -1.0, *[lambda one, _: rng.choice([-1.0, 1.0], size=one.local.shape)] * 4):
        assert (np.abs(model(signs).value - want.value) <= radius).all()
    for index in ((0, 3, 1), (0, 1, 5)):
        corner = worst_corner(operations, want, index)
        moved = max(abs(model(lambda _, i: s * corner[i]).value[index] - want.value[index]) for s in (-1.0, 1.0))  # noqa: B023
        assert 0.7 * radius[index] < moved <= radius[index]
        assert moved > want.first_order(index)  # which neglects what counts here
    assert np.median(radius) < 0.2 * np.median(np.ptp(want.value, axis=-1))
    assert not np.max(want.error) < 4 * np.max(radius)  # the interval bound is far from serving


def test_a_sum_is_rounded_once_and_its_partial_sums_are_not_stored() -> None:
    ones = Carried(np.ones((1, 200)), 0.0, BFLOAT16)
    for result in (np.sum(ones, axis=1), (ones @ np.ones((200, 1)))[:, 0]):
        assert 1 <= result.error[0] / (200 * BFLOAT16) <= 1.01
    assert 1 <= np.cumsum(ones, axis=1).error[0, -1] / (200 * BFLOAT16) <= 1.01


def test_functions_inside_are_rounded_once() -> None:
    x = np.array([[0.5, -1.0, 2.0, 0.25]])
    with carrying("bfloat16") as numbers:
        p = softmax.softmax(numbers(x))
        out = feed_forward.activate(numbers(x), "gelu")
        loss = cross_entropy(numbers(x), np.array([2]))
    for result in (p, out):
        assert (np.abs(result.value) * BFLOAT16 * 1.01 >= result.enclosure()).all()
        assert (result.enclosure() >= np.abs(result.value) * BFLOAT16).all()
    assert loss.enclosure() <= 3 * BFLOAT16 * 2.5


def test_only_longer_numbers_are_rounded() -> None:
    with carrying("bfloat16") as numbers:
        assert not numbers(np.array([1.0, 0.5, 129.0, -3.0])).error.any()
        longer = numbers(np.array([0.1, 257.0, 1.0]))
        assert (longer.error[:2] >= np.array([0.1, 257.0]) * BFLOAT16).all()
        assert not longer.error[2]
        assert (longer.enclosure() == longer.error).all()
    with carrying("float32") as numbers:
        assert not numbers(np.array([0.1])).error.any()


def test_constants_are_short_in_eight_bits() -> None:
    assert carried_rules.constant(257.0, BFLOAT16)[1] > 0
    assert carried_rules.constant(0.705078125, BFLOAT16)[1] > carried_rules.constant(0.705078125, UNITS["float32"])[1] == 0
    assert carried_rules.constant(255.0, BFLOAT16)[1] == 0


def test_the_scale_may_be_folded_into_the_queries() -> None:
    """Then each product has a rounding of its own, also where the sum is small."""
    q, k = np.array([[[[1.0, -1.0]]]]), np.array([[[[1.0, 1.0]]]])
    with carrying("bfloat16") as numbers:
        a, b = (one * numbers(np.ones(1)) for one in numbers((q, k)))
        assert np.einsum("bhtd,bhsd->bhts", a, b).error[0, 0, 0, 0] >= 2 * BFLOAT16


def test_reference_gets_its_functions_back_also_after_an_error() -> None:
    before = [layer_norm._normalised, feed_forward.activate]

    def stop() -> None:
        assert layer_norm._normalised is not before[0]
        assert feed_forward.activate is not before[1]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), carrying("bfloat16"):
        stop()
    assert [layer_norm._normalised, feed_forward.activate] == before
    with carrying("float32"):
        assert [layer_norm._normalised, feed_forward.activate] == before


def test_every_function_inside_exists() -> None:
    for name in INSIDE:
        module, _, function = name.rpartition(".")
        __import__(carried.REFERENCE + module)
        assert callable(getattr(carried.sys.modules[carried.REFERENCE + module], function)), name


def test_the_unit_outside_comes_back_after_an_error_inside() -> None:
    with carrying("bfloat16") as numbers:
        with pytest.raises(ValueError, match="eps"):
            layer_norm.layer_norm(numbers(np.ones((1, 2))), numbers({"weight": np.ones(2)}), -1.0)
        assert layer_norm.np.unit == BFLOAT16


def test_what_was_not_computed_or_is_hidden_owes_nothing() -> None:
    assert Carried(np.ones(2), 0.0, BFLOAT16).enclosure().tolist() == [0, 0]
    q = np.full((1, 1, 2, 2), 0.75)
    with carrying("bfloat16") as numbers:
        out = attention(*numbers((q, q, q)), mask=np.array([[False, False], [True, True]]))
    assert (out.enclosure()[0, 0, 0] < 1e-37).all()  # an underflow may lose as much
    assert (out.enclosure()[0, 0, 1] < 4 * BFLOAT16).all()


def test_a_denominator_that_may_be_zero_is_unknown() -> None:
    assert np.isinf((1 / boxed(np.array([0.1]), 0.2)).enclosure()).all()
