"""Each path of attention against the reference; no leak, no NaN in empty rows, no neighbours; the rule; dropout."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from attnspec.impl import attention as module
from attnspec.impl import attention_paths as paths
from attnspec.impl.attention import attention, attention_weights
from attnspec.impl.config import TransformerConfig
from attnspec.impl.layers import FeedForward, SelfAttention
from attnspec.impl.positions import Sight
from attnspec.reference.attention import attention as right
from attnspec.reference.attention_backward import attention_backward
from tests.authorities.agreement import agrees
from tests.impl.impl_models import always, small
from tests.reference.drawn import cases

ROOT = Path(__file__).resolve().parents[2]
ON_CPU = ["sdpa", "explicit"]
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def qkv(T: int, S: int, G: int = 2, E: int = 3, dtype: torch.dtype = torch.float64, B: int = 2) -> list[Tensor]:
    return [draw(B, 4, T, 3, dtype=dtype), draw(B, G, S, 3, seed=1, dtype=dtype), draw(B, G, S, E, seed=2, dtype=dtype)]


def raises(message: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


# The reference


def spoken(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same options for the reference and for impl/, whose window looks back from the end."""
    causal = options["causal"] is not None or options["window"] is not None
    told = {**options, "causal": "bottom-right" if causal else None, "window_side": "left"}
    own = {name: told[name] for name in ("window", "scale") if name in told} | {"softcap": told.get("softcap")}
    own |= {name: torch.tensor(told[name]) for name in ("mask", "bias") if name in told}
    return told, own | {"causal": causal}


def assert_right(path: str | None, unit: str, q: Any, k: Any, v: Any, told: dict[str, Any], own: dict[str, Any]) -> None:
    """Forward and all gradients, with the bias in full size, so that its gradient is that of the scores."""
    if "bias" in own:
        told = {**told, "bias": np.broadcast_to(told["bias"], (*q.shape[:3], k.shape[2])).copy()}
        own = {**own, "bias": torch.tensor(told["bias"], dtype=DTYPES[unit]).requires_grad_()}
        told["bias"] = own["bias"].detach().double().numpy()
    leaves = [torch.tensor(x, dtype=DTYPES[unit]).requires_grad_() for x in (q, k, v)]
    exact = [x.detach().double().numpy() for x in leaves]
    out = attention(*leaves, **own, path=path)
    agrees(out.detach().double().numpy(), right, *exact, unit=unit, **told)
    cotangent = draw(*out.shape, seed=9, dtype=DTYPES[unit])
    if own["softcap"] == 0.5:  # saturated: torch's slope 1 - tanh^2 cancels, the reference's does not; the audit bounds both
        return
    wanted = leaves + ([own["bias"]] if "bias" in own else [])
    got = [x.double().numpy() for x in torch.autograd.grad(out, wanted, cotangent)]

    def backward(*arrays: Any, **options: Any) -> Any:
        return attention_backward(*arrays, **options)[: len(got)]

    agrees(tuple(got), backward, *exact, cotangent.double().numpy(), unit=unit, **told)


@pytest.mark.parametrize("unit", ["float64", "float32"])
@pytest.mark.parametrize("path", ON_CPU)
@always(st.data(), max_examples=40)
def test_each_path_equals_the_reference(path: str, unit: str, data: Any) -> None:
    q, k, v, options = data.draw(cases(softcaps=path == "explicit"))
    assert_right(path, unit, q, k, v, *spoken(options))


