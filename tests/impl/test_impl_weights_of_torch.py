"""impl.weights: nn.Transformer and nn.TransformerEncoder keep their results, with torch's fast path and without."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import Phase
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from attnspec.impl import torch_modules, weights
from attnspec.impl.positions import sinusoidal
from attnspec.impl.weight_names import TORCH
from attnspec.impl.weights import from_torch
from attnspec.reference.token_position import token_positions
from attnspec.reference.transformer import transformer
from tests.authorities.agreement import Draw
from tests.authorities.hugging_face import Case
from tests.authorities.torch_transformers import causal, layer_options, randomised, real_tokens, sizes
from tests.impl.impl_models import always

# torch says which modules have no fast path, and that its nested tensors may change.
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:The PyTorch API of nested tensors")
V = 11
FAST = [functional.relu, functional.gelu]  # its fast path would take nn.GELU("tanh") for the exact one
FUNCTIONS = [*FAST, functional.silu]
MODULES = [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU()]  # decoder layers of torch take them all for ReLU
OPTIONS = ("order", "eps", "activation", "positions", "scale_embeddings", "heads")


class Around:
    """A module of torch, what stands around it, and the model of impl/ with the weights of both."""

    def __init__(self, draw: Draw, kind: str, dtype: torch.dtype = torch.float64, fast: bool = False) -> None:
        self.B, T, S, M, F, rng = sizes(draw)
        options, _ = layer_options(draw)
        activations = FAST if fast else FUNCTIONS if kind == "both" else FUNCTIONS + MODULES
        options |= {"activation": draw(st.sampled_from(activations)), "dtype": dtype}
        options |= {"nhead": 2, "bias": True} if fast else {"bias": draw(st.booleans())}  # an odd number would be slow
        self.module = randomised(self._module(kind, M, F, options, draw), rng)
        self.kind, self.positions = kind, draw(st.sampled_from(["sinusoidal", "learned", None]))
        self.scaled, self.dtype = draw(st.booleans()), dtype
        sides = {"both": ("source", "target"), "encoder": ("source",), "causal": ("target",)}[kind]
        own = kind == "both" and draw(st.booleans())  # a table for each side, or one for both
        names = {f"{side}.embedding.weight": (V, M) for side in (sides if own else sides[:1])}
        names |= {"output.weight": (V, M)} if draw(st.booleans()) else {}
        names |= {"output.bias": (V,)} if draw(st.booleans()) else {}
        names |= {f"{side}.position.weight": (7, M) for side in sides} if self.positions == "learned" else {}
        self.beside = {name: torch.tensor(rng.normal(size=size) / 2, dtype=dtype) for name, size in names.items()}
        how = {"positions": self.positions, "scale_embeddings": self.scaled, "max_length": 7}
        self.net = from_torch(self.module, self.beside, **how)
        self.source = self.target = self.source_mask = self.target_mask = None
        if "source" in sides:
            self.source, self.source_mask = rng.integers(0, V, size=(self.B, S)), real_tokens(draw, rng, self.B, S)
        if "target" in sides:
            self.target, self.target_mask = rng.integers(0, V, size=(self.B, T)), real_tokens(draw, rng, self.B, T)
        if fast and kind == "causal":  # a query that sees nothing, as before padding on the left, is NaN there, and spreads
            self.target_mask = np.sort(self.target_mask)[:, ::-1].copy()

    @staticmethod
    def _module(kind: str, M: int, F: int, options: dict[str, Any], draw: Draw) -> nn.Module:
        if kind == "both":
            return nn.Transformer(M, num_encoder_layers=2, num_decoder_layers=1, dim_feedforward=F, **options)
        norm = nn.LayerNorm(M, options["layer_norm_eps"], dtype=options["dtype"]) if draw(st.booleans()) else None
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(M, dim_feedforward=F, **options), 2, norm)

    def embedded(self, side: str, ids: np.ndarray, real: np.ndarray) -> torch.Tensor:
        table = self.beside.get(f"{side}.embedding.weight", self.beside.get("source.embedding.weight"))
        x = table[torch.tensor(ids)] * (math.sqrt(table.shape[1]) if self.scaled else 1.0)
        places = torch.tensor(token_positions(real))
        if self.positions == "sinusoidal":
            x = x + sinusoidal(places, x.shape[2]).to(x.dtype)
        return x + self.beside[f"{side}.position.weight"][places] if self.positions == "learned" else x

    @property
    def their_logits(self) -> torch.Tensor:
        """True hides in torch's masks."""
        if self.kind != "both":
            side, ids, real = ("source", self.source, self.source_mask)
            if self.kind == "causal":
                side, ids, real = ("target", self.target, self.target_mask)
            ahead = causal(ids.shape[1]) if self.kind == "causal" else None
            state = self.module(self.embedded(side, ids, real), ahead, torch.tensor(~real))
        else:
            side, hidden = "target", torch.tensor(~self.source_mask)
            x, y = self.embedded("source", self.source, self.source_mask), self.embedded(side, self.target, self.target_mask)
            masks = {"src_key_padding_mask": hidden, "memory_key_padding_mask": hidden}
            masks |= {"tgt_mask": causal(y.shape[1]), "tgt_key_padding_mask": torch.tensor(~self.target_mask)}
            state = self.module(x, y, **masks)
        table = self.beside.get(f"{side}.embedding.weight", self.beside.get("source.embedding.weight"))
        return functional.linear(state, self.beside.get("output.weight", table), self.beside.get("output.bias"))

    @property
    def our_logits(self) -> torch.Tensor:
        both = (self.source, self.target, self.source_mask, self.target_mask)
        return self.net(*(None if one is None else torch.tensor(one) for one in both))

    def check(self, logits: torch.Tensor) -> None:
        """The logits are those of the reference with the options and the flat names of the model of impl/."""
        options = {name: getattr(self.net.config, name) for name in OPTIONS}
        real = self.source_mask if self.target is None else self.target_mask
        masks = {f"{side}_mask": getattr(self, f"{side}_mask") for side in ("source", "target")}
        masks = {name: mask for name, mask in masks.items() if mask is not None}
        p = {name: x.double().numpy() for name, x in self.net.state_dict().items()}
        unit = str(self.dtype).removeprefix("torch.")
        Case(logits, real, self.source, self.target, p, options | masks, transformer, unit).check()


