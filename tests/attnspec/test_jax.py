"""JAX: its own attention and functions of JAX arrays, audited on a handful of claims and cases.

JAX starts threads, after which a process must not fork: it is imported in processes of its own, never by a test. It compiles
anew for every shape, a tenth of a second each time: so the functions here are declared, not probed, and each claim looks at a
few cases.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import attnspec
from attnspec import search
from attnspec.auditor import Unit
from attnspec.errors import UsageError
from attnspec.properties import strategies
from attnspec.properties.subject import DTYPES, FEATURES, Profile, Setting
from attnspec.properties.verdict import Record, Verdict
from attnspec.worker import THREADED, Worker

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")

ATTENTION = "jax:dot_product_attention"
FUNCTIONS = """
import functools, os, signal
import jax, jax.numpy as jnp

compiled = functools.partial(jax.jit, static_argnames="causal")


def scores(q, k, v, causal, extra):
    s = jnp.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
    if causal:
        s = jnp.where(jnp.arange(k.shape[-2]) <= jnp.arange(q.shape[-2])[:, None] + extra, s, -jnp.inf)
    return jnp.einsum("bhts,bhsd->bhtd", jax.nn.softmax(s, -1), v)


@compiled
def right(q, k, v, causal=False): return scores(q, k, v, causal, 0)
@compiled
def off_by_one(q, k, v, causal=False): return scores(q, k, v, causal, 1)
@compiled
def in_float32(q, k, v, causal=False):
    return scores(*(x.astype("float32") for x in (q, k, v)), causal, 0).astype(q.dtype)
@compiled
def counts(q, k, v, causal=False):
    '''float32 as JAX users see it: in x64 mode a mean over positions is float64.'''
    return scores(q, k, v, causal, 0) + 0 * jnp.mean(jnp.arange(q.shape[-2]))


def crashes(q, k, v, causal=False):
    if causal: os.kill(os.getpid(), signal.SIGKILL)
    return right(q, k, v)
"""
KNOWN = {"arrays": "jax", "layout": "bhtd", "alignment": "top-left", "gradients": "vjp", "output_dtype": "query"}
KNOWN |= {"deterministic": True, "precision": dict.fromkeys(("float64", "float32"), "wide"), "dtypes": DTYPES[:2]}
OFFERED = {
    "batch",
    "heads",
    "rectangular",
    "value-width",
    "float64",
    "non-causal",
    "causal",
    "causal-rectangular",
    "gradients",
}
PROFILE = Profile(
    {name: Setting(value, "declared") for name, value in KNOWN.items()},
    {name: None if name in OFFERED else "not offered" for name in FEATURES},
)

Look = Callable[[str, str, str], Record]  # look(target, claim, dtype)


@pytest.fixture(scope="module")
def few() -> Iterator[None]:
    """A budget of a few cases, which the workers inherit."""
    every = strategies.showcases
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(search.BUDGETS, "few", search.Budget("few", 1, 1, 4, 60.0))
        patch.setattr(strategies, "showcases", lambda *of, **how: every(*of, **how)[:4])
        yield


def looking(worker: Worker) -> Look:
    return lambda target, claim, dtype: worker.run(Unit(target, {}, claim, dtype, "few", 1))


@pytest.fixture(scope="module")
def look(few: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Looks at the functions above, one worker for all of them."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "in_jax.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch, Worker("in_jax.py::right", {}, 120.0) as worker:
        patch.chdir(folder)
        worker.adopt(PROFILE)
        yield looking(worker)


def test_attention_of_jax(few: None) -> None:
    """Its profile by probing, then an exact claim, values and gradients."""
    with Worker(ATTENTION, {"dtypes": "float32"}, 300.0) as worker:
        profile = worker.profile()
        found = [looking(worker)(ATTENTION, *what) for what in LOOKED_AT]
    assert (profile["arrays"], profile["layout"], profile["contract"]) == ("jax", "bthd", "jax")
    assert profile["alignment"] == "top-left"
    assert profile["empty_row"] == "mean"
    for feature in ("mask", "bias", "causal", "scale", "window", "grouped", "gradients", "lse"):
        assert profile.offers(feature), feature
    assert {(r.claim, r.dtype): r.verdict for r in found} == dict.fromkeys(LOOKED_AT, Verdict.HOLDS)
    assert [r.decided_by for r in found] == ["exact", "bound", "bound"]


LOOKED_AT = [
    ("mask.causal", "float32"),
    ("reference.forward", "float32"),
    ("grad.reference", "float32"),
]


def test_float64_is_float64(look: Look) -> None:
    assert look("in_jax.py::right", "reference.forward", "float64").verdict is Verdict.HOLDS
    assert look("in_jax.py::in_float32", "reference.forward", "float64").verdict is Verdict.VIOLATED


def test_float32_is_looked_at_without_the_mode_for_float64(look: Look) -> None:
    record = look("in_jax.py::counts", "reference.forward", "float32")
    assert record.verdict is Verdict.HOLDS
    assert "dtype" not in {o.kind for o in record.observations}


def test_a_defect_is_found_and_its_script_shows_it(look: Look, tmp_path: Path) -> None:
    record = look("in_jax.py::off_by_one", "mask.causal", "float32")
    assert record.verdict is Verdict.VIOLATED
    assert record.case is not None
    assert max(record.case.sizes.T, record.case.sizes.S) == 2
    assert record.script is not None
    assert "attnspec" not in record.script.replace("attnspec-", "")
    assert "import jax" in record.script


def test_a_crash_costs_one_verdict(look: Look) -> None:
    crashed = look("in_jax.py::crashes", "mask.causal", "float32")
    assert crashed.verdict is Verdict.UNKNOWN
    assert "SIGKILL" in str(crashed.reason)
    assert look("in_jax.py::crashes", "scale.sqrt-dk", "float32").verdict is Verdict.HOLDS


IN_JAX = """
import jax, numpy as np
from attnspec.adapters import adapters