@always(st.data(), max_examples=40)
def test_flex_equals_the_reference(data: Any) -> None:
    """Its formula, without the compiler and the GPU that the path asks for."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    if not hasattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
        pytest.skip("this PyTorch cannot run flex attention without a compiler")
    q, k, v, options = data.draw(cases())
    told, own = spoken(options)
    scale = q.shape[3] ** -0.5 if own["scale"] is None else own["scale"]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
        patch.setattr(paths, "compiled_flex", lambda: flex.flex_attention)
        Q, K, V = (torch.tensor(x) for x in (q, k, v))
        mask = paths.one_mask(Q, k.shape[2], own.get("mask"), own.get("bias"), own["causal"], own["window"])
        got = paths.flex(Q, K, V, mask, scale, own["softcap"])
        assert not paths.flex(Q, K[:, :, :0], V[:, :, :0], None, scale, None).any()
    agrees(got.numpy(), right, q, k, v, **told)


@pytest.mark.parametrize("path", ON_CPU)
@always(st.data(), max_examples=25)
def test_each_path_equals_the_reference_in_bfloat16(path: str, data: Any) -> None:
    q, k, v, options = data.draw(cases(softcaps=False))
    options.pop("bias", None)  # it would be rounded before it is given
    assert_right(path, "bfloat16", q, k, v, *spoken(options))


# What no path may do


def empty_rows(T: int, S: int) -> list[dict[str, Any]]:
    hidden = torch.ones(2, 1, T, S, dtype=torch.bool)
    hidden[:, :, 0] = False
    additive = torch.zeros(2, 1, T, S).masked_fill(~hidden, -math.inf)
    return [{"mask": hidden}, {"bias": additive}, {"mask": hidden, "bias": additive}, {"mask": hidden[..., :1]}]


def assert_empty_rows_are_zero(path: str | None, dtype: torch.dtype, G: int = 2, **also: Any) -> None:
    told = [(4, 6, options) for options in empty_rows(4, 6)] + [(6, 4, {"causal": True}), (6, 4, {"window": 2})]
    for T, S, options in [*told, (3, 0, {}), (3, 0, {"causal": True}), (3, 0, {"mask": torch.ones(1, dtype=torch.bool)})]:
        leaves = [x.requires_grad_() for x in qkv(T, S, G, dtype=dtype)]
        out = attention(*leaves, path=path, **options, **also)
        gradients = torch.autograd.grad(out, leaves, draw(*out.shape, seed=9, dtype=dtype))
        empty = slice(0, 2) if T == 6 else slice(0, 1)
        assert not out[:, :, empty].any()
        assert not gradients[0][:, :, empty].any()
        assert all(x.isfinite().all() for x in (out, *gradients))
        assert S == 0 or (out[:, :, 2:] != 0).all()


@pytest.mark.parametrize("dtype", [*DTYPES.values(), torch.float16])
@pytest.mark.parametrize("G", [1, 4])
@pytest.mark.parametrize("path", [None, *ON_CPU])
def test_empty_rows_are_zero_forward_and_backward(path, G, dtype):
    assert_empty_rows_are_zero(path, dtype, G)
    if path != "sdpa":
        assert_empty_rows_are_zero(path, dtype, G, softcap=2.0)


def assert_no_leak(path: str | None, dtype: torch.dtype, options: dict[str, Any], size: int = 6) -> None:
    """Other keys and values behind the last visible position: no bit of output or gradient may know."""
    seen = []
    for content in (1.0, -1e4):
        q, k, v = qkv(size, size, dtype=dtype)
        k[:, :, size - 1], v[:, :, size - 1] = content, content
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out = attention(*leaves, path=path, **options)[:, :, : size - 1]
        dq, dk, dv = torch.autograd.grad(out, leaves, draw(*out.shape, seed=9, dtype=dtype))
        assert not dk[:, :, size - 1].any()
        assert not dv[:, :, size - 1].any()
        seen.append((out, dq, dk, dv))
    assert all(torch.equal(x, y) for x, y in zip(*seen, strict=True))


HIDING = [{"causal": True}, {"window": 2}, {"mask": torch.arange(6) < 5}, {"mask": torch.arange(6) < 5, "window": 2}]


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("options", HIDING)
@pytest.mark.parametrize("path", ON_CPU)
def test_hidden_content_changes_no_bit(path, options, dtype):
    assert_no_leak(path, dtype, options)
    if path == "explicit":
        assert_no_leak(path, dtype, {**options, "softcap": 2.0})


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("path", ON_CPU)
def test_long_hidden_content_changes_no_bit(path, dtype):
    """Long enough for the kernels' blocks."""
    assert_no_leak(path, dtype, {"causal": True}, size=70)