@contextmanager
def fast_path(on: bool) -> Iterator[mock.Mock]:
    """torch.nn's own switch, and a count of the calls that took it."""
    name = "_transformer_encoder_layer_fwd"
    torch.backends.mha.set_fastpath_enabled(on)
    try:
        with torch.no_grad(), mock.patch.object(torch, name, side_effect=getattr(torch, name)) as calls:
            yield calls
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("kind", ["both", "encoder", "causal"])
@always(st.data(), max_examples=8, phases=[Phase.generate])
def test_logits_are_theirs_and_those_of_the_reference(kind, data):
    with fast_path(False) as calls:
        both = Around(data.draw, kind)
        both.check(both.their_logits)
        both.check(both.our_logits)
    assert not calls.called


@pytest.mark.parametrize("kind", ["both", "encoder", "causal"])
@always(st.data(), max_examples=3, phases=[Phase.generate])
def test_logits_in_float32_on_the_fast_path(kind, data):
    with fast_path(True) as calls:
        both = Around(data.draw, kind, torch.float32, fast=True)
        both.check(both.their_logits)
        both.check(both.our_logits)
    assert calls.called


def replaced(**places: Any) -> Any:
    """TORCH with other places for the entries that end like this."""
    table = dict(TORCH)
    for word, place in places.items():
        found = [name for name in table if word in name]
        assert found
        table |= {name: place(table[name]) for name in found}
    return table


def with_swapped(x: str, y: str) -> Any:
    """A fused weight cut in another order."""
    return lambda cut: dataclasses.replace(cut, names=tuple(swap(name, x, y) for name in cut.names))


def swap(name: str, x: str, y: str) -> str:
    for old, new in ((f".{x}.", ".~."), (f".{y}.", f".{x}."), (".~.", f".{y}.")):
        name = name.replace(old, new)
    return name


DEFECTS: dict[str, Any] = {
    "keys are values": {"table": replaced(in_proj=with_swapped("k", "v"))},
    "queries are keys": {"table": replaced(in_proj=with_swapped("q", "k"))},
    "pre-norm and post-norm": {"order": {"pre": "post", "post": "pre"}},
    "the other activation": {"activation": {"relu": "gelu", "gelu": "relu"}},
    "another eps": {"eps": {0.1: 0.11, 0.3: 0.31}},
    "no last norm": {"last_norm": {True: False}},
    "one head more": {"heads": {1: 2, 2: 1}},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_wrong_reading_is_noticed(defect, monkeypatch):
    """By the bound, or because weights are left over."""
    changes = dict(DEFECTS[defect])
    monkeypatch.setattr(torch_modules, "TORCH", changes.pop("table", TORCH))

    def wrong(module: nn.Module) -> dict[str, Any]:
        right = torch_modules.options_of(module)
        return right | {name: other[right[name]] for name, other in changes.items()}

    monkeypatch.setattr(weights, "options_of", wrong)

    @always(st.data(), max_examples=2, phases=[Phase.generate])
    def run(data: Any) -> None:
        def checked() -> None:
            both = Around(data.draw, "both", fast=True)
            both.check(both.their_logits)

        with fast_path(False), pytest.raises((AssertionError, ValueError), match=r"> bound|surplus=\["):
            checked()

    run()


def encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 9, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def both_sides(**options: Any) -> nn.Transformer:
    return nn.Transformer(8, 2, 2, 2, 9, batch_first=True, **options).eval()


def changed(module: Any, name: str, value: Any) -> Any:
    """The module with another part."""
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, value)
    return module


