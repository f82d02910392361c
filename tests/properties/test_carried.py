"""The carried error is never too small, and small enough to be worth carrying."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.properties import carried, carried_rules, compare
from attnspec.properties.carried import UNITS, Carried, carrying
from attnspec.properties.carried_functions import BY_VALUE, MOVES
from attnspec.properties.carried_tape import Operation
from attnspec.reference import attention, softmax

seeds = st.integers(0, 2**32 - 1)
U = UNITS["float32"]  # rounding errors of this size are seen exactly in longer arithmetic
# What each rule is tried on: values and where they may lie.
DOMAINS: dict[Any, tuple[tuple[float, float], ...]] = {
    np.add: ((-4, 4), (-4, 4)), np.subtract: ((-4, 4), (-4, 4)), np.multiply: ((-4, 4), (-4, 4)),
    np.divide: ((-4, 4), (0.5, 4)), np.maximum: ((-4, 4), (-4, 4)), np.minimum: ((-4, 4), (-4, 4)),
    np.negative: ((-4, 4),), np.absolute: ((-4, 4),), np.square: ((-4, 4),), np.exp: ((-20, 4),), np.expm1: ((-4, 4),),
    np.log: ((0.25, 40),), np.log1p: ((-0.75, 40),), np.sqrt: ((0.01, 40),), np.tanh: ((-8, 8),), np.sin: ((-8, 8),),
    np.cos: ((-8, 8),), np.power: ((0.1, 4), (-3, 3)),
}  # fmt: skip


def test_every_rule_is_tried() -> None:
    assert set(DOMAINS) == set(carried_rules.UFUNCS)


def operands(ufunc: Any, seed: int, relative: float) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    drawn = [rng.uniform(*domain, size=64) for domain in DOMAINS[ufunc]]
    return [(x, relative * np.abs(x) * rng.uniform(0.1, 1, size=64)) for x in drawn]


@pytest.mark.parametrize("ufunc", DOMAINS, ids=lambda u: u.__name__)
@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(seed=seeds, relative=st.sampled_from([0.0, 1e-7, 1e-4, 1e-2]))
def test_moving_the_operands_within_their_errors_moves_the_result_within_its_error(
    ufunc: Any, seed: int, relative: float
) -> None:
    """At the ends of the operands' errors, the exact result rounded either way stays within the carried error."""
    drawn = operands(ufunc, seed, relative)
    result = ufunc(*(Carried(x, e, U) for x, e in drawn))
    rng = np.random.default_rng(seed)
    for _ in range(8):
        moved = [x.astype(np.longdouble) + rng.choice([-1, 1], 64) * e for x, e in drawn]
        exact = ufunc(*moved)
        rounding = 0.0 if ufunc in (np.maximum, np.minimum, np.negative, np.absolute) else U
        off = np.abs(exact * (1 + rng.choice([-1, 1], 64) * rounding) - result.value)
        own = 8 * UNITS["float64"] * np.abs(result.value)  # value and error are themselves computed in float64
        assert (off <= result.error * (1 + 2**-40) + own).all(), ufunc.__name__


@pytest.mark.parametrize("ufunc", DOMAINS, ids=lambda u: u.__name__)
def test_a_rule_is_not_loose(ufunc: Any) -> None:
    """Of exact operands the error is a few units of the result, or of one where the result is small."""
    drawn = operands(ufunc, 0, 0.0)
    result = ufunc(*(Carried(x, 0.0, U) for x, _ in drawn))
    assert (result.error <= 100 * U * np.maximum(np.abs(result.value), 1.0)).all()


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(seed=seeds, n=st.integers(1, 60), axes=st.sampled_from([0, 1, None]))
def test_sums_in_any_order(seed: int, n: int, axes: int | None) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-3, 3, size=(n, 3))).astype(np.float32)
    want = np.sum(Carried(x, 0.0, U), axis=axes)
    order = rng.permutation(x.shape[axes]) if axes is not None else rng.permutation(x.size)
    shuffled = np.take(x, order, axis=axes) if axes is not None else x.ravel()[order]
    got = np.cumsum(shuffled, axis=axes, dtype=np.float32)  # one after another, each partial sum rounded
    got = np.take(got, -1, axis=axes if axes is not None else 0)
    assert (np.abs(got - want.value) <= want.error).all()
    partial = np.cumsum(Carried(x, 0.0, U), axis=0)
    assert (np.abs(np.cumsum(x, axis=0, dtype=np.float32) - partial.value) <= partial.error).all()


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(seed=seeds, n=st.integers(1, 40))
def test_contractions_in_any_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, n), (n, 4), (4,)))
    want = np.einsum("...m,mf,f->...f", *(Carried(x, 0.0, U) for x in (a, b, c)))
    got = np.zeros((2, 3, 4), np.float32)
    for m in rng.permutation(n):
        got = got + a[..., m, None] * b[m] * c  # each product and each sum rounded
    assert (np.abs(got - want.value) <= want.error).all()
    product = Carried(a, 0.0, U) @ b
    assert (np.abs(np.matmul(a, b) - product.value) <= product.error).all()