def assert_neighbours_unseen(path: str | None, unit: str) -> None:
    arrays = [x.double().numpy() for x in qkv(9, 17, dtype=DTYPES[unit], B=5)]
    mask = (np.arange(17) < np.array([17, 3, 9, 0, 16])[:, None])[:, None, None]
    told = {"causal": "bottom-right"}
    tensors = [torch.tensor(x, dtype=DTYPES[unit]) for x in arrays]
    together = attention(*tensors, mask=torch.tensor(mask), causal=True, path=path).double().numpy()
    for b in range(5):
        row = slice(b, b + 1)
        alone = attention(*(x[row] for x in tensors), mask=torch.tensor(mask[row]), causal=True, path=path)
        for got in (together[row], alone.double().numpy()):
            agrees(got, right, *(x[row] for x in arrays), mask=mask[row], unit=unit, **told)


@pytest.mark.parametrize("unit", ["float64", "float32"])
@pytest.mark.parametrize("path", ON_CPU)
def test_a_row_is_the_same_alone_and_in_a_batch(path, unit):
    assert_neighbours_unseen(path, unit)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("path", ON_CPU)
def test_scale_zero_averages_whatever_memory_held(path, dtype):
    """torch 2.13 leaves baddbmm(beta=0, alpha=0) in bfloat16 unwritten: memory that held NaN would show."""
    q, k, v = (draw(3, 4, n, 9, seed=n, dtype=dtype) for n in (5, 8, 8))
    for _ in range(8):
        junk = [torch.full((12, 5, 8), math.nan, dtype=dtype) for _ in range(8)]
        del junk
        weights = attention_weights(q, k, scale=0.0) if path == "explicit" else None
        assert weights is None or weights.eq(weights[..., :1]).all()
        assert attention(q, k, v, scale=0.0, path=path).isfinite().all()


def test_nothing_that_was_given_is_written_to():
    q, k, v = qkv(4, 4, G=4)
    bias, mask = draw(2, 4, 4, 4, seed=3), draw(2, 4, 4, 4, seed=4) > 0
    given = [q, k, v, bias, mask]
    before = [x.clone() for x in given]
    for softcap in (None, 2.0):
        attention(q, k, v, mask=mask, path="explicit", softcap=softcap)
        attention(q, k, v, bias=bias, path="explicit", softcap=softcap)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))


# Defects


def rows_of_first(q: Any, k: Any, v: Any, mask: Any, *others: Any, **kw: Any) -> Tensor:
    return paths.explicit(q, k, v, None if mask is None or mask.ndim < 4 else mask[:1], *others, **kw)


