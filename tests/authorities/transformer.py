"""torch on multi-head attention, the layers and stacks of the Transformer, whole models, and all of their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from attnspec.reference.decoder import decoder, decoder_layer
from attnspec.reference.decoder_backward import decoder_backward, decoder_layer_backward
from attnspec.reference.encoder import encoder, encoder_layer
from attnspec.reference.encoder_backward import encoder_backward, encoder_layer_backward
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.multi_head_backward import multi_head_backward
from attnspec.reference.sublayers import cross_attention_sublayer, feed_forward_sublayer, self_attention_sublayer
from attnspec.reference.sublayers_backward import (
    cross_attention_sublayer_backward,
    feed_forward_sublayer_backward,
    self_attention_sublayer_backward,
)
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.transformer import transformer
from attnspec.reference.transformer_backward import transformer_backward
from tests.authorities import torch_transformers as theirs
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.torch_transformers import arrays, causal, gradient, projected, real_tokens, tensor, value

ENCODER = (encoder_layer, self_attention_sublayer, feed_forward_sublayer)
ENCODER_BACK = (encoder_layer_backward, self_attention_sublayer_backward, feed_forward_sublayer_backward)


def hidden(real: np.ndarray) -> torch.Tensor:
    """torch's padding mask: True hides."""
    return torch.tensor(~real)


def grad(x: torch.Tensor) -> np.ndarray:
    assert x.grad is not None
    return x.grad.numpy()


@authority("I22", "torch.nn.MultiheadAttention", of=(multi_head_attention, multi_head_backward))
def torch_multi_head(draw: Draw) -> None:
    """Biases or none, a memory of another width, causal and padding masks: outputs and the gradients of autograd."""
    B, T, S, M, _, rng = theirs.sizes(draw)
    heads, biased, width = draw(st.sampled_from([1, 2, 4])), draw(st.booleans()), draw(st.sampled_from([4, 6]))
    module = torch.nn.MultiheadAttention(M, heads, bias=biased, kdim=width, vdim=width, batch_first=True, dtype=torch.float64)
    p = arrays(theirs.heads(theirs.randomised(module, rng), value))
    x, memory, real = rng.normal(size=(B, T, M)), rng.normal(size=(B, S, width)), real_tokens(draw, rng, B, S)
    leaves = tensor(x), tensor(memory)
    out, _ = module(leaves[0], leaves[1], leaves[1], key_padding_mask=hidden(real))
    mask = real[:, None, None, :]
    agrees(out.detach().numpy(), multi_head_attention, x, memory, p, heads, mask=mask)
    do = rng.normal(size=(B, T, M))
    out.backward(torch.tensor(do))
    got = grad(leaves[0]), grad(leaves[1]), arrays(theirs.heads(module, gradient))
    agrees(got, multi_head_backward, x, memory, p, do, heads, mask=mask)


@authority("I28", "torch.nn.TransformerEncoderLayer", of=(*ENCODER, *ENCODER_BACK))
def torch_encoder_layer(draw: Draw) -> None:
    """Both orders, relu and gelu, padding on either side, causal or not: outputs and the gradients of autograd."""
    B, T, _, M, F, rng = theirs.sizes(draw)
    options, ours = theirs.layer_options(draw)
    module = theirs.randomised(torch.nn.TransformerEncoderLayer(M, dim_feedforward=F, **options), rng)
    p, x, blind = arrays(theirs.layer(module, value)), rng.normal(size=(B, T, M)), draw(st.booleans())
    leaf, mask, pad = tensor(x), np.ones((B, 1, 1, T), bool), None
    if blind:
        mask = np.tri(T, dtype=bool)[None, None]
    else:
        real = real_tokens(draw, rng, B, T)
        mask, pad = real[:, None, None, :], hidden(real)
    how = {"heads": ours.pop("heads"), "mask": mask}
    out = module(leaf, src_mask=causal(T) if blind else None, src_key_padding_mask=pad)
    agrees(out.detach().numpy(), encoder_layer, x, p, how, **ours)
    do = rng.normal(size=(B, T, M))
    out.backward(torch.tensor(do))
    got = grad(leaf), arrays(theirs.layer(module, gradient))
    agrees(got, encoder_layer_backward, x, p, do, how, **ours)