class Own(nn.TransformerEncoderLayer):
    """A layer that may do anything."""


WORDS = torch.ones(V, 8)
SOURCE = {"source.embedding.weight": WORDS}
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: nn.Linear(8, 8), SOURCE, r"module=\['Linear'\]: weights are read of nn.Transformer and"),
    (lambda: both_sides(custom_encoder=nn.Identity()), SOURCE, r"module=\['Transformer', 'Identity', 'TransformerDec"),
    (lambda: nn.TransformerEncoder(Own(8, 2), 1), SOURCE, "layer=Own: a stack has layers of torch"),
    (lambda: encoder(activation=torch.tanh), SOURCE, "activation=.*: the activations are relu, gelu, silu"),
    # torch makes copies of a decoder layer whose activation is a module with ReLU instead
    (lambda: both_sides(activation=nn.GELU()), SOURCE, r"activation=\['gelu', 'gelu', 'relu', 'relu', .*alike"),
    (lambda: changed(encoder(), "layers.1.norm_first", True), SOURCE, r"order=\['post', 'pre'\]: .*alike"),
    (lambda: changed(encoder(), "layers.1.norm2.eps", 0.1), SOURCE, r"eps=\[1e-05, 0.1\]: the parts of a layer"),
    (lambda: changed(encoder(), "norm", nn.LayerNorm(8, 0.1)), SOURCE, r"eps=\[1e-05, 1e-05, 0.1\]: the layers and"),
    (lambda: changed(encoder(), "norm", nn.RMSNorm(8)), SOURCE, "norm=.*RMSNorm.*: behind the last layer"),
    (lambda: changed(both_sides(), "decoder.norm", None), SOURCE, "norm=.*None.*: behind the last layer"),
    (lambda: changed(encoder(), "layers", nn.ModuleList()), SOURCE, r"layers=\[0\]: a stack has layers"),
    (lambda: changed(encoder(), "layers.0.more", nn.Linear(1, 1)), SOURCE, r"surplus=\[encoder.layers.0.more.weight, "),
    (encoder, {}, r"beside=\[\]: a model reads words; pass source.embedding"),
    (both_sides, {"target.embedding.weight": WORDS}, r"beside=\[target.embedding.weight\]: a model reads words"),
    (both_sides, SOURCE | {"encoder.norm.weight": WORDS[0]}, r"beside=\[encoder.norm.weight\]: the module has these"),
    (both_sides, SOURCE | {"output.weigth": WORDS}, r"surplus=\[output.weigth\]"),
    (both_sides, SOURCE | {"output.weight": WORDS[:, 1:]}, r"misshapen=\[output.weight: .* \[11, 7\], want \[11, 8\]\]"),
    (both_sides, SOURCE | {"target.position.weight": WORDS}, r"missing=\[source.position.weight\]"),
    (both_sides, SOURCE | {"output.bias": WORDS[:, 0].double()}, "floating, of one dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "beside", "message"), REFUSED, ids=[message[:30] for _, _, message in REFUSED])
def test_what_cannot_be_expressed_is_refused(module, beside, message):
    with pytest.raises(ValueError, match=message):
        from_torch(module(), beside)


def test_positions_that_are_not_added_are_refused():
    with pytest.raises(ValueError, match=r"positions=rotary: nn\.Transformer knows of no positions"):
        from_torch(both_sides(), SOURCE, positions="rotary")


def test_shares_of_dropout_are_taken_over_and_weights_are_copied():
    module = both_sides(dropout=0.25)
    net = from_torch(module, SOURCE)
    config = net.config
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.25, 0.25, 0.25)
    assert not net.training
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with torch.no_grad():
        for x in module.parameters():
            x.zero_()
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