PLANTED = {
    "other group": (
        lambda q, k, v, *a, **kw: paths.explicit(q, k.flip(1), v.flip(1), *a, **kw),
        lambda: assert_neighbours_unseen("explicit", "float64"),
    ),
    "scaled twice": (
        lambda q, k, v, m, scale, *a, **kw: paths.explicit(q, k, v, m, scale * scale, *a, **kw),
        lambda: assert_neighbours_unseen("explicit", "float32"),
    ),
    "one part in 10^12": (
        lambda *a, **kw: paths.explicit(*a, **kw) * (1 + 2.0**-40),
        lambda: assert_neighbours_unseen("explicit", "float64"),
    ),
    "mask of the first row": (rows_of_first, lambda: assert_neighbours_unseen("explicit", "float64")),
    "no mask": (
        lambda q, k, v, _, *a, **kw: paths.explicit(q, k, v, None, *a, **kw),
        lambda: assert_no_leak("explicit", torch.float64, {"causal": True}),
    ),
    "a large negative number for -inf": (
        lambda q, k, v, m, *a, **kw: paths.explicit(q, k, v, torch.where(m, 0.0, -1e3).to(q.dtype), *a, **kw),
        lambda: assert_no_leak("explicit", torch.float32, {"causal": True}),
    ),
    "empty rows forgotten": (
        lambda *a, **_: paths.explicit(*a, complete=True),
        lambda: assert_empty_rows_are_zero("explicit", torch.float32),
    ),
    "empty rows to zero afterwards": (
        lambda *a, **_: paths.explicit(*a, complete=True).nan_to_num(),
        lambda: assert_empty_rows_are_zero("explicit", torch.float32),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_caught(monkeypatch, name):
    broken, check = PLANTED[name]
    check()
    monkeypatch.setattr(module, "explicit", broken)
    with pytest.raises(AssertionError):
        check()


# The rule and its page


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_paths", ROOT / "benchmarks" / "attention_paths.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_shows_the_measurements(benchmark):
    text = benchmark.PAGE.read_text()
    assert benchmark.page(text, json.loads(benchmark.FILE.read_text())) == text


def test_the_rule_picks_what_the_page_says(benchmark, monkeypatch):
    rows = json.loads(benchmark.FILE.read_text())["rows"]
    calls = list(benchmark.calls())
    assert [{name: row[name] for name in call._asdict()} for row, call in zip(rows, calls, strict=True)] == [
        call._asdict() for call in calls
    ]
    monkeypatch.setattr(paths, "FAST_HALF", False)  # as on the machine that was measured
    for row, call in zip(rows, calls, strict=True):
        assert benchmark.Ready(call, "cpu").rule() == row["rule"], call
        faster = row["explicit"][0] if row["rule"] == "explicit" else 1 / row["explicit"][0]
        assert faster > 0.5, f"the rule picks what takes twice as long: {call}"


def test_a_benchmark_row(benchmark):
    for call in (
        benchmark.Call("padded", "float32", True, 3, 4, padded=True),
        benchmark.Call("", "bfloat16", False, 2, 2, True),
    ):
        row = benchmark.measured(call, "cpu", 0.0)
        assert row["rounds"] == 3
        assert len(row["explicit"]) == 3


@pytest.mark.parametrize(
    ("dtype", "T", "S", "options", "amx", "picked"),
    [
        ("bfloat16", 512, 512, {"gradients": True}, True, "explicit"),
        ("bfloat16", 512, 513, {"gradients": True}, True, "sdpa"),
        ("bfloat16", 256, 256, {}, False, "explicit"),
        ("bfloat16", 256, 257, {}, False, "sdpa"),
        ("bfloat16", 256, 256, {}, True, "sdpa"),
        ("bfloat16", 1, 256, {}, True, "explicit"),
        ("bfloat16", 1, 255, {}, True, "sdpa"),
        ("float32", 64, 64, {"gradients": True}, False, "sdpa"),
        ("float16", 64, 64, {"gradients": True}, False, "sdpa"),
        ("float32", 4, 4, {"softcap": 2.0}, False, "explicit"),
        ("float32", 4, 4, {"dropout": 0.1}, False, "explicit"),
        ("float32", 4, 4, {"E": 5}, False, "explicit"),
        ("float32", 4, 4, {"bias": True}, False, "explicit"),
    ],
)
def test_the_edges_of_the_rule(monkeypatch, dtype, T, S, options, amx, picked):
    monkeypatch.setattr(paths, "FAST_HALF", amx)
    of = {"dtype": getattr(torch, dtype), "requires_grad": options.get("gradients", False)}
    q, k, v = torch.empty(2, 4, T, 8, **of), torch.empty(2, 2, S, 8, **of), torch.empty(2, 2, S, options.get("E", 8), **of)
    bias = torch.zeros(T, S, requires_grad=True) if "bias" in options else None
    asked = (bias, options.get("softcap"), options.get("dropout", 0.0))
    assert paths.chosen_path(q, k, v, *asked) == picked
    elsewhere = [x.detach().to("meta") for x in (q, k, v)]
    assert paths.chosen_path(*elsewhere, *asked) == ("explicit" if "softcap" in options else "sdpa")
    with torch.no_grad():
        assert bias is None or paths.chosen_path(q, k, v, bias) == "sdpa"
        assert T != 512 or paths.chosen_path(q, k, v) == "sdpa"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "fast"}, "path=fast: it is one of sdpa, explicit, flex, None; choose one"),
        ({"dropout": 1.0}, "dropout=1.0: it is a share of weights below one; use 0.1, or 0.0 for none"),
        ({"dropout": math.nan}, "dropout=nan: it is a share of weights below one; use 0.1, or 0.0 for none"),
        ({"path": "sdpa", "softcap": 2.0}, "path=sdpa, softcap=2.0: SDPA has no place for a cap; use path=None or explicit"),
        (
            {"path": "flex", "dropout": 0.1},
            "path=flex, dropout=0.1: flex attention drops no weights; use path=None or explicit",
        ),
        (
            {"path": "flex"},
            "path=flex, device=cpu, dtype=torch.float64: flex attention is compiled for CUDA in up to 32 bits; use path=None "
            "or explicit",
        ),
    ],
)
def test_refusals(options, message):
    raises(message, attention, *qkv(2, 2), **options)


