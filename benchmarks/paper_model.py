"""The base model of the first paper with drawn weights that every peer can express, and the texts that it reads.

Two things are zero that could be anything: the biases of attention and of the norms, as x-transformers has none, and the
vector of the end symbol, so that its logit is 0, which is never the largest: no contender stops early, and none is asked to
suppress anything. And weights drawn at random must not decode to one word for ever, as they like to: words are louder than
positions, queries and keys are large, so that attention looks at few tokens, the rows of `down` have mean 0, as ReLU's mean
would drown the words, and the last norm has both signs, or tied embeddings would repeat what they read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.impl.transformer import Seq2Seq

PADDING, START, END = 0, 1, 2  # ids from 3 on are words
State = dict[str, Tensor]


@dataclass(frozen=True)
class Work:
    """How much each measurement does; tokens of a row."""

    source: int = 128
    new: tuple[tuple[int, int], ...] = ((1, 64), (8, 32))  # rows, and words to decode
    train: tuple[int, int] = (8, 64)  # rows, and tokens of each source and of each target
    encode: tuple[int, int] = (8, 128)
    contexts: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


BASE = TransformerConfig(vocab_size=16384, shared=True, max_length=1152)
SMALL = replace(BASE, vocab_size=96, encoder_layers=2, decoder_layers=2, width=32, heads=4, hidden=64, max_length=96)
WORK = Work()
SMALL_WORK = Work(12, ((1, 6), (3, 5)), (3, 8), (4, 16), (8, 16, 32), (1, 2, 4))


def weights(config: TransformerConfig, seed: int = 0) -> State:
    """Drawn weights in float32 under the names of docs/notation.md, with what this module's docstring says."""
    draw = torch.Generator().manual_seed(seed)
    state = Seq2Seq(config).state_dict()
    for name, entry in state.items():
        state[name] = scale_of(name, entry, config) * torch.randn(entry.shape, generator=draw)
        if name.endswith("down.weight"):
            state[name] -= state[name].mean(dim=1, keepdim=True)
        if name.endswith("norm.weight"):
            state[name] += 1
    last = f"decoder.{config.decoder_layers - 1}.feed_forward_norm.weight"
    state[last] = torch.randn(config.width, generator=draw)
    state["source.embedding.weight"][END] = 0.0
    return state


def scale_of(name: str, entry: Tensor, config: TransformerConfig) -> float:
    if name.endswith("bias") and "feed_forward." not in name:
        return 0.0
    if entry.ndim == 1:
        return 0.1
    if "embedding" in name:
        return 2 * config.width**-0.5
    return (2 if name.endswith(("q.weight", "k.weight")) else 1) * entry.shape[1] ** -0.5


def text(config: TransformerConfig, B: int, T: int, seed: int = 1) -> Tensor:
    """Words [B,T], drawn."""
    return torch.randint(3, config.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def padded_text(config: TransformerConfig, B: int, T: int) -> tuple[Tensor, Tensor]:
    """Words [B,T] of rows from T/4 to T tokens in equal steps, padded on the right, and the mask: 62.5 % are real."""
    lengths = torch.linspace(T / 4, T, B).round().long()
    mask = torch.arange(T) < lengths[:, None]
    return torch.where(mask, text(config, B, T), PADDING), mask


def channels_by_wave(M: int) -> Tensor:
    """Our channels in the order sin, sin, .., cos, cos, ..: other libraries keep the two waves of positions apart."""
    return torch.cat([torch.arange(0, M, 2), torch.arange(1, M, 2)])