def test_an_error_of_one_factor_is_not_lost_beside_the_other() -> None:
    e = np.full((1, 3), 1e-30)
    result = np.einsum("ij,jk->ik", Carried(np.ones((1, 3)), e, 1e-40), Carried(np.full((3, 1), 7.0), 0.0, 1e-40))
    assert result.error == pytest.approx(21e-30)


@pytest.mark.parametrize(("subscripts", "shapes", "n"), [
    ("ij,jk->ik", [(2, 3), (3, 4)], 3), ("...m,fm->...f", [(7, 2, 3), (4, 3)], 3), ("i,j->ij", [(2,), (3,)], 1),
    ("bhts,bhse->bhte", [(2, 3, 4, 5), (2, 3, 5, 6)], 5), ("ij->", [(2, 3)], 6), ("m...,m->...", [(3, 9), (3,)], 3),
])  # fmt: skip
def test_summed_terms(subscripts: str, shapes: list[tuple[int, ...]], n: int) -> None:
    assert carried_rules.summed_terms(subscripts, shapes) == n


@pytest.mark.parametrize("x", [0.5, 3.0, -1024, True, 7, np.inf, 0.0, 2047.0])
def test_short_constants_are_exact(x: Any) -> None:
    assert carried_rules.constant(x, U)[1] == 0


@pytest.mark.parametrize("x", [0.1, 1e-5, np.pi, 1 / np.sqrt(5), 4097.0])
def test_other_constants_were_rounded(x: float) -> None:
    assert carried_rules.constant(x, U)[1] >= abs(Fraction(x) - Fraction(float(np.float32(x))))
    assert carried_rules.constant(x, U)[1] > 0


CALLS: dict[str, tuple[Any, ...]] = {
    "reshape": ((3, 2),), "swapaxes": (0, 1), "moveaxis": (0, 1), "expand_dims": (0,), "repeat": (2, 1), "tile": ((2, 1),),
    "flip": (1,), "roll": (1, 1), "take": ([1, 0], 1), "take_along_axis": (np.array([[1], [0]]), 1),
    "broadcast_to": ((4, 2, 3),), "squeeze": (), "transpose": (), "ravel": (), "tril": (), "triu": (), "copy": (),
    "diagonal": (), "atleast_1d": (), "atleast_2d": (), "pad": (1,),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_functions_that_move_numbers_move_their_errors(name: str) -> None:
    x, e = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) * 1e-9
    moved = getattr(np, name)(Carried(x, e, U), *CALLS[name])
    np.testing.assert_array_equal(moved.error, moved.value * 1e-9)
    np.testing.assert_array_equal(moved.value, getattr(np, name)(x, *CALLS[name]))


def test_joining_keeps_the_errors_of_each_part() -> None:
    a, b = Carried(np.ones(2), 1e-9, U), np.array([0.1, 0.5])
    np.testing.assert_array_equal(np.concatenate([a, b]).error, [1e-9, 1e-9, 2 * U * 0.1, 0])
    np.testing.assert_array_equal(np.stack([a, a * 2]).error[0], [1e-9, 1e-9])
    np.testing.assert_array_equal(np.where([True, False], a, -np.inf).error, [1e-9, 0])
    np.testing.assert_array_equal(np.pad(a, 1, constant_values=7.0).value, [7, 1, 1, 7])


def test_lists_name_functions_of_numpy_that_exist() -> None:
    assert all(hasattr(np, name) for name in MOVES | BY_VALUE)
    assert not MOVES & BY_VALUE


