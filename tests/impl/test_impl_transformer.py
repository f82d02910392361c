"""impl.transformer is reference.transformer: every drawn configuration, outputs and gradients, names and weights."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from attnspec.impl import embedding, layers, positions
from attnspec.impl import transformer as impl_transformer
from attnspec.impl.config import TransformerConfig
from attnspec.impl.layers import recorded_weights
from attnspec.impl.transformer import Transformer
from attnspec.reference.attention import attention_weights
from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.multi_head import project_heads
from attnspec.reference.parameters import part
from attnspec.reference.transformer import transformer
from attnspec.reference.transformer_backward import transformer_backward
from tests.authorities.agreement import agrees
from tests.authorities.torch_transformers import projected
from tests.impl.impl_models import always, built, gradients, logits, masks, model_of, small
from tests.reference.drawn_models import Model, models


def arguments(model: Model) -> tuple:
    return model.source, model.target, model.parameters


def tame(model: Model, size: float) -> Model:
    """The model with eps = 0.3 and matrices of another size, whose bounds are sharp.

    A small eps lets a norm of channels that are nearly alike multiply errors without limit.
    """
    smaller = {name: array * size if array.ndim == 2 else array for name, array in model.parameters.items()}
    return model._replace(parameters=smaller, options=model.options | {"eps": 0.3})


@always(models())
def test_logits_are_those_of_the_reference(model):
    agrees(logits(built(model), model).detach().numpy(), transformer, *arguments(model), **model.arguments)


@always(models())
def test_logits_in_float32(model):
    model = tame(model, 0.25)
    got = logits(built(model, torch.float32), model).detach().numpy()
    agrees(got, transformer, *arguments(model), unit="float32", **model.arguments)


@always(models(smooth=True), st.integers(0, 2**32 - 1), max_examples=40)
def test_gradients_are_those_of_the_reference(model, seed):
    model = tame(model, 0.5)
    net = built(model)
    out = logits(net, model)
    cotangent = np.random.default_rng(seed).normal(size=out.shape)
    out.backward(torch.tensor(cotangent))
    agrees(*projected(gradients(net), transformer_backward), *arguments(model), cotangent, **model.arguments)


@always(models())
def test_names_and_weights_go_both_ways(model):
    state = built(model).state_dict()
    assert set(state) == set(model.parameters)
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(state[name].numpy(), array)


IDS, LONGER = torch.arange(12).view(2, 6) % 11, torch.arange(14).view(2, 7) % 11
OPTIONS: list[dict[str, Any]] = [
    {}, {"positions": "rotary", "window": 2, "kv_heads": 2}, {"positions": "alibi", "kv_heads": 1, "order": "pre"},
    {"positions": "learned", "softcap": 2.0, "norm": "rms", "gated": True}, {"positions": None, "norm": "rms"},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS)
def test_later_words_change_no_bit(options, dtype):
    net = small(**options).to(dtype)
    ids = IDS.clone()
    ids[:, 4:] = (ids[:, 4:] + 3) % 11
    want, got = net.logits(IDS), net.logits(ids)
    assert torch.equal(got[:, :4], want[:, :4])
    assert not torch.equal(got[:, 4:], want[:, 4:])


@pytest.mark.parametrize("layers", [{}, {"encoder_layers": 2}, {"encoder_layers": 2, "decoder_layers": 0}])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_padding_holds_changes_no_bit(options, layers):
    if layers.get("decoder_layers") == 0:
        torch.manual_seed(0)
        sizes = {"vocab_size": 11, "width": 8, "heads": 4, "hidden": 12, "tied": False}
        net: Any = Transformer(TransformerConfig(**sizes | options | layers)).double()
    else:
        net = small(**options, **layers)
    real = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1]])
    other = torch.where(real == 0, (IDS + 5) % 11, IDS)

    def read(ids: Tensor) -> Tensor:
        source, target = ids if "encoder_layers" in layers else None, ids if layers.get("decoder_layers") != 0 else None
        return net(source, target, None if source is None else real, None if target is None else real)

    assert torch.equal(read(other)[real == 1], read(IDS)[real == 1])


@pytest.mark.parametrize("options", OPTIONS)
def test_masks_of_any_kind(options):
    """An encoder that is shown what a decoder sees is the decoder: through the mask, and through padding as well."""
    net = small(**options)
    model = model_of(net, target=IDS.numpy(), masks={"target_mask": np.array([[True] * 6, [False, *[True] * 5]])})
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "width": 8, "heads": 4, "hidden": 12, "tied": False, "max_length": 12}
    alone = Transformer(TransformerConfig(**sizes | options | {"encoder_layers": 2, "decoder_layers": 0})).double()
    swapped = {"target": "source", "decoder": "encoder", "output": "output"}
    renamed = {swapped[name.split(".")[0]] + name[name.index(".") :]: one for name, one in net.state_dict().items()}
    alone.load_state_dict(renamed)
    past = torch.ones(6, 6).tril() > 0
    for chosen in ({}, masks(model)):
        got = alone(IDS, None, chosen.get("target_mask"), encoder_mask=past).detach().numpy()
        of_target = {name: one.numpy() for name, one in chosen.items()}
        agrees(got, transformer, None, model.target, model.parameters, **of_target, **model.options)


def test_attention_weights():
    net = small(encoder_layers=1, kv_heads=2, positions="alibi")
    real = torch.tensor([[True] * 6, [False, False, *[True] * 4]])
    with recorded_weights(net) as weights:
        net.logits(IDS, LONGER, real)
        assert {name: [tuple(one.shape) for one in each] for name, each in weights.items()} == {
            "encoder.0.attention": [(2, 4, 6, 6)],
            "decoder.0.attention": [(2, 4, 7, 7)],
            "decoder.0.cross": [(2, 4, 7, 6)],
            "decoder.1.attention": [(2, 4, 7, 7)],
            "decoder.1.cross": [(2, 4, 7, 6)],
        }
        assert not weights["decoder.1.cross"][0][1, :, :, :2].any()
    net.logits(IDS, LONGER)
    assert all(len(each) == 1 for each in weights.values())
    plain = small(positions=None)
    with recorded_weights(plain) as weights:
        plain.logits(IDS)
    parameters = model_of(plain).parameters
    agrees(weights["decoder.0.attention"][0].detach().numpy(), first_weights, IDS.numpy(), parameters)


def first_weights(ids: Any, parameters: Any) -> Any:
    x = embed_tokens(ids, np.zeros_like(ids), part(parameters, "target"), positions=None)
    p = part(parameters, "decoder.0.attention")
    return attention_weights(project_heads(x, p, "q", 4), project_heads(x, p, "k", 4), causal="bottom-right")


def no_turn(x: Tensor, turn: Any) -> Tensor:
    return x


def all_slots(real: Tensor) -> Tensor:
    return torch.arange(real.shape[1]).expand(real.shape)


DEFECTS: list[tuple[Any, str, Any, dict[str, Any]]] = [
    (layers, "rotate", no_turn, {"positions": "rotary"}),
    (positions, "alibi_slopes", lambda H: [2.0**-h for h in range(H)], {"positions": "alibi"}),
    (positions, "token_positions", all_slots, {"positions": "alibi", "window": 2}),
    (impl_transformer, "token_positions", all_slots, {}),
    (embedding, "sinusoidal", lambda places, M: positions.sinusoidal(places + 1, M), {}),
    (layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["gelu_tanh"], {"activation": "gelu"}),
    (torch.nn.LayerNorm, "forward", lambda self, x: x * self.weight + self.bias, {}),
    (layers.Stack, "memories", lambda self, *args: MEMORIES(self, *args)[::-1], {"encoder_layers": 1}),
    (impl_transformer, "_sight_of_memory", lambda *_: positions.Sight(), {"encoder_layers": 1}),
]
MEMORIES = layers.Stack.memories


@pytest.mark.parametrize(("where", "name", "wrong", "options"), DEFECTS)
def test_defects_are_noticed(monkeypatch, where, name, wrong, options):
    real = np.array([[True] * 6, [False, True, True, False, True, True]])
    source = {"source": IDS.numpy()} if "encoder_layers" in options else {}
    kept = {f"{side}_mask": real for side in (*source, "target")}

    def check() -> None:
        model = model_of(small(**options), target=IDS.numpy(), **source, masks=kept)
        net = small(**options)
        agrees(logits(net, model).detach().numpy(), transformer, *arguments(model), **model.arguments)

    check()
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, name, wrong)
    with pytest.raises(AssertionError, match="error"):
        check()


def test_dropout_is_for_training_only():
    net = small(dropout=0.5)
    assert torch.equal(net.logits(IDS), net.logits(IDS))
    net.train()
    assert not torch.equal(net.logits(IDS), net.logits(IDS))


@pytest.mark.parametrize("options", OPTIONS)
def test_autocast(options):
    net = small(**options, encoder_layers=1).float()
    real = torch.tensor([[True] * 6, [False, False, *[True] * 4]])
    with torch.autocast("cpu", torch.bfloat16):
        out = net.logits(IDS, LONGER, real)
        state = net.start(net.encode(IDS, real), real)
        step, _ = net.extend(LONGER, state)
    assert out.dtype == step.dtype == torch.bfloat16
    assert out.isfinite().all()


@pytest.mark.parametrize("sizes", [(2, 0), (0, 3)])
def test_nothing_to_read(sizes):
    assert small().logits(torch.zeros(sizes, dtype=torch.long)).shape == (*sizes, 11)


def test_loading_reports_each_map_by_its_own_name():
    net, twin = small(), small()
    state = net.state_dict()
    for wrong, message in (
        ({"decoder.0.attention.k.weight": None}, 'Missing key(s) in state_dict: "decoder.0.attention.k.weight". '),
        (
            {"decoder.1.attention.v.bias": torch.zeros(3)},
            "size mismatch for decoder.1.attention.v.bias: [3] given, [8] in the model",
        ),
        (
            {"decoder.0.attention.r.weight": torch.zeros(1)},
            'Unexpected key(s) in state_dict: "decoder.0.attention.r.weight". ',
        ),
    ):
        bad = {name: one for name, one in (state | wrong).items() if one is not None}
        with pytest.raises(RuntimeError) as caught:
            net.load_state_dict(bad)
        assert str(caught.value) == f"Error(s) in loading state_dict for CausalLM:\n\t{message}"
    part = {"decoder.0.attention.v.weight": torch.zeros(8, 8)}
    assert len(twin.load_state_dict(part, strict=False).missing_keys) == len(state) - 1
    assert not twin.decoder.get_submodule("0").attention.qkv.weight[16:].any()
    assert torch.equal(twin.state_dict()["decoder.0.attention.k.weight"], state["decoder.0.attention.k.weight"])


def raises(message: str, call: Any, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


def test_call_errors():
    net, both = small(), small(encoder_layers=1)
    rule = "ids are whole numbers [B,T]; add an axis, or take the argmax"
    raises(f"target=[6], dtype=torch.int64: {rule}", net.logits, IDS[0])
    raises(f"target=[2, 6], dtype=torch.float32: {rule}", net.logits, IDS.float())
    rule = "a mask has an entry for each token, True or 1 where it is real; pass ids != padding_id"
    raises(f"target_mask=[2, 5], dtype=torch.bool, target=[2, 6]: {rule}", net.logits, IDS, IDS[:, 1:] > 0)
    raises(f"target_mask=[2, 6], dtype=torch.float32, target=[2, 6]: {rule}", net.logits, IDS, IDS.float())
    raises(
        f"source_mask=[1, 2], dtype=torch.bool, source=[1, 3, 8]: {rule}", both.start, torch.ones(1, 3, 8), IDS[:1, :2] > 0
    )
    raises("memory=[3, 8]: a memory is [B,S,M]; pass what encode gives", both.start, torch.ones(3, 8))
    rule = "a model with source layers reads a source, one without does not; pass ids, or None"
    raises(f"source=None, layers=1: {rule}", both, None, IDS)
    raises(f"source=[2, 6], layers=0: {rule}", net, IDS, IDS)
    rule = "a sequence has at most max_length real tokens; shorten it, or build a longer model"
    long = torch.zeros(1, 13, dtype=torch.long)
    raises(f"target=13, max_length=12: {rule}", net.logits, long)
    assert net.logits(long, torch.arange(13)[None] > 0).shape == (1, 13, 11)
