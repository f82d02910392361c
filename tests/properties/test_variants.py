"""The correct variants: listed without their libraries, loaded, and right on a few cases beside plain attention."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnspec.adapters.variant import ADAPTER
from attnspec.properties.mutants.plain import attention
from attnspec.properties.mutants.registry import SMALL
from attnspec.properties.variants import VARIANTS, UnknownVariantError, load
from attnspec.target import DECLARATIONS

OTHER_LIBRARY = "numpy_", "jax_"
IN_TORCH = [name for name in VARIANTS if not name.startswith(OTHER_LIBRARY)]
DTYPES = ("float64", "float32", "bfloat16", "float16")


def inputs(dtype: str, S: int = 6) -> list[Tensor]:
    """Queries of four heads, keys and values of two; small whole numbers, which every dtype holds."""
    draw = torch.Generator().manual_seed(5)
    shapes = (2, 4, 5, 3), (2, 2, S, 3), (2, 2, S, 4)
    return [torch.randint(-2, 3, shape, generator=draw).to(getattr(torch, dtype)) for shape in shapes]


def run(name: str, arrays: list[Tensor], **options: Any) -> Any:
    """The variant, in its own layout; the output is brought back to bhtd."""
    function = load(name)
    first = getattr(function, "__attnspec__", {}).get("layout") == "bthd"
    result = function(*(x.transpose(1, 2) for x in arrays), **options) if first else function(*arrays, **options)
    return result.transpose(1, 2) if first else result


def output(result: Any) -> Tensor:
    found: Tensor = result[0] if isinstance(result, tuple) else result
    return found


@pytest.mark.parametrize("name", IN_TORCH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_scores_give_the_mean_of_the_values(name: str, dtype: str) -> None:
    """Of four equal keys: exact in every dtype, whatever is rounded on the way."""
    if name == "log_softmax" and dtype in ("bfloat16", "float16"):
        pytest.skip("the logarithm of a quarter is rounded")
    q, k, v = inputs(dtype, S=4)
    out = output(run(name, [q, torch.zeros_like(k), v], mask=torch.ones(5, 4, dtype=torch.bool)))
    causal = name == "always_causal"
    want = output(attention(q, torch.zeros_like(k), v, causal=causal))
    assert out.dtype == q.dtype
    where = slice(0, 2) if causal else slice(None)  # a third is not exact
    assert torch.equal(out[:, :, where], want[:, :, where])


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_key_seen_alone_gives_its_value(name: str) -> None:
    q, k, v = inputs("float32")
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[:, 0] = True
    out = output(run(name, [q, k, v], mask=mask))
    assert torch.equal(out, v[:, :, :1].repeat_interleave(2, dim=1).expand(out.shape))


def test_the_numpy_variants_take_numpy() -> None:
    q, k, v = (x.numpy() for x in inputs("float64", S=4))
    for name in VARIANTS:
        if name.startswith("numpy_"):
            out = load(name)(q, np.zeros_like(k), v)
            want = output(attention(*(torch.from_numpy(x) for x in (q, np.zeros_like(k), v))))
            assert np.array_equal(out, want.numpy())


ALONE = """
import numpy as np
import jax.numpy as jnp
from attnspec.properties.variants import load

draw = np.random.default_rng(0).normal
q, v = draw(size=(2, 4, 5, 3)), draw(size=(2, 2, 4, 3))
out = load("jax_direct")(jnp.asarray(q, jnp.float32), jnp.zeros((2, 2, 4, 3)), jnp.asarray(v, jnp.float32))
assert out.dtype == jnp.float32
assert np.allclose(out, np.repeat(v.mean(2, keepdims=True), 2, axis=1), atol=1e-6)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_jax_variant_takes_jax() -> None:
    """In a process of its own: JAX has threads, and tests after this one fork."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_come_beside_the_output_where_asked_for() -> None:
    arrays = inputs("float64", S=4)
    arrays[1] = torch.zeros_like(arrays[1])
    out, nothing = run("with_weights", arrays)
    again, weights = run("with_weights", arrays, need_weights=True)
    assert nothing is None
    assert torch.equal(out, again)
    assert torch.equal(weights, torch.full((2, 4, 5, 4), 0.25, dtype=torch.float64))


def test_the_log_sum_exp_of_an_empty_row_is_minus_infinity() -> None:
    arrays = inputs("float32", S=1)
    mask = torch.ones(5, 1, dtype=torch.bool)
    mask[2] = False
    arrays[1] = torch.zeros_like(arrays[1])
    _, lse = run("with_lse", arrays, mask=mask, return_lse=True)
    assert torch.equal(lse[0, 0], torch.tensor([0.0, 0.0, -torch.inf, 0.0, 0.0]))


def test_a_sink_equal_to_the_score_halves_the_output() -> None:
    arrays = inputs("float32", S=1)
    arrays[1] = torch.zeros_like(arrays[1])
    out = run("with_sinks_and_dropout", arrays, sinks=torch.zeros(4))
    assert torch.equal(out, run("with_sinks_and_dropout", arrays) / 2)


def test_dropout_depends_on_its_seed_alone() -> None:
    arrays = inputs("float32", S=4)
    first, again, other = (run("with_sinks_and_dropout", arrays, dropout=0.5, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_bias_is_refused_in_words() -> None:
    with pytest.raises(NotImplementedError, match="takes no bias"):
        run("refuses_bias", inputs("float32"), bias=torch.zeros(5, 6))


def test_an_empty_row_is_what_is_declared() -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    assert run("empty_row_nan", inputs("float32"), mask=mask).isnan().all()
    assert not run("copied_first", inputs("float32"), mask=mask).any()


@pytest.mark.parametrize("name", [n for n in VARIANTS if not n.startswith("jax_")])
def test_a_variant_declares_what_can_be_declared(name: str) -> None:
    function, declared = ADAPTER.load(name, {})  # type: ignore[misc]
    assert set(declared) <= set(DECLARATIONS)
    signature: Any = getattr(function, "__signature__", None)
    assert signature is None or signature == SMALL


def test_listing_imports_no_array_library() -> None:
    code = "import sys, attnspec.properties.variants as v; print(len(v.VARIANTS), {'torch', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(VARIANTS)} set()\n"


def test_an_unknown_variant_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownVariantError, match="the nearest is 'with_lse'"):
        load("with_lze")
