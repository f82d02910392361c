"""JAX: its own attention and functions of JAX arrays, audited on a handful of claims.

JAX compiles anew for every shape, so that a whole audit takes minutes; what is compiled is kept for the next run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import attnspec
from attnspec.adapters import adapters
from attnspec.errors import UsageError
from attnspec.properties.verdict import Verdict

pytest.importorskip("jax")

FUNCTIONS = """
import functools, os, time
import jax, jax.numpy as jnp


def scores(q, k, v, causal, extra):
    s = jnp.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    if causal:
        s = jnp.where(jnp.arange(k.shape[-2]) <= jnp.arange(q.shape[-2])[:, None] + extra, s, -jnp.inf)
    return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(s, -1), v)


@functools.partial(jax.jit, static_argnames="causal")
def right(q, k, v, causal=False): return scores(q, k, v, causal, 0)
@functools.partial(jax.jit, static_argnames="causal")
def off_by_one(q, k, v, causal=False): return scores(q, k, v, causal, 1)
@functools.partial(jax.jit, static_argnames="causal")
def in_float32(q, k, v, causal=False):
    return scores(*(x.astype("float32") for x in (q, k, v)), causal, 0).astype(q.dtype)


def counts(q, k, v):
    '''float32 as JAX users see it: in x64 mode a mean over positions is float64.'''
    return right(q, k, v) + 0 * jnp.mean(jnp.arange(q.shape[-2]))


def sometimes(accident):
    def attention(q, k, v, causal=False):
        if causal and q.shape[-2] > 20: accident()
        return right(q, k, v, causal=causal)
    return attention


crashes = sometimes(lambda: os.abort())
hangs = sometimes(lambda: time.sleep(600))
"""


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "in_jax.py").write_text(FUNCTIONS)
    monkeypatch.chdir(folder)


def by_verdict(report: attnspec.Report) -> dict[str, set[str]]:
    """Dtypes of the records of each verdict."""
    found: dict[str, set[str]] = {}
    for record in report.records:
        found.setdefault(record.verdict.value, set()).add(record.dtype)
    return found


def test_attention_of_jax() -> None:
    report = attnspec.audit("jax:dot_product_attention", select=["scale.sqrt-dk", "convention.precision"])
    profile = report.profile
    assert profile is not None
    assert (profile["arrays"], profile["layout"], profile["contract"]) == ("jax", "bthd", "jax")
    assert profile["alignment"] == "top-left"
    assert profile["empty_row"] == "mean"
    for feature in ("mask", "bias", "causal", "scale", "window", "grouped", "gradients", "lse", "float32", "bfloat16"):
        assert feature not in profile.features or profile.offers(feature), feature
    scale = [r for r in report.records if r.claim == "scale.sqrt-dk"]
    assert {r.verdict for r in scale} == {Verdict.HOLDS}
    # jax 0.4.31 to 0.10.2 compute the softmax in float32, whatever the dtype.
    (precision,) = (r for r in report.records if r.claim == "convention.precision")
    assert precision.verdict is Verdict.VIOLATED
    assert "that of float32" in str(precision.evidence.got if precision.evidence else "")


def test_float64_is_float64() -> None:
    report = attnspec.audit("in_jax.py::right", select=["reference.forward", "grad.reference"], dtypes="float64")
    assert by_verdict(report) == {"HOLDS": {"float64"}}
    rounded = attnspec.audit("in_jax.py::in_float32", select=["reference.forward"], dtypes="float64")
    assert by_verdict(rounded) == {"VIOLATED": {"float64"}}


def test_float32_is_looked_at_without_the_mode_for_float64() -> None:
    report = attnspec.audit("in_jax.py::counts", select=["scale.sqrt-dk", "convention.output-dtype"], dtypes="float32")
    assert by_verdict(report) == {"HOLDS": {"float32"}}


def test_a_defect_is_found_and_its_script_shows_it(folder: Path) -> None:
    report = attnspec.audit("in_jax.py::off_by_one", select=["mask.causal"], dtypes="float32")
    (record,) = report.violations
    assert record.case is not None
    assert max(record.case.sizes.T, record.case.sizes.S) == 2
    script = report.scripts[record.case.id]
    assert "attnspec" not in script.replace("attnspec-", "")
    assert "import jax" in script


@pytest.mark.parametrize(("name", "reason"), [("crashes", "SIGABRT"), ("hangs", "no answer within 40 s")])
def test_an_accident_costs_one_verdict(name: str, reason: str) -> None:
    chosen = ["mask.causal", "scale.sqrt-dk"]
    report = attnspec.audit(f"in_jax.py::{name}", select=chosen, dtypes="float32", timeout=40.0)
    verdicts = {r.claim: r.verdict for r in report.records}
    assert verdicts == {"mask.causal": Verdict.UNKNOWN, "scale.sqrt-dk": Verdict.HOLDS}
    assert reason in "".join(str(r.reason) for r in report.records)
    assert report.exit_code == 3


def test_x64_mode_follows_the_dtype() -> None:
    import jax

    made = adapters()["jax"].arrays
    assert made is not None
    arrays = made()
    for dtype in ("float64", "float32", "float64", "bfloat16"):
        native = arrays.make(np.full((1, 1), 1 + 2.0**-52) if dtype == "float64" else np.ones((1, 1)), dtype)
        assert jax.config.jax_enable_x64 == (dtype == "float64")
        assert arrays.dtype_of(native * 2.0) == dtype
    arrays.make(np.ones((1, 1)), "float64")
    arrays.make(np.ones((1, 1), dtype=bool), "bool")  # a mask belongs to the call whose arrays were made before
    assert jax.config.jax_enable_x64
    arrays.make(np.ones((1, 1)), "float32")


@pytest.mark.parametrize(
    ("target", "module", "package"),
    [
        ("jax:dot_product_attention", "jax", "jax"),
        ("mlx:scaled_dot_product_attention", "mlx.core", "mlx"),
        ("keras:dot_product_attention", "keras", "keras"),
        ("onnx:Attention", "onnx.reference", "onnx"),
    ],
)
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, target: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it raises ModuleNotFoundError
    with pytest.raises(UsageError, match=rf"{target}: {package} is not installed; `pip install {package}`"):
        attnspec.audit(target, in_process=True)


def test_options_of_the_target() -> None:
    with pytest.raises(UsageError, match="backend=flash: jax:dot_product_attention has default, xla, cudnn"):
        attnspec.audit("jax:dot_product_attention", backend="flash", in_process=True)
    load = adapters()["jax"].load
    assert load is not None
    import jax

    compiled, declared = load("dot_product_attention", {})
    assert declared == {"contract": "jax", "arrays": "jax"}
    plain, _ = load("dot_product_attention", {"compile": False})
    assert plain is jax.nn.dot_product_attention
    assert compiled is not plain
    assert adapters()["jax"].owned(plain) == "dot_product_attention"
