"""impl/ in bfloat16 stays within the derived bound, part by part, and the bound is narrow enough to reject wrong formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnspec.impl import layers
from attnspec.impl.attention import attention
from attnspec.impl.config import TransformerConfig
from attnspec.impl.positions import rotate, turn_by
from attnspec.impl.transformer import CausalLM
from attnspec.reference import attention as reference
from attnspec.reference import rotary_position
from attnspec.reference.activation import activate
from attnspec.reference.feed_forward import feed_forward
from attnspec.reference.layer_norm import layer_norm
from attnspec.reference.linear import linear
from attnspec.reference.rms_norm import rms_norm
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import agrees, carried, compare
from tests.impl.impl_models import always, built, logits, model_of
from tests.reference.drawn_models import Model, models

seeds = st.integers(0, 2**32 - 1)


def stored(*arrays: np.ndarray) -> list[Tensor]:
    """The numbers in bfloat16."""
    return [torch.tensor(one).bfloat16() for one in arrays]


def as_given(*tensors: Tensor) -> list[np.ndarray]:
    return [one.detach().double().numpy() for one in tensors]


def holds(got: Tensor, function: Any, *args: Any, **options: Any) -> None:
    assert got.dtype == torch.bfloat16
    agrees(as_given(got)[0], function, *args, unit="bfloat16", **options)


@pytest.mark.parametrize("kernel", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
@pytest.mark.parametrize("softcap", [None, 5.0])
@always(seeds, st.sampled_from([(1, 5), (4, 4), (3, 9)]), st.sampled_from([None, "causal", "mask", "bias"]), max_examples=30)
def test_attention(kernel, softcap, seed, sizes, hides):
    rng, (T, S) = np.random.default_rng(seed), sizes
    q, k, v = stored(*(rng.normal(size=size) for size in ((2, 4, T, 3), (2, 2, S, 3), (2, 2, S, 3))))
    options: dict[str, Any] = {"softcap": softcap}
    if hides == "causal":
        options["causal"] = True
    elif hides is not None:
        visible = rng.random((2, 1, T, S)) < 0.7
        bias = as_given(*stored(rng.normal(size=S)))[0]
        options[hides] = visible if hides == "mask" else np.where(visible, bias, -np.inf)
    given = {name: torch.tensor(one) if isinstance(one, np.ndarray) else one for name, one in options.items()}
    with sdpa_kernel([kernel]):
        got = attention(q, k, v, **given)
    options |= {"causal": "bottom-right"} if hides == "causal" else {}
    holds(got, reference.attention, *as_given(q, k, v), **options)


@always(seeds, st.sampled_from(["layer", "rms"]), st.sampled_from([1e-5, 0.5]), st.sampled_from([2, 9, 64]))
def test_norms(seed, norm, eps, M):
    rng = np.random.default_rng(seed)
    module = layers.norm_of(TransformerConfig(vocab_size=5, width=M, heads=1, norm=norm, eps=eps, positions=None))
    with torch.no_grad():
        for one in module.parameters():
            one.copy_(torch.tensor(1 + 0.3 * rng.normal(size=M)))
    module.bfloat16()
    x = stored(rng.normal(size=(3, M)) + 1)[0]
    parameters = {name: as_given(one)[0] for name, one in module.named_parameters()}
    holds(module(x), layer_norm if norm == "layer" else rms_norm, as_given(x)[0], parameters, eps)


@always(seeds, st.sampled_from(list(layers.ACTIVATIONS)), max_examples=40)
def test_activations(seed, activation):
    x = stored(3 * np.random.default_rng(seed).normal(size=12))[0]
    holds(layers.ACTIVATIONS[activation](x), activate, as_given(x)[0], activation)


@always(seeds, st.sampled_from([1, 7, 300]), st.booleans())
def test_products(seed, n, biased):
    """The partial sums of 300 products are not stored: eight bits would be lost."""
    rng = np.random.default_rng(seed)
    x, weight, bias = stored(rng.normal(size=(3, n)), rng.normal(size=(5, n)), rng.normal(size=5))
    got = torch.nn.functional.linear(x, weight, bias if biased else None)
    parameters = {"weight": weight} | ({"bias": bias} if biased else {})
    holds(got, linear, as_given(x)[0], {name: as_given(one)[0] for name, one in parameters.items()})


def test_stored_partial_sums_are_rejected():
    x = stored(np.random.default_rng(0).uniform(0.5, 1, size=(1, 300)))[0]
    total = torch.zeros(1, 1, dtype=torch.bfloat16)
    for i in range(300):
        total = total + x[:, i : i + 1]
    with pytest.raises(AssertionError, match="error"):
        holds(total, linear, as_given(x)[0], {"weight": np.ones((1, 300))})


@always(seeds, st.sampled_from(["half", "interleaved"]), st.sampled_from([None, 2]), st.integers(0, 200))
def test_rotary_positions(seed, pairs, width, first):
    """Angles are not stored: in bfloat16 position 200 and its neighbours would be one."""
    options = {"positions": "rotary", "rotary_pairs": pairs, "rotary_width": width}
    config = TransformerConfig(vocab_size=5, width=8, heads=2, **options)
    x = stored(np.random.default_rng(seed).normal(size=(2, 2, 3, 4)))[0]
    places = torch.arange(first, first + 3)
    got = rotate(x, turn_by(places, config, torch.bfloat16))
    holds(got, rotary_position.rotate, as_given(x)[0], places.numpy(), pairs=pairs, width=width)


def test_stored_angles_are_rejected():
    config = TransformerConfig(vocab_size=5, width=4, heads=1, positions="rotary")
    x, places = stored(np.ones((1, 1, 1, 4)))[0], torch.tensor([201])
    turn = turn_by(places, config, torch.bfloat16)
    angle = torch.tensor([201.0, 2.01]).bfloat16()
    arguments = rotary_position.rotate, as_given(x)[0], places.numpy()
    holds(rotate(x, turn), *arguments)
    wrong = rotate(x, turn._replace(cos=angle.cos(), sin=angle.sin()))
    with pytest.raises(AssertionError, match="error"):
        holds(wrong, *arguments)


@always(seeds, st.sampled_from(list(layers.ACTIVATIONS)), st.booleans())
def test_feed_forward(seed, activation, gated):
    torch.manual_seed(seed)
    config = TransformerConfig(vocab_size=5, width=6, heads=1, hidden=7, activation=activation, gated=gated)
    module = layers.FeedForward(config).bfloat16()
    x = stored(np.random.default_rng(seed).normal(size=(2, 3, 6)))[0]
    parameters = {name: as_given(one)[0] for name, one in module.state_dict().items()}
    holds(module(x), feed_forward, as_given(x)[0], parameters, activation)


# Which wrong formulas are seen in bfloat16, in models that are as small and as tame as those of the covering array.
IDS = np.array([[3, 1, 4, 2, 6]])


def small_model(sizes_of: tuple[float, float] = (1.5, 0.7), **options: Any) -> Any:
    """A language model whose attention matters: scores of order one, and values that differ; or its feed-forward layer does.

    sizes_of: of the entries in the matrices of attention, and of feed_forward.up.
    """
    torch.manual_seed(1)
    sizes = {"vocab_size": 11, "encoder_layers": 0, "decoder_layers": 1, "width": 8, "heads": 2, "hidden": 7}
    net = CausalLM(TransformerConfig(**{**sizes, "max_length": 12, "tied": False, "eps": 1.0, "order": "pre"} | options))
    with torch.no_grad():
        for name, one in net.named_parameters():
            if one.ndim == 2:
                size = sizes_of[0] if "attention" in name else sizes_of[1] if "up" in name else 0.7
                one.normal_(std=size * one.shape[1] ** -0.5)
            one.copy_(one.bfloat16())
    return net.double().eval()


def with_attention(change: Any) -> Any:
    return lambda patch, _: patch.setattr(layers, "attention", lambda q, k, v, **options: change(q, k, v, options))


def mean_of_values(q: Tensor, k: Tensor, v: Tensor, options: Any) -> Tensor:
    return v.mean(dim=2, keepdim=True).expand(q.shape)


def next_key(q: Tensor, k: Tensor, v: Tensor, options: Any) -> Tensor:
    return attention(q, k, v, mask=torch.ones(q.shape[2], k.shape[2]).tril(1) > 0)


def root_mean_square(self: Any, x: Tensor) -> Tensor:
    return x * x.float().square().mean(dim=-1, keepdim=True).rsqrt().to(x.dtype) * self.weight


def of_activation(name: str) -> Any:
    return lambda _, net: setattr(net.decoder.get_submodule("0").feed_forward, "activation", layers.ACTIVATIONS[name])


def stored_positions(_: Any, net: Any) -> None:
    net.config.__dict__["rotary_base"] = float(torch.tensor(net.config.rotary_base).bfloat16())


def without(patch: pytest.MonkeyPatch, _: Any) -> None:
    patch.setattr(torch.nn.RMSNorm, "forward", root_mean_square)


def given(**wrong: Any) -> Any:
    """Attention with other options."""
    return with_attention(lambda q, k, v, options: attention(q, k, v, **options | wrong))


DEFECTS: dict[str, tuple[dict[str, Any], Any]] = {
    "zeros": ({}, with_attention(lambda q, *_: torch.zeros_like(q))),
    "the mean of the values": ({}, with_attention(mean_of_values)),
    "no scale": ({}, given(scale=1.0)),
    "the next key is seen": ({}, with_attention(next_key)),
    "no eps": ({"norm": "rms", "eps": 1.0}, without),
    "silu for gelu": ({"activation": "gelu", "sizes_of": (0.5, 2.0)}, of_activation("silu")),
    "gelu for relu": ({"activation": "relu"}, of_activation("gelu")),
    "no soft cap": ({"softcap": 0.5}, given(softcap=None)),
}
# These differ by less than bfloat16 can say: float64 sees them.
UNSEEN: dict[str, tuple[dict[str, Any], Any]] = {
    "gelu for gelu_tanh": ({"activation": "gelu_tanh"}, of_activation("gelu")),
    "an eps of 1e-5 left out": ({"norm": "rms", "eps": 1e-5, "sizes_of": (0.7, 0.7)}, without),
    "rotary base of eight bits": ({"positions": "rotary"}, stored_positions),
}


def compared(options: dict[str, Any], unit: str) -> tuple[Model, Any, Any]:
    """A small model, impl's, and what the reference says."""
    model = model_of(small_model(**options), target=IDS)
    want = carried(transformer, None, IDS, model.parameters, unit=unit, **model.arguments)
    return model, built(model, getattr(torch, unit), max_length=12), want