@authority("I28", "torch.nn.TransformerDecoderLayer", of=(
    decoder_layer, decoder_layer_backward, cross_attention_sublayer, cross_attention_sublayer_backward,
))  # fmt: skip
def torch_decoder_layer(draw: Draw) -> None:
    """Both orders, relu and gelu, causal, a padded memory: outputs and the gradients of autograd, the memory's too."""
    B, T, S, M, F, rng = theirs.sizes(draw)
    options, ours = theirs.layer_options(draw)
    module = theirs.randomised(torch.nn.TransformerDecoderLayer(M, dim_feedforward=F, **options), rng)
    p, x, memory = arrays(theirs.layer(module, value)), rng.normal(size=(B, T, M)), rng.normal(size=(B, S, M))
    real, leaves, heads = real_tokens(draw, rng, B, S), (tensor(x), tensor(memory)), ours.pop("heads")
    how = {"heads": heads, "mask": np.tri(T, dtype=bool)}, {"heads": heads, "mask": real[:, None, None, :]}
    out = module(*leaves, tgt_mask=causal(T), memory_key_padding_mask=hidden(real))
    agrees(out.detach().numpy(), decoder_layer, x, memory, p, *how, **ours)
    do = rng.normal(size=(B, T, M))
    out.backward(torch.tensor(do))
    got = grad(leaves[0]), grad(leaves[1]), arrays(theirs.layer(module, gradient))
    agrees(got, decoder_layer_backward, x, memory, p, do, *how, **ours)


@authority("I28", "torch.nn.TransformerEncoder", of=(encoder, encoder_backward), examples=15)
def torch_encoder(draw: Draw) -> None:
    """One or two layers, with and without a last norm, padding on either side: outputs and the gradients of autograd."""
    B, _, S, M, F, rng = theirs.sizes(draw)
    options, ours = theirs.layer_options(draw)
    one = torch.nn.TransformerEncoderLayer(M, dim_feedforward=F, **options)
    norm = torch.nn.LayerNorm(M, eps=ours["eps"], dtype=torch.float64) if draw(st.booleans()) else None
    module = torch.nn.TransformerEncoder(one, draw(st.integers(1, 2)), norm=norm, enable_nested_tensor=False)
    p, x = arrays(theirs.stack(theirs.randomised(module, rng), value)), rng.normal(size=(B, S, M))
    real, leaf, do = real_tokens(draw, rng, B, S), tensor(x), rng.normal(size=(B, S, M))
    out = module(leaf, src_key_padding_mask=hidden(real))
    agrees(out.detach().numpy(), encoder, x, p, real, **ours)
    out.backward(torch.tensor(do))
    got = grad(leaf), arrays(theirs.stack(module, gradient))
    agrees(*projected(got, encoder_backward), x, p, do, real, **ours)


@authority("I28", "torch.nn.TransformerDecoder", of=(decoder, decoder_backward), examples=15)
def torch_decoder(draw: Draw) -> None:
    """One or two layers, with and without a last norm, both sides padded: outputs and the gradients of autograd."""
    B, T, S, M, F, rng = theirs.sizes(draw)
    options, ours = theirs.layer_options(draw)
    one = torch.nn.TransformerDecoderLayer(M, dim_feedforward=F, **options)
    norm = torch.nn.LayerNorm(M, eps=ours["eps"], dtype=torch.float64) if draw(st.booleans()) else None
    module = torch.nn.TransformerDecoder(one, draw(st.integers(1, 2)), norm=norm)
    p, x, memory = (
        arrays(theirs.stack(theirs.randomised(module, rng), value)), rng.normal(size=(B, T, M)), rng.normal(size=(B, S, M)),
    )  # fmt: skip
    real, of_memory, leaves = right_padding(rng, B, T), real_tokens(draw, rng, B, S), (tensor(x), tensor(memory))
    out = module(*leaves, tgt_mask=causal(T), tgt_key_padding_mask=hidden(real), memory_key_padding_mask=hidden(of_memory))
    agrees(out.detach().numpy(), decoder, x, memory, p, real, of_memory, **ours)
    do = rng.normal(size=(B, T, M))
    out.backward(torch.tensor(do))
    got = grad(leaves[0]), grad(leaves[1]), arrays(theirs.stack(module, gradient))
    agrees(*projected(got, decoder_backward), x, memory, p, do, real, of_memory, **ours)