@pytest.mark.parametrize("call", [np.linalg.inv, np.var, np.arctan, np.add.accumulate, np.median])
def test_a_function_without_a_rule_is_refused(call: Any) -> None:
    with pytest.raises(NotImplementedError, match="a rule for it"):
        call(Carried(np.eye(2), 0.0, U))


def test_errors_are_never_lost_silently() -> None:
    with pytest.raises(TypeError, match="lose the carried errors"):
        np.asarray(Carried(np.ones(2), 0.0, U))
    with pytest.raises(TypeError, match="lose the carried errors"):
        np.zeros(2)[:] = Carried(np.ones(2), 0.0, U)


def test_reference_gets_numpy_back_also_after_an_error() -> None:
    def stop() -> None:
        assert softmax.np is not np
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), carrying():
        stop()
    assert softmax.np is np
    assert attention.np is np


def test_dividing_by_what_may_be_zero_is_unknown() -> None:
    assert np.isinf((1 / Carried(1e-9, 2e-9, U)).error)
    assert np.isinf(np.log(Carried(1e-9, 2e-9, U)).error)
    assert np.isinf(Carried(1.0, np.nan, U).error)


def test_masked_scores_are_exact_and_weigh_nothing() -> None:
    with carrying() as numbers:
        p = softmax.softmax(numbers(np.array([1.0, -np.inf, 2.0])))
    assert p.error[1] <= 1e-300
    assert 0 < p.error[0] < 1e-14


def test_printing_names_value_and_error() -> None:
    assert "±" in repr(Carried(1.0, 0.5, U))
    assert len(list(Carried(np.ones((2, 3)), 0.0, U))) == len(Carried(np.ones((2, 3)), 0.0, U)) == 2
    assert bool(Carried(1.0, 0.0, U) > 0)
    assert carried.UNITS["float64"] == np.finfo(np.float64).eps / 2


# The first-order bound: with a roundoff of nothing, and an error put on the operand alone, it is |df/dx| times that error.

NOTHING = 1e-300
DELTA = 2.0**-20


def sensitivities(function: Any, x: np.ndarray) -> np.ndarray:
    """|d sum(w f(x)) / dx_i| for each i, from the tape."""
    out = []
    for i in np.ndindex(x.shape):
        local = np.zeros(x.shape)
        local[i] = DELTA
        y = np.sum(function(Carried(x, 0.0, NOTHING, Operation(local, []))))
        out.append(y.first_order(()) / DELTA)
    return np.array(out).reshape(x.shape)


def differences(function: Any, x: np.ndarray) -> np.ndarray:
    """The same by central differences of plain NumPy."""
    h, out = 2.0**-17, []
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        out.append(np.sum(function(x + step)) - np.sum(function(x - step)))
    return np.abs(np.array(out).reshape(x.shape)) / (2 * h)


