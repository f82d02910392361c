"""The bounds at their edges: empty rows, undecided cases, inputs to which they do not apply, sums (docs/bounds.md)."""

import math

import numpy as np
import pytest
import torch

from attnspec.properties.bounds import NORMALISER, forward
from attnspec.properties.bounds_backward import backward, summed
from attnspec.properties.bounds_classes import CLASSES, ORACLE, precision, wide
from attnspec.properties.bounds_preconditions import preconditions

torch.set_num_threads(1)

DTYPES = {"float32": torch.float32, "float64": torch.float64}
KEYS, QUERIES = np.arange(9)[None, :], np.arange(9)[:, None]
ALL = np.ones((1, 2, 9, 9), bool)


def arrays(size: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """q [1,2,9,4], k [1,1,9,4], v [1,1,9,5] and a cotangent [1,2,9,5]; q and k have the given size."""
    rng = np.random.default_rng(0)
    shapes = ((1, 2, 9, 4), (1, 1, 9, 4), (1, 1, 9, 5), (1, 2, 9, 5))
    q, k, v, cotangent = (rng.normal(size=shape).astype("float32").astype(float) for shape in shapes)
    return size * q, size * k, v, cotangent


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_rows_allow_no_error_and_hidden_content_none_either(dtype: str) -> None:
    q, k, v, cotangent = arrays()
    visible = np.broadcast_to((KEYS <= QUERIES) & (QUERIES != 3) & (KEYS != 0), ALL.shape)  # rows 0 and 3 see nothing
    poisoned_q, poisoned_k, poisoned_v = q.copy(), k.copy(), v.copy()
    poisoned_q[..., 3, :], poisoned_k[..., 0, :], poisoned_v[..., 0, :] = np.nan, np.inf, np.nan
    assert preconditions(poisoned_q, poisoned_k, poisoned_v, visible=visible, dtype=dtype, cotangent=cotangent) is None
    error = forward(poisoned_q, poisoned_k, poisoned_v, visible=visible, precision=wide(dtype)).error
    of = backward(poisoned_q, poisoned_k, poisoned_v, cotangent, visible=visible, precision=wide(dtype))
    assert (error[:, :, [0, 3]] == 0).all()
    assert (error[:, :, [1, 2, 4]] > 0).all()
    assert (error == forward(q, k, v, visible=visible, precision=wide(dtype)).error).all()
    assert (of.q[:, :, [0, 3]] == 0).all()
    assert ((of.bias > 0) == visible).all()
    assert np.isfinite(of.k).all()
    assert np.isfinite(of.v).all()


def test_no_keys_allow_no_error() -> None:
    q, k, v, cotangent = arrays()
    none = {"visible": ALL[..., :0], "precision": ORACLE}
    assert (forward(q, k[:, :, :0], v[:, :, :0], **none).error == np.zeros((1, 2, 9, 5))).all()
    of = backward(q, k[:, :, :0], v[:, :, :0], cotangent, **none)
    assert (of.q == np.zeros(q.shape)).all()
    assert of.k.shape == (1, 1, 0, 4)


def test_vacuous_means_that_huge_scores_decide_nothing() -> None:
    f = wide("float32")
    q, k, v, cotangent = arrays()
    assert not forward(q, k, v, visible=ALL, precision=f).vacuous.any()
    assert not backward(q, k, v, cotangent, visible=ALL, precision=f).vacuous
    q, k, v, cotangent = arrays(1e17)
    k = k[:, :, :1].repeat(9, axis=2)  # equal scores, each with an error of thousands: any key may win
    assert forward(q, k, v, visible=ALL, precision=f).vacuous.all()
    assert backward(q, k, v, cotangent, visible=ALL, precision=f).vacuous


@pytest.mark.parametrize("n", [1, 9])
def test_constant_values_and_a_single_key_are_never_vacuous(n: int) -> None:
    f = wide("float32")
    q, k, _, _ = arrays(1e17)
    bound = forward(q, k[:, :, :n], np.full((1, 1, n, 1), 0.1), visible=ALL[..., :n], precision=f)
    assert not bound.vacuous.any()
    # exp(t - L) would lose all at scores of 1e17; it is granted NORMALISER, and a division reaches the roundoff.
    assert (bound.error - bound.terms["normaliser"] <= 100 * f.u_o).all()
    assert (bound.terms["normaliser"] <= 1.01 * NORMALISER * 0.1).all()
    assert bound.largest((0, 0, 0, 0)) != "scores"


def test_preconditions_name_the_rule_that_fails() -> None:
    q, k, v, cotangent = arrays()

    def failing(size: float = 1.0, values: np.ndarray = v, bias: float = 0.0, along: np.ndarray | None = None) -> str:
        reason = preconditions(
            size * q, size * k, values, visible=ALL, bias=np.full((9, 9), bias), dtype="float32", cotangent=along
        )
        return str(reason)[:2]

    assert failing(along=cotangent) == "No"  # None
    assert failing(size=1e20) == "P1"
    assert failing(values=1e38 * (1 + v**2)) == "P2"
    assert failing(values=1e20 * v, along=1e20 * cotangent) == "P3"
    assert failing(size=math.nan) == failing(bias=math.inf) == failing(values=math.nan * v) == "P4"
    assert failing(bias=-3e38) == "P5"


def test_only_the_declared_classes_exist() -> None:
    for kind, dtype in (("wide", "float16"), ("fused", "float32"), ("stored", "float64"), ("half", "bfloat16")):
        with pytest.raises(ValueError, match=f"precision='{kind}' in '{dtype}'"):
            precision(kind, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_class_that_rounds_more_allows_more(dtype: str) -> None:
    q, k, v, _ = arrays()
    errors = [forward(q, k, v, visible=ALL, precision=precision(kind, dtype)).error for kind in CLASSES]
    assert (errors[0] < errors[1]).all()
    assert (errors[1] < errors[2]).all()


def test_what_is_hidden_may_overflow_too_unless_it_is_not_finite() -> None:
    q, k, v, cotangent = arrays()
    hidden = np.broadcast_to(KEYS > 0, ALL.shape)
    for size, reason in ((1e4, "P3"), (np.inf, "None"), (np.nan, "None")):
        planted = v.copy()
        planted[:, :, 0] = size
        given = {"visible": hidden, "precision": precision("fused", "float16"), "cotangent": cotangent}
        assert str(preconditions(q, k, planted, **given)).startswith(reason)
    planted = k.copy()
    planted[:, :, 0] = 6e4
    assert str(preconditions(q, planted, v, visible=hidden, precision=precision("stored", "float16"))).startswith("P1")


def test_the_format_of_scores_and_sums_decides_what_overflows() -> None:
    q, k, v, cotangent = arrays(100.0)
    size = float(np.abs(q).max() * np.abs(k).max())

    def failing(kind: str, **changes: np.ndarray) -> str:
        given = {"q": q, "k": k, "v": v, "cotangent": cotangent} | changes
        return str(preconditions(**given, visible=ALL, precision=precision(kind, "float16")))[:2]

    assert failing("fused") == "No"  # None: scores are held in float32
    assert size > 32752
    assert failing("stored") == failing("stored-blocks") == "P1"
    small, large = {"q": q / 100, "cotangent": 1e-3 * cotangent}, 7e3 * np.ones_like(v)
    assert failing("stored", v=large, **small) == "No"
    assert failing("stored-blocks", v=large, **small) == "P2"  # running sums are held in float16
    assert failing("fused", v=large) == "P3"


def test_errors_of_a_broadcast_gradient_add_up() -> None:
    error, value = np.full((2, 3, 4, 5), 1.0), np.full((2, 3, 4, 5), 8.0)
    total = summed(error, value, (3, 1, 5), ORACLE)
    assert total.shape == (3, 1, 5)
    assert (total > 8).all()
    assert (total < 8 + 8**4 * ORACLE.u_o).all()
    assert (summed(error, value, error.shape, ORACLE) == error).all()


def test_large_arrays_are_taken_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = arrays()
    whole = forward(q, k, v, visible=ALL, precision=ORACLE)
    monkeypatch.setattr("attnspec.properties.bounds.CHUNK", 300)
    parts = forward(q, k, v, visible=ALL, precision=ORACLE)
    assert (parts.error == whole.error).all()
    assert (parts.cap == whole.cap).all()