def right_padding(rng: np.random.Generator, B: int, T: int) -> np.ndarray:
    """With padding on the left a causal row would see nothing, which torch makes NaN."""
    return np.arange(T) < rng.integers(1, T + 1, size=B)[:, None]


class Translator(torch.nn.Module):
    """torch.nn.Transformer between embeddings, learned positions and an output, some of them tied."""

    def __init__(self, V: int, M: int, F: int, layers: int, shared: bool, tied: bool, options: dict[str, Any]) -> None:
        super().__init__()
        wide: dict[str, Any] = {"dtype": torch.float64}
        self.source = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(V, M, **wide)})
        self.target = torch.nn.ModuleDict({} if shared else {"embedding": torch.nn.Embedding(V, M, **wide)})
        self.source["position"], self.target["position"] = (torch.nn.Embedding(8, M, **wide) for _ in range(2))
        one = torch.nn.TransformerEncoderLayer(M, dim_feedforward=F, **options)
        norm = torch.nn.LayerNorm(M, eps=options["layer_norm_eps"], **wide)
        encoder = torch.nn.TransformerEncoder(one, layers, norm=norm, enable_nested_tensor=False)  # the default, without
        self.inner = torch.nn.Transformer(  # the warning that there is no fast path for these options
            M, custom_encoder=encoder, num_decoder_layers=layers, dim_feedforward=F, **options
        )
        self.output = None if tied else torch.nn.Linear(M, V, **wide)

    def names(self, take: theirs.Take) -> dict[str, np.ndarray]:
        out = theirs.under("source", theirs.plain(self.source, take)) | theirs.under(
            "target", theirs.plain(self.target, take)
        )
        out |= theirs.under("encoder", theirs.stack(self.inner.encoder, take))
        out |= theirs.under("decoder", theirs.stack(self.inner.decoder, take))
        return arrays(out if self.output is None else out | theirs.under("output", theirs.plain(self.output, take)))

    def forward(self, source: np.ndarray, target: np.ndarray, real: np.ndarray, of_target: np.ndarray) -> torch.Tensor:
        table = self.target["embedding"] if "embedding" in self.target else self.source["embedding"]
        x, y = self.source["embedding"](torch.tensor(source)), table(torch.tensor(target))
        width = x.shape[-1] ** 0.5
        x = width * x + self.source["position"](torch.tensor(np.maximum(np.cumsum(real, 1) - 1, 0)))
        y = width * y + self.target["position"](torch.tensor(np.maximum(np.cumsum(of_target, 1) - 1, 0)))
        state = self.inner(
            x, y, tgt_mask=causal(target.shape[1]), src_key_padding_mask=hidden(real),
            tgt_key_padding_mask=hidden(of_target), memory_key_padding_mask=hidden(real),
        )  # fmt: skip
        return state @ table.weight.T if self.output is None else self.output(state)


@authority(
    "I28", "torch.nn.Transformer", of=(transformer, transformer_backward, loss_and_gradients), examples=15
)  # fmt: skip
def torch_transformer(draw: Draw) -> None:
    """Whole models with shared and tied weights: logits, the loss of a padded batch, its gradient for every parameter."""
    B, T, S, M, F, rng = theirs.sizes(draw)
    options, ours = theirs.layer_options(draw)
    V, layers = 6, draw(st.integers(1, 2))
    model = theirs.randomised(Translator(V, M, F, layers, draw(st.booleans()), draw(st.booleans()), options), rng)
    source, target, words = rng.integers(1, V, (B, S)), rng.integers(1, V, (B, T)), rng.integers(1, V, (B, T))
    real, of_target = real_tokens(draw, rng, B, S), right_padding(rng, B, T)
    words = np.where(of_target, words, 0)
    p, ours = model.names(value), ours | {"positions": "learned", "source_mask": real, "target_mask": of_target}
    logits = model(source, target, real, of_target)
    agrees(logits.detach().numpy(), transformer, source, target, p, **ours)
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.tensor(words).reshape(-1), ignore_index=0)
    loss.backward()
    got = loss.detach().numpy(), model.names(gradient)
    agrees(*projected(got, loss_and_gradients), source, target, words, p, padding_id=0, **ours)
