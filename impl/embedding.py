"""Both ends of a Transformer: words to vectors, and vectors to scores of words."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnspec.impl.config import TransformerConfig
from attnspec.impl.layers import norm_of
from attnspec.impl.positions import sinusoidal
from attnspec.impl.products import linear

TABLED = 8192  # a table of more positions would take more memory than it saves time


class TokenEmbedding(nn.Module):
    """Turns tokens into vectors that say which word stands where.

        out[b, t] = norm(c weight[ids[b, t]] + position(places[b, t])),  c = sqrt(M) if scaled, else 1     (1)

    Shapes:  ids [B,T]  places [B,T] or [1,T] -> [B,T,M]; in state_dict embedding.weight [V,M], position.weight [P,M].
    Units:   places count real tokens from 0; P is max_length. In training the result is dropped out.
    Empty:   T may be zero.
    Errors:  IndexError for an id outside of the vocabulary (on a GPU a device error).
    Source:  arXiv:1706.03762 sec. 3.4, 3.5; arXiv:1810.04805 sec. 3 for learned positions.
    Differs: the first paper has no norm here.
    """

    def __init__(self, config: TransformerConfig, V: int | None) -> None:
        super().__init__()
        M = config.width
        self.embedding = None if V is None else nn.Embedding(V, M)
        self.position = nn.Embedding(config.max_length, M) if config.positions == "learned" else None
        for table in (self.embedding, self.position):
            if table is not None:
                nn.init.normal_(table.weight, std=M**-0.5)
        self.embedding_norm = norm_of(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.factor = math.sqrt(M) if config.scale_embeddings else 1.0
        self.sinusoidal, self.waves, self.longest = config.positions == "sinusoidal", torch.empty(0), config.max_length

    def forward(self, ids: Tensor, places: Tensor, table: Tensor) -> Tensor:
        """Looks up words and positions (class docstring)."""
        x = functional.embedding(ids, table) * self.factor
        if self.sinusoidal:
            x = x + self._wave(x, places)
        if self.position is not None:
            x = x + self.position(places)
        out: Tensor = self.dropout(self.embedding_norm(x))
        return out

    def _wave(self, x: Tensor, places: Tensor) -> Tensor:
        """The sines and cosines of positions, from a table made once for each dtype and device; no entry of state_dict."""
        if self.longest > TABLED:
            return sinusoidal(places, x.shape[2]).to(x.dtype)
        if self.waves.dtype != x.dtype or self.waves.device != x.device or not self.waves.numel():
            with torch.inference_mode(False):  # a step may compute them, and training read them
                self.waves = sinusoidal(torch.arange(self.longest, device=x.device), x.shape[2]).to(x.dtype)
        return self.waves[places]


class Output(nn.Module):
    """Scores each word of the vocabulary by what the last layer says.

        logits[b, t, v] = state[b, t]·W[v] + b[v]                                        (1)

    Shapes:  state [B,T,M]  W [V,M]  b [V] -> [B,T,V]; in state_dict weight, if it is not tied, and bias, if there is one.
    Units:   natural-log weights, not normalised.
    Empty:   T may be zero.
    Errors:  none.
    Source:  arXiv:1706.03762 sec. 3.4; arXiv:1608.05859 for tied weights.
    Differs: n/a.
    """

    def __init__(self, config: TransformerConfig, V: int) -> None:
        super().__init__()
        self.weight = None if config.tied else nn.Linear(config.width, V).weight
        self.bias = nn.Parameter(torch.zeros(V)) if config.output_bias else None

    def forward(self, state: Tensor, tied: Tensor) -> Tensor:
        """Scores words (class docstring)."""
        return linear(state, tied if self.weight is None else self.weight, self.bias)