# Dropout


def dropped(path: str, seed: int, gradients: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Weights read off by one-hot values: as they are, and with a half dropped; and the values."""
    q, k = draw(2, 4, 32, 3), draw(2, 2, 64, 3, seed=1)
    v = torch.eye(64, dtype=torch.float64).expand(2, 2, 64, 64).clone().requires_grad_(gradients)
    torch.manual_seed(100 + seed)
    return attention(q, k, v, path=path), attention(q, k, v, path=path, dropout=0.5), v


def assert_half_is_dropped(weights: Tensor, kept: Tensor) -> None:
    """Of n fair coins n/2 fall on one side, to 6 standard deviations of sqrt(n)/2; the sum of 2 w · coin has the variance
    sum w^2. The generator is seeded, so that this holds always or never."""
    n = weights.numel()
    assert abs(int((kept == 0).sum()) - n / 2) < 6 * math.sqrt(n) / 2
    assert abs(float((kept - weights).detach().sum())) < 6 * float(weights.square().sum()) ** 0.5


@pytest.mark.parametrize("path", ON_CPU)
def test_dropout_drops_its_share_and_keeps_the_mean(path):
    weights, kept, _ = dropped(path, 0)
    assert_half_is_dropped(weights, kept)
    assert not torch.equal(kept, dropped(path, 1)[1])
    assert torch.equal(kept, dropped(path, 0)[1])


def test_dropped_weights_are_zero_or_doubled():
    weights, kept, v = dropped("explicit", 0, gradients=True)
    assert torch.equal(kept, torch.where(kept == 0, 0.0, 2 * weights))
    (dv,) = torch.autograd.grad(kept[:, :, :1].sum(), [v])  # the first query alone, in both heads of a group
    assert torch.equal(dv[..., 0], kept[:, :, 0].unflatten(1, (2, 2)).sum(dim=2))


def test_dropout_that_does_not_rescale_is_caught(monkeypatch):
    monkeypatch.setattr(functional, "dropout", lambda x, p: x * (torch.rand_like(x) >= p))
    weights, kept, _ = dropped("explicit", 0)
    with pytest.raises(AssertionError):
        assert_half_is_dropped(weights, kept)


def layer_config(**options: Any) -> TransformerConfig:
    return TransformerConfig(vocab_size=3, width=64, heads=4, hidden=64, bias=False, **options)


def test_feed_forward_drops_after_the_activation():
    layer = FeedForward(layer_config(activation_dropout=0.5))
    for map_ in (layer.up, layer.down):
        torch.nn.init.eye_(map_.weight)
    x = draw(50, 64, dtype=torch.float32).abs()
    torch.manual_seed(100)  # of seed 0, which made x, the coins would be correlated with x
    out = layer(x)
    assert torch.equal(out, torch.where(out == 0, 0.0, 2 * x))
    assert_half_is_dropped(x, out)
    assert not torch.equal(layer(x), out)
    assert torch.equal(layer.eval()(x), x)


def test_attention_layers_drop_in_training_only():
    torch.manual_seed(0)
    layer, x = SelfAttention(layer_config(attention_dropout=0.5)), draw(2, 5, 64, dtype=torch.float32)
    plain = SelfAttention(layer_config())
    plain.load_state_dict(layer.state_dict())
    assert not torch.equal(layer(x, Sight(), None), layer(x, Sight(), None))
    assert torch.equal(layer.eval()(x, Sight(), None), plain(x, Sight(), None))


def test_models_drop_in_training_only():
    tokens = torch.tensor([[1, 2, 3, 4]])
    net, plain = small(attention_dropout=0.3, activation_dropout=0.3), small()
    assert torch.equal(net(None, tokens), plain(None, tokens))
    net.train()
    out = net(None, tokens)
    assert not torch.equal(out, net(None, tokens))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_weights_of_an_empty_row_are_zero():
    q, k, _ = qkv(3, 4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    weights = attention_weights(q, k, mask=mask)
    assert not weights[:, :, 1].any()
    assert (weights[:, :, 0] > 0).all()