W = np.random.default_rng(7).normal(size=(3, 4))  # weights that tell the elements of a result apart
COMPOSED: dict[str, Any] = {
    "broadcast add": lambda x: W * (x[0] + x), "broadcast multiply": lambda x: W * x * x[:, :1],
    "divide": lambda x: W / (3 + x),
    "divided by": lambda x: W * x / (3 + x[1]), "square": lambda x: W * np.square(x), "exp": lambda x: W * np.exp(x),
    "log": lambda x: W * np.log(3 + x), "log1p": lambda x: W * np.log1p(np.exp(x)), "expm1": lambda x: W * np.expm1(x),
    "sqrt": lambda x: W * np.sqrt(3 + x), "tanh": lambda x: W * np.tanh(x), "sin": lambda x: W * np.sin(x),
    "cos": lambda x: W * np.cos(x), "power": lambda x: W * np.power(3 + x, 1.5), "base": lambda x: W * np.power(2.0, x),
    "cube": lambda x: W * x**3, "maximum": lambda x: W * np.maximum(x, x[0] * 0.5), "absolute": lambda x: W * np.abs(x),
    "minimum": lambda x: W * np.minimum(x, 0.25), "negative": lambda x: -x * W, "subtract": lambda x: W * (1 - x),
    "sum": lambda x: np.sum(W * x, axis=1) ** 2, "mean": lambda x: np.mean(x, axis=0, keepdims=True) * x * W,
    "max": lambda x: W * (x - np.max(x, axis=-1, keepdims=True)), "min": lambda x: np.min(x * W, axis=0) * x,
    "cumsum": lambda x: W * np.cumsum(x, axis=1), "sort": lambda x: W * np.sort(x, axis=1),
    "transpose": lambda x: np.transpose(x) @ W, "T": lambda x: x.T @ W, "matmul": lambda x: (x @ x.T) @ W,
    "vector": lambda x: (x @ x[0]) * W[:, 0], "row": lambda x: x[0] @ (x.T @ W),
    "einsum": lambda x: np.einsum("ij,kj,kl->il", x, x * W, W), "ellipsis": lambda x: np.einsum("...m,fm->...f", x[None], W),
    "ellipsis of one": lambda x: np.einsum("...m,fm->...f", W[None], x) * W[0, 0],
    "one operand": lambda x: np.einsum("ij->j", W * x),
    "reshape": lambda x: x.reshape(4, 3) @ W, "swapaxes": lambda x: np.swapaxes(x, 0, 1) @ W, "concatenate": lambda x:
    np.concatenate([x, W, x], axis=0) * np.arange(9)[:, None], "stack": lambda x: np.stack([x, x * W]) * W,
    "where": lambda x: np.where(W > 0, x, 0.0) * W, "take": lambda x: np.take(x, [2, 0, 2], axis=0) * W,
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([[1], [0], [3]]), axis=1) * W,
    "flip": lambda x: np.flip(x, 1) * W, "index": lambda x: x[[0, 0, 1]] * W,
    "repeat": lambda x: np.repeat(x, 2, axis=0) * np.repeat(W, 2, axis=1)[:, :4].repeat(2, 0),
    "split": lambda x: np.split(x, 2, axis=1)[1] * W[:, :2], "pad": lambda x: np.pad(x, 1)[1:4, :4] * W, "tile": lambda x:
    np.tile(x, (1, 2))[:, 2:6] * W, "clip": lambda x: np.clip(x, -0.5, 0.5) * W, "outer": lambda x: np.outer(x[0], W[0]),
    "softmax": lambda x: W * softmax.softmax(x),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_roundings_reach_the_result_as_derivatives_say(name: str) -> None:
    x = np.random.default_rng(3).uniform(-1, 1, size=(3, 4))
    with carrying():
        got = sensitivities(COMPOSED[name], x)
    want = differences(COMPOSED[name], x)
    error = 2.0**-17 * (1 + np.max(np.abs(want)))  # of the differences: h^2 f''' / 6 and roundoff / h
    compare.within(got, want, np.full(got.shape, error), name, why="central differences")


def test_the_sharper_bound_is_below_the_interval_and_covers_float32() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 2, 4, 3)).astype(np.float32) for _ in range(3))
    with carrying("float32") as numbers:
        want = attention.attention(*numbers((q, k, v)), causal="top-left")
    s = np.einsum("bhtd,bhsd->bhts", q, k) / np.sqrt(np.float32(3))
    p = np.exp(np.where(np.tril(np.ones((4, 4), bool)), s, np.float32(-np.inf)))
    got = np.einsum("bhts,bhse->bhte", p / p.sum(-1, keepdims=True), v)
    assert got.dtype == np.float32
    for index in np.ndindex(got.shape):
        assert abs(got[index] - want.value[index]) <= want.first_order(index) <= want.error[index]


def test_nothing_is_owed_by_what_was_not_computed() -> None:
    assert Carried(np.ones(2), 0.0, U).first_order((0,)) == 0


def test_float32_may_lose_what_is_below_its_smallest_number() -> None:
    tiny = Carried(1e-39, 0.0, U) * Carried(0.3, 0.0, U)
    assert tiny.error >= 1e-40
    weight = np.exp(Carried(-100.0, 0.0, U))
    assert weight.error >= abs(np.exp(np.float32(-100.0)).astype(np.float64) - weight.value) > 0


def test_an_unknown_error_stays_unknown_without_a_warning() -> None:
    """Where nothing is known any more the bound is infinite, whatever is computed of it; the values go on."""
    unknown = Carried(np.ones((1, 2)), np.inf, U)
    for result in (
        np.sum(unknown, axis=1),
        np.cumsum(unknown, axis=1),
        unknown @ np.zeros((2, 1)),
        unknown * 0,
        np.mean(unknown),
    ):
        assert np.isfinite(result.value).all()
        assert np.isinf(result.error).all()