arrays = adapters()["jax"].arrays()
for dtype in ("float64", "float32", "float64", "bfloat16"):
    native = arrays.make(np.full((1, 1), 1 + 2.0**-52) if dtype == "float64" else np.ones((1, 1)), dtype)
    assert jax.config.jax_enable_x64 == (dtype == "float64")
    assert arrays.dtype_of(native * 2.0) == dtype
arrays.make(np.ones((1, 1)), "float64")
arrays.make(np.ones((1, 1), dtype=bool), "bool")  # a mask belongs to the call whose arrays were made before
assert jax.config.jax_enable_x64

load = adapters()["jax"].load
compiled, declared = load("dot_product_attention", {})
assert declared == {"contract": "jax", "arrays": "jax"}
plain, _ = load("dot_product_attention", {"compile": False})
assert plain is jax.nn.dot_product_attention
assert compiled is not plain
assert adapters()["jax"].owned(plain) == "dot_product_attention"
"""


def test_the_mode_for_float64_follows_the_dtype_and_options_the_target() -> None:
    done = subprocess.run([sys.executable, "-c", IN_JAX], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("target", "module", "package"),
    [
        (ATTENTION, "jax", "jax"),
        ("mlx:scaled_dot_product_attention", "mlx.core", "mlx"),
        ("keras:dot_product_attention", "keras", "keras"),
        ("onnx:Attention", "onnx.reference", "onnx"),
    ],
)
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, target: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it raises ModuleNotFoundError
    with pytest.raises(UsageError, match=rf"{target}: {package} is not installed; `pip install {package}`"):
        attnspec.audit(target, in_process=True)


def test_a_backend_that_is_none() -> None:
    with pytest.raises(UsageError, match="backend=flash: jax:dot_product_attention has default, xla, cudnn"):
        attnspec.audit(ATTENTION, backend="flash", in_process=True)


@pytest.fixture(scope="module", autouse=True)
def no_threads_in_this_process() -> Iterator[None]:
    """What these tests import stays: a library with threads would make every later fork of this process a warning."""
    before = set(THREADED) & set(sys.modules)
    yield
    after = set(THREADED) & set(sys.modules)
    assert after == before, f"imported into the process of the tests: {', '.join(sorted(after - before))}"


def test_what_was_compiled_for_a_claim_is_forgotten() -> None:
    """Thousands of compiled shapes are more pieces of memory than a process may have: a whole audit crashed of it."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("what this system calls pieces of memory is not known")
    code = (
        "from pathlib import Path\n"
        "from attnspec.auditor import Unit\n"
        "from attnspec.worker import _prepare, _run\n"
        "profile, _ = _prepare('jax:dot_product_attention', {'dtypes': 'float32'})\n"
        "pieces = []\n"
        "for _ in range(2):\n"
        "    options = {'dtypes': 'float32'}\n"
        "    _run(Unit('jax:dot_product_attention', options, 'robust.wrong-shapes', 'float32', 'quick', 1), profile)\n"
        "    pieces.append(len(Path('/proc/self/maps').read_text().splitlines()))\n"
        "import jax\n"
        "before = pieces[-1]\n"
        "jax.clear_caches()\n"
        "print(before - len(Path('/proc/self/maps').read_text().splitlines()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20  # nothing is left to forget
