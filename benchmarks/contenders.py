"""The contenders that need torch alone: this project, and torch.nn.Transformer written as tutorials write it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnspec.impl.config import TransformerConfig
from attnspec.impl.decoding import greedy
from attnspec.impl.master_weights import WorkingCopy
from attnspec.impl.positions import sinusoidal
from attnspec.impl.transformer import Seq2Seq
from attnspec.impl.weight_names import TORCH, their_name
from benchmarks.paper_model import END, START, State


class Contender:
    """A translator with the given weights, and what is measured of it. A measurement that is not in `does` is left out."""

    name: ClassVar[str]
    notes: ClassVar[dict[str, str]] = {}  # of a measurement's kind
    does: ClassVar[frozenset[str]] = frozenset({"decode", "encode", "train"})
    dtype: ClassVar[str] = "float32"  # in which it computes
    net: nn.Module

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """Scores the word after each token of the target: [B,T,V]."""
        raise NotImplementedError

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        """Reads a source: [B,S,M]."""
        raise NotImplementedError

    def decode(self, source: Tensor, new: int) -> Tensor:
        """Decodes greedily from START: [B,new]."""
        raise NotImplementedError

    def train(self, source: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward: the loss; gradients are left where the library leaves them. No optimiser."""
        self.net.train()
        for parameter in self.net.parameters():
            parameter.grad = None
        with self.precision():
            scores = self.logits(source, target)
        loss = functional.cross_entropy(
            scores.flatten(0, 1).to(torch.promote_types(scores.dtype, torch.float32)), labels.flatten()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def precision(self) -> AbstractContextManager[object]:
        """In what a training step computes."""
        return nullcontext()

    def evaluated(self) -> None:
        """Called before decoding and encoding."""
        self.net.eval()
        self.net.zero_grad(set_to_none=True)

    def source_gradient(self) -> Tensor:
        """The gradient of the source's embedding in our order of channels, after `train`: it has passed all layers."""
        raise NotImplementedError


class Ours(Contender):
    name = "attnspec"

    def __init__(self, config: TransformerConfig, state: State) -> None:
        self.net = Seq2Seq(config)
        self.net.load_state_dict(state)

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.net.logits(source, target)

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with torch.inference_mode():
            return self.net.encode(source, mask)

    def decode(self, source: Tensor, new: int) -> Tensor:
        net = self.net
        with torch.inference_mode():
            state = net.start(net.encode(source), capacity=new)
            return greedy(net, state, torch.full((len(source), 1), START, device=source.device), END, new).tokens

    def source_gradient(self) -> Tensor:
        return grad_of(self.net.source.embedding)


class OursInBfloat16(Ours):
    """Gradients arrive at the float32 weights, which are rounded to the working copy again: an optimiser alone is missing."""

    name = "attnspec, float32 masters"
    does = frozenset({"train"})
    dtype = "bfloat16"

    def __init__(self, config: TransformerConfig, state: State) -> None:
        super().__init__(config, state)
        self.working = WorkingCopy(self.net)
        self.masters, self.net = self.net, self.working.model

    def train(self, source: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        self.masters.zero_grad(set_to_none=True)
        loss = super().train(source, target, labels)
        self.working.refresh()
        return loss

    def evaluated(self) -> None:
        super().evaluated()
        self.masters.zero_grad(set_to_none=True)

    def source_gradient(self) -> Tensor:
        return grad_of(self.masters.source.embedding)


class TorchTransformer(Contender):
    """torch.nn.Transformer: embeddings and output as its tutorial has them, and no cache when decoding."""

    name = "nn.Transformer"
    notes: ClassVar[dict[str, str]] = {"decode": "no cache, as its tutorial does"}
    fast = False

    def __init__(self, config: TransformerConfig, state: State) -> None:
        M, heads, F = config.width, config.heads, config.hidden
        encoder = nn.TransformerEncoderLayer(M, heads, F, dropout=0.0, batch_first=True)
        decoder = nn.TransformerDecoderLayer(M, heads, F, dropout=0.0, batch_first=True)
        parts = {
            "encoder": nn.TransformerEncoder(encoder, config.encoder_layers, enable_nested_tensor=self.fast),
            "decoder": nn.TransformerDecoder(decoder, config.decoder_layers),
            "words": nn.Embedding(config.vocab_size, M),
        }
        self.net = nn.ModuleDict(parts)
        self.net.load_state_dict(torch_names(state))
        self.positions = sinusoidal(torch.arange(config.max_length), M).float()
        self.scale = math.sqrt(M)

    def embedded(self, ids: Tensor) -> Tensor:
        positions = self.positions[: ids.shape[1]].to(ids.device)
        return self.net["words"](ids) * self.scale + positions

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.following(target, self.net["encoder"](self.embedded(source)))

    def following(self, target: Tensor, memory: Tensor, only_last: bool = False) -> Tensor:
        ahead = nn.Transformer.generate_square_subsequent_mask(target.shape[1], device=target.device)
        state = self.net["decoder"](self.embedded(target), memory, tgt_mask=ahead, tgt_is_causal=True)
        return functional.linear(state[:, -1:] if only_last else state, self.net["words"].weight)

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with torch.inference_mode(), fast_path(self.fast):
            return self.net["encoder"](self.embedded(source), src_key_padding_mask=None if mask is None else ~mask)

    def decode(self, source: Tensor, new: int) -> Tensor:
        target = torch.full((len(source), 1), START, device=source.device)
        with torch.inference_mode(), fast_path(self.fast):
            memory = self.net["encoder"](self.embedded(source))
            while target.shape[1] <= new:
                word = self.following(target, memory, only_last=True)[:, 0].argmax(dim=-1)
                target = torch.cat([target, word[:, None]], dim=1)
                if bool((word == END).all()):
                    break
        return target[:, 1:]

    def source_gradient(self) -> Tensor:
        return grad_of(self.net["words"])


class TorchTransformerFast(TorchTransformer):
    name = "nn.Transformer, fast path"
    notes: ClassVar[dict[str, str]] = {"decode": "no cache; for its encoder only", "encode": "nested tensors skip padding"}
    does = frozenset({"decode", "encode"})  # it is for inference only
    fast = True


class TorchTransformerAutocast(TorchTransformer):
    name = "nn.Transformer, autocast"
    does = frozenset({"train"})
    dtype = "bfloat16"

    def precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.net["words"].weight.device.type, torch.bfloat16)


@contextmanager
def fast_path(on: bool) -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(on)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def grad_of(embedding: nn.Module | None) -> Tensor:
    assert isinstance(embedding, nn.Embedding)
    assert embedding.weight.grad is not None
    return embedding.weight.grad


def torch_names(state: State) -> State:
    """Our weights under the names of nn.TransformerEncoder and nn.TransformerDecoder."""
    parts: dict[str, list[Tensor]] = {"words.weight": [state["source.embedding.weight"]]}
    for name, entry in state.items():
        if name.startswith(("encoder", "decoder")):
            parts.setdefault(their_name(name, TORCH), []).append(entry)  # queries, keys and values are one weight there
    return {name: torch.cat(entries) for name, entries in parts.items()}
