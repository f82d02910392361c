"""The layers of a Transformer: attention, feed-forward, and both with their residuals and norms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from attnspec.impl.attention import attention, attention_weights
from attnspec.impl.config import TransformerConfig
from attnspec.impl.positions import Sight, Turn, rotate
from attnspec.impl.products import Linear, linear
from attnspec.impl.projections import joint_linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}

# keep(k, v) writes the keys and values of new tokens to a cache, and gives those that the new tokens may see
Keep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Memory(NamedTuple):
    """What a decoder layer looks up of the source: keys and values [B,G,S,D], and who sees them."""

    k: Tensor
    v: Tensor
    sight: Sight


def norm_of(config: TransformerConfig) -> nn.Module:
    """The norm of the configuration.

        layer: (x - mean) / sqrt(variance + eps) weight + bias;  rms: x / sqrt(mean square + eps) weight     (1)

    Shapes:  x [...,M] -> the same shape.
    Units:   eps has the units of x squared.
    Empty:   no positions, no output.
    Errors:  none.
    Source:  arXiv:1607.06450 eq. 4; arXiv:1910.07467 eq. 4.
    Differs: the papers have no eps.
    """
    if config.norm == "layer":
        return nn.LayerNorm(config.width, eps=config.eps)
    return nn.RMSNorm(config.width, eps=config.eps)


class HeadAttention(nn.Module):
    """What self- and cross-attention share: attend in each head, join, project.

        out = concat_h(attention(q_h, k_h, v_h)) Wo^T + bo                               (1)

    Shapes:  q [B,H,T,D]  k, v [B,G,S,D] -> [B,T,M].
    Units:   options are those of the configuration; sight says who sees whom. In training weights are dropped out.
    Empty:   a query with no visible key gets o.bias, or zero without one.
    Errors:  those of attention.
    Source:  arXiv:1706.03762 sec. 3.2.2; arXiv:2305.13245 sec. 2 (G < H).
    Differs: the paper's projections have no bias vectors, and there D = M / H.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.H, self.G, self.D = config.heads, config.groups, config.channels
        self.scale, self.softcap, self.dropout = config.scale, config.softcap, config.attention_dropout
        self.o = Linear(self.H * self.D, config.width, config.bias)
        self.recorded: list[Tensor] | None = None

    def look_up(self, q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
        """Attends (class docstring)."""
        if self.recorded is not None:
            self.recorded.append(attention_weights(q, k, **sight._asdict(), scale=self.scale, softcap=self.softcap))
        dropout = self.dropout if self.training else 0.0
        found = attention(q, k, v, **sight._asdict(), scale=self.scale, softcap=self.softcap, dropout=dropout)
        out: Tensor = self.o(found.transpose(1, 2).flatten(2))
        return out


class SelfAttention(HeadAttention):
    """Lets tokens look at each other, or at those in a cache.

        q, k, v = split(x Wqkv^T + bqkv), q and k turned by their positions if these are rotary     (1)

    Shapes:  x [B,T,M] -> [B,T,M]; in state_dict q.weight [H*D,M]  k.weight, v.weight [G*D,M]  o.weight [M,H*D].
    Units:   as in HeadAttention.
    Empty:   as in HeadAttention.
    Errors:  as in HeadAttention.
    Source:  arXiv:1706.03762 sec. 3.2.3; arXiv:2104.09864 eq. 14 for rotary.
    Differs: as in HeadAttention.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        widths = {"q": self.H * self.D, "k": self.G * self.D, "v": self.G * self.D}
        self.qkv = joint_linear(self, config.width, widths, config.bias)

    def forward(self, x: Tensor, sight: Sight, turn: Turn | None, keep: Keep | None = None) -> Tensor:
        """Attends from x to x, or to what keep gives (class docstring)."""
        heads = self.qkv(x).unflatten(2, (-1, self.D)).transpose(1, 2)
        qk, v = heads.split([self.H + self.G, self.G], dim=1)
        qk = qk if turn is None else rotate(qk, turn)  # both at once
        q, k = qk.split([self.H, self.G], dim=1)
        if keep is not None:
            k, v = keep(k, v)
        return self.look_up(q, k, v, sight)


class CrossAttention(HeadAttention):
    """Lets tokens look at those of another sequence, whose keys and values are there already.

        q = split(x Wq^T + bq);  k, v = split(memory Wkv^T + bkv), in Stack.memories     (1)

    Shapes:  x [B,T,M] -> [B,T,M]; names in state_dict as in SelfAttention.
    Units:   as in HeadAttention.
    Empty:   as in HeadAttention.
    Errors:  as in HeadAttention.
    Source:  arXiv:1706.03762 sec. 3.2.3.
    Differs: as in HeadAttention.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.q = Linear(config.width, self.H * self.D, config.bias)
        self.kv = joint_linear(self, config.width, {"k": self.G * self.D, "v": self.G * self.D}, config.bias)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Attends from x to the memory (class docstring)."""
        q = self.q(x).unflatten(2, (-1, self.D)).transpose(1, 2)
        return self.look_up(q, *memory)


class FeedForward(nn.Module):
    """Widens each position on its own, bends it, and narrows it again.

        out = down(f(up(x))),  or down(f(gate(x)) * up(x)) if gated;  f = activation     (1)

    Shapes:  x [...,M] -> [...,M]; weights up, gate [F,M], down [M,F].
    Units:   with a gate the activations are ReGLU, GEGLU (both forms) and SwiGLU. In training what down reads is dropped out.
    Empty:   no positions, no output.
    Errors:  none.
    Source:  arXiv:1706.03762 eq. 2; arXiv:2002.05202 sec. 2 for the gate.
    Differs: the second paper omits the biases.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = Linear(config.width, config.hidden, config.bias)
        self.gate = Linear(config.width, config.hidden, config.bias) if config.gated else None
        self.down = Linear(config.hidden, config.width, config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Works on each position (class docstring)."""
        up = self.up(x)
        hidden = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        out: Tensor = self.down(self.dropout(hidden))
        return out


class Layer(nn.Module):
    """A layer of the encoder, of a language model, or with cross-attention of a decoder.

        x = add_and_norm(x, self-attention), add_and_norm(x, cross-attention) if any, add_and_norm(x, feed_forward)     (1)
        add_and_norm(x, f) = norm(x + f(x))  (post)  or  x + f(norm(x))  (pre)           (2)

    Shapes:  x [B,T,M] -> [B,T,M].
    Units:   in training f(..) is dropped out.
    Empty:   no tokens, no output.
    Errors:  those of attention.
    Source:  arXiv:1706.03762 sec. 3.1 for post; arXiv:2002.04745 table 1 for pre.
    Differs: n/a.
    """

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        self.pre = config.order == "pre"
        self.attention, self.attention_norm = SelfAttention(config), norm_of(config)
        if cross:
            self.cross, self.cross_norm = CrossAttention(config), norm_of(config)
        self.feed_forward, self.feed_forward_norm = FeedForward(config), norm_of(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, sight: Sight, turn: Turn | None, memory: Memory | None = None, keep: Keep | None = None
    ) -> Tensor:
        """Passes tokens through the layer (class docstring)."""
        x = self._add_and_norm(x, self.attention_norm, lambda y: self.attention(y, sight, turn, keep))
        if memory is not None:
            x = self._add_and_norm(x, self.cross_norm, lambda y: self.cross(y, memory))
        return self._add_and_norm(x, self.feed_forward_norm, self.feed_forward)

    def _add_and_norm(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        out = sublayer(norm(x) if self.pre else x)
        x = x + (self.dropout(out) if self.training else out)  # a call less in each sub-layer of a step
        return x if self.pre else norm(x)


class Stack(nn.Module):
    """All layers of an encoder or a decoder, and the norm after the last one if there is one.

        x_0 = x,  x_{i+1} = layer_i(x_i),  out = norm(x_L)                               (1)

    Shapes:  x [B,T,M] -> [B,T,M]; in state_dict the layers are 0 .. L-1, beside norm.
    Units:   keeps[i] belongs to layer i, memories[i] too. With `recompute` a gradient costs the memory of one layer, as
             each keeps only its input, and runs again, with the same dropout, in the backward pass.
    Empty:   no tokens, no output.
    Errors:  those of attention.
    Source:  arXiv:1706.03762 sec. 3.1; arXiv:2002.04745 table 1 for the last norm; arXiv:1604.06174 sec. 3.
    Differs: n/a.
    """

    recompute = False

    def __init__(self, config: TransformerConfig, depth: int, cross: bool) -> None:
        super().__init__()
        for i in range(depth):
            self.add_module(str(i), Layer(config, cross))
        self.depth, self.G, self.D, self.biased = depth, config.groups, config.channels, config.bias
        self.norm = norm_of(config) if config.ends_in_norm else nn.Identity()

    def forward(
        self, x: Tensor, sight: Sight, turn: Turn | None, memories: list[Memory] | None = None,
        keeps: list[Keep] | None = None,
    ) -> Tensor:  # fmt: skip
        """Passes tokens through all layers (class docstring)."""
        for i in range(self.depth):
            memory, keep = memories[i] if memories else None, keeps[i] if keeps else None
            layer = self.get_submodule(str(i))
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, sight, turn, memory, keep, use_reentrant=False)
            else:
                x = layer(x, sight, turn, memory, keep)
        out: Tensor = self.norm(x)
        return out

    def memories(self, memory: Tensor, sight: Sight) -> list[Memory]:
        """The keys and values of a source for all layers, in one product.

            k_i, v_i = split(memory Wkv_i^T + bkv_i),  i = 0..L-1                        (1)

        Shapes:  memory [B,S,M] -> for each layer k, v [B,G,S,D].
        Units:   sight is that of every layer.
        Empty:   S may be zero.
        Errors:  none.
        Source:  arXiv:1911.02150 sec. 2.4.
        Differs: n/a.
        """
        maps = [cast(nn.Linear, self.get_submodule(f"{i}.cross.kv")) for i in range(self.depth)]
        weight = torch.cat([one.weight for one in maps])
        bias = torch.cat([one.bias for one in maps]) if self.biased else None
        heads = linear(memory, weight, bias).view(*memory.shape[:2], -1, self.D).transpose(1, 2)
        found = torch.split(heads, self.G, dim=1)
        return [Memory(k, v, sight) for k, v in zip(found[0::2], found[1::2], strict=True)]


@contextmanager
def recorded_weights(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Writes down the attention weights of every call inside the with statement.

        weights[name][n] = softmax of the scores of attention `name` in its n-th call    (1)

    Shapes:  each [B,H,T,S]; the names are those of the modules, as encoder.0.attention and decoder.5.cross.
    Units:   shares: a row sums to one.
    Empty:   the row of a query that sees nothing is zero.
    Errors:  none.
    Source:  arXiv:1706.03762 eq. 1.
    Differs: n/a. Weights are computed a second time here, before dropout, as the fused kernels do not give them.
    """
    heads = {name: one for name, one in model.named_modules() if isinstance(one, HeadAttention)}
    weights: dict[str, list[Tensor]] = {name: [] for name in heads}
    for name, one in heads.items():
        one.recorded = weights[name]
    try:
        yield weights
    finally:
        for one in heads.values():
            one.recorded = None