def check(model: Model, net: Any, want: Any, unit: str) -> None:
    compare(logits(net, model).detach().double().numpy(), want, unit, "logits")


@pytest.mark.parametrize("name", DEFECTS)
def test_the_bound_rejects(monkeypatch, name):
    options, plant = DEFECTS[name]
    model, net, want = compared(options, "bfloat16")
    check(model, net, want, "bfloat16")
    plant(monkeypatch, net)
    with pytest.raises(AssertionError, match="error"):
        check(model, net, want, "bfloat16")


@pytest.mark.parametrize("name", UNSEEN)
def test_what_only_longer_formats_see(monkeypatch, name):
    options, plant = UNSEEN[name]
    short, long = compared(options, "bfloat16"), compared(options, "float64")
    check(*long, "float64")
    for _, net, _ in (short, long):
        plant(monkeypatch, net)
    check(*short, "bfloat16")
    with pytest.raises(AssertionError, match="error"):
        check(*long, "float64")


@always(models(), max_examples=30)
def test_drawn_models(model):
    """Any configuration; with norms that do not multiply errors, and weights that do not either."""
    parameters = {name: one * 0.3 if one.ndim == 2 else one for name, one in model.parameters.items()}
    parameters = {name: as_given(*stored(one))[0] for name, one in parameters.items()}
    model = model._replace(parameters=parameters, options=model.options | {"eps": 1.0})
    got = logits(built(model, torch.bfloat16), model)
    holds(got, transformer, model.source, model.target, model.parameters, **model.arguments)
