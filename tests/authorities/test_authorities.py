"""Every authority on drawn examples, and the comparison itself: it accepts rounding and refuses everything else."""

from __future__ import annotations

import importlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.linear import linear
from tests.authorities import agreement
from tests.authorities.agreement import AUTHORITIES, Authority, agrees, measuring

for path in sorted(Path(agreement.__file__).parent.glob("*.py")):
    if path.stem not in ("agreement", "__init__") and not path.stem.startswith("test_"):
        importlib.import_module(f"tests.authorities.{path.stem}")


def label(a: Authority) -> str:
    return f"{a.idea}-{a.run.__module__.rpartition('.')[2]}.{a.run.__name__}"


@pytest.mark.parametrize("one", AUTHORITIES, ids=label)
def test_authority_agrees(one: Authority) -> None:
    @hypothesis.settings(
        max_examples=one.examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(st.data())
    def run(data: st.DataObject) -> None:
        one.run(data.draw)

    with measuring() as measured:
        run()
    assert measured, f"{label(one)} never called agrees"


def example(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, 3, 5)), {"weight": rng.normal(size=(4, 5)), "bias": rng.normal(size=4)}


def test_agreement_accepts_another_order_of_summation() -> None:
    x, p = example()
    got = sum((x[..., m, None] * p["weight"][:, m] for m in reversed(range(5))), start=p["bias"] + np.zeros((2, 3, 4)))
    with measuring() as measured:
        agrees(got, linear, x, p)
    assert 0 < measured[0].ratio <= 1


@pytest.mark.parametrize("relative", [1e-6, 1e-12])
def test_agreement_refuses_a_small_error_in_one_place(relative: float) -> None:
    x, p = example()
    got = linear(x, p)
    got[1, 2, 3] *= 1 + relative
    with pytest.raises(AssertionError, match=r"linear: error .* > bound .* at flat index 23 of 24"):
        agrees(got, linear, x, p)


def test_agreement_refuses_another_shape_another_structure_and_nan() -> None:
    x, p = example()
    got = linear(x, p)
    with pytest.raises(AssertionError, match="shape"):
        agrees(got[0], linear, x, p)
    with pytest.raises(AssertionError, match="want 2"):
        agrees((got,), lambda x, p: (linear(x, p), linear(x, p)), x, p)
    with pytest.raises(AssertionError, match="got"):
        agrees(got * np.nan, linear, x, p)


def test_agreement_refuses_a_bound_that_says_nothing() -> None:
    x, p = example()

    def cancels(x, p):  # type: ignore[no-untyped-def]
        y = linear(x, p)
        return (y + 1e12) - 1e12

    with pytest.raises(AssertionError, match="too wide to say anything"):
        agrees(cancels(x, p), cancels, x, p)


def test_float32_has_a_wider_bound_than_float64() -> None:
    x, p = example()
    x, p = x.astype(np.float32), {name: array.astype(np.float32) for name, array in p.items()}
    got = np.einsum("btm,fm->btf", x, p["weight"]) + p["bias"]
    agrees(got, linear, x, p, unit="float32")
    with pytest.raises(AssertionError, match="> bound"):
        agrees(got, linear, x, p)


def test_every_idea_with_a_formula_has_an_authority() -> None:
    assert {a.idea for a in AUTHORITIES} >= {f"I{i:02}" for i in (1, 2, 4, 7, 8, 9, 14, 18, 22, 23, 28)}
