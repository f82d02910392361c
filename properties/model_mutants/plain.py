"""One correct decoder in small pieces; a mutant overrides one of them.

    x = embedding[ids] (+ position);  in each layer x += mix(norm(x)), x += feed_forward(norm(x));  logits = norm(x) · outputᵀ

`logits` reads tokens without a cache, `extend` with one; both go through `read`. All is float64, drawn from a generator of
its own and so large that earlier tokens matter.
"""

# ruff: noqa: ARG002 -- every piece is told which layer it serves, for mutants that break one layer only

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import gelu

from attnspec.properties.model_mutants.slots import Grown, Memory
from attnspec.properties.mutants.plain import hide, repeat_heads, softmax_zero

Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Layer = Literal["attention", "gru", "linear"]


class Options(TypedDict, total=False):
    """What sets the variants apart; class attributes of Decoder say what each is by default."""

    positions: Positions
    window: int | None
    cache: Grown
    kv_heads: int
    layers: tuple[Layer, ...]
    seed: int


@dataclass
class State:
    """What a model remembers of each row."""

    length: Tensor  # [B], real tokens so far
    ids: Tensor  # [B,max_length], the tokens by position; for memories that cannot be cropped
    layers: list[Memory]


@dataclass
class Call:
    """What the layers are told about the tokens of one call."""

    real: Tensor  # [B,T], False for padding
    position: Tensor  # [B,T], real tokens before this one; at padding some position in range
    length: Tensor  # [B], real tokens before the call


class Decoder:
    """A decoder with attention in each layer and a norm before each sub-layer."""

    vocab_size = 29
    max_length = 40
    M, H, D, F = 24, 4, 6, 48  # widths of model, heads and feed-forward layer, and how many heads

    positions: Positions = "rotary"
    window: int | None = None  # each token sees the last ones, itself included
    cache: Grown = Grown()
    kv_heads: int = 4
    layers: tuple[Layer, ...] = ("attention", "attention")
    seed: int = 0

    def __init__(self, **options: Unpack[Options]) -> None:
        vars(self).update(options)
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int, std: float | None = None) -> Tensor:
            """Normal numbers, by default a matrix [out,in] that grows what it is multiplied with."""
            return torch.randn(shape, generator=generator, dtype=torch.float64) * (std or 1.4 * shape[-1] ** -0.5)

        V, M, F = self.vocab_size, self.M, self.F
        self.weights = {"embedding": draw(V, M, std=0.7), "output": draw(V, M), "norm": 1 + draw(M, std=0.2)}
        for i in range(len(self.layers)):
            mine = {"up": draw(F, M), "down": draw(M, F), "norm": 1 + draw(M, std=0.2), "up.norm": 1 + draw(M, std=0.2)}
            mine |= self.drawn(i, draw)
            self.weights |= {f"{i}.{name}": weight for name, weight in mine.items()}
        self.weights["position"] = draw(self.max_length, M, std=0.7)

    # The protocol

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """ids [B,T] -> [B,T,V], all tokens at once and without a cache."""
        real, length = self.real(ids, attention_mask), torch.zeros(len(ids), dtype=torch.int64)
        return self.read(ids, real, length, [None] * len(self.layers))[0]

    def start(self, batch: int) -> State:
        """A state without a past."""
        ids = torch.zeros(batch, self.max_length, dtype=torch.int64)
        return State(torch.zeros(batch, dtype=torch.int64), ids, [self.empty(i, batch) for i in range(len(self.layers))])

    def extend(self, ids: Tensor, state: State, attention_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits of T >= 1 more tokens and the state after them; the state given may be used up."""
        real = self.real(ids, attention_mask)
        logits, layers = self.read(ids, real, state.length, state.layers)
        return logits, State(state.length + real.sum(1), self.noted(ids, real, state), layers)

    def reorder(self, state: State, index: Tensor | Sequence[int]) -> State:
        """The rows `index` [B'] of the state, which may repeat or leave out."""
        index = torch.as_tensor(index, dtype=torch.int64)
        layers = [self.picked(i, memory, index) for i, memory in enumerate(state.layers)]
        return State(state.length[index], state.ids[index], layers)

    def crop(self, state: State, length: int) -> State:
        """Forgets all but the first `length` real tokens of each row."""
        if length < 0:
            raise ValueError(f"length={length}: a row keeps its first tokens; pass 0 or more")
        layers = [self.cropped(i, memory, length) for i, memory in enumerate(state.layers)]
        there = [memory for memory in layers if memory is not None]
        if len(there) < len(layers):
            return self.again(state, length)
        return State(state.length.clamp(max=length), state.ids.clone(), there)

    def fork(self, state: State) -> State:
        """A copy; both can go on."""
        return State(state.length.clone(), state.ids.clone(), [self.copied(i, x) for i, x in enumerate(state.layers)])

    # Pieces of a state

    def empty(self, i: int, B: int) -> Memory:
        """What layer i remembers before the first token."""
        return self.cache.empty(B, self.kv_heads, self.D)

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """What layer i remembers of the first `length` tokens of each row; None where it is lost."""
        return self.cache.crop(past, length)

    def again(self, state: State, length: int) -> State:
        """The state after the first `length` tokens of each row, read again."""
        B, kept = len(state.length), state.length.clamp(max=length)
        T = int(kept.max()) if B else 0
        fresh = self.start(B)
        return self.extend(state.ids[:, :T], fresh, torch.arange(T) < kept[:, None])[1] if T else fresh

    def picked(self, i: int, past: Memory, index: Tensor) -> Memory:
        """What layer i remembers of these rows."""
        return {name: x[index] for name, x in past.items()}

    def copied(self, i: int, past: Memory) -> Memory:
        """What layer i remembers, in memory of its own."""
        return {name: x.clone() for name, x in past.items()}

    def noted(self, ids: Tensor, real: Tensor, state: State) -> Tensor:
        """The tokens by position, with those of a call."""
        row, t = real.nonzero(as_tuple=True)
        noted = state.ids.clone()
        noted[row, self.position(real, state.length)[row, t]] = ids[row, t]
        return noted

    # Pieces of a call

    def read(self, ids: Tensor, real: Tensor, length: Tensor, past: Sequence[Memory | None]) -> tuple[Tensor, list[Memory]]:
        """Logits, and what each layer remembers afterwards; past is None for a layer that has no cache."""
        self.admit(length, real)
        call = Call(real, self.position(real, length), length)
        x, kept = self.embed(ids, call), []
        for i, memory in enumerate(past):
            change, after = self.mix(i, self.norm(x, f"{i}.norm"), call, memory)
            x = x + change
            x = x + self.feed_forward(i, self.norm(x, f"{i}.up.norm"))
            kept.append(after)
        return self.output(self.norm(x, "norm")), kept

    def real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """[B,T]: True where there is a token, False where there is padding."""
        if attention_mask is None:
            return torch.ones_like(ids, dtype=torch.bool)
        if attention_mask.shape != ids.shape:
            rule = "a mask covers the tokens of the call"
            raise ValueError(f"attention_mask.shape={tuple(attention_mask.shape)}: {rule}; pass {tuple(ids.shape)}")
        return attention_mask != 0

    def admit(self, length: Tensor, real: Tensor) -> None:
        """Refuses a call that makes a row too long, before anything is written."""
        total = length + real.sum(1)
        if (total > self.max_length).any():
            raise ValueError(f"{int(total.max())} real tokens in a row: max_length={self.max_length}; pass fewer")

    def position(self, real: Tensor, length: Tensor) -> Tensor:
        """[B,T]: how many real tokens stand before each token; at padding, the position of the token before it."""
        return (length[:, None] + real.cumsum(1) - 1).clamp(min=0)

    def embed(self, ids: Tensor, call: Call) -> Tensor:
        """[B,T] -> [B,T,M]."""
        x = self.weights["embedding"][ids]
        return x + self.place(call.position) if self.positions in ("learned", "sinusoidal") else x

    def place(self, position: Tensor) -> Tensor:
        """The vector of each position [B,T,M], learned or sinusoidal."""
        if self.positions == "learned":
            return self.weights["position"][position]
        phase = position[..., None] * 10000.0 ** -(torch.arange(0, self.M, 2, dtype=torch.float64) / self.M)
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Divides by the root of the mean square, then multiplies with the weight of this name."""
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weights[name]

    def feed_forward(self, i: int, x: Tensor) -> Tensor:
        """[B,T,M] -> [B,T,M]."""
        return gelu(x @ self.weights[f"{i}.up"].T) @ self.weights[f"{i}.down"].T

    def output(self, x: Tensor) -> Tensor:
        """[B,T,M] -> [B,T,V]."""
        return x @ self.weights["output"].T

    # Pieces of attention

    def drawn(self, i: int, draw: Callable[..., Tensor]) -> Memory:
        """The weights of what mixes the tokens in layer i."""
        M, H, G, D = self.M, self.H, self.kv_heads, self.D
        return {"q": draw(H * D, M), "k": draw(G * D, M), "v": draw(G * D, M), "o": draw(M, H * D)}

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """Attention of layer i: [B,T,M] -> [B,T,M], and what it remembers afterwards."""
        q, k, v = self.project(i, x)
        if self.positions == "rotary":
            q, k = self.rotate(q, call.position), self.rotate(k, call.position)
        seen, kept = self.append(i, past, {"k": k, "v": v, "position": call.position, "real": call.real})
        s = self.score(q.transpose(1, 2), self.repeat(seen["k"]))
        if self.positions == "alibi":
            s = s + self.bias(self.behind(call, seen))
        weights = self.softmax(self.hide(s, self.visible(call, seen)[:, None]))
        out = (weights @ self.repeat(seen["v"])).transpose(1, 2)
        return out.flatten(-2) @ self.weights[f"{i}.o"].T, kept

    def project(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B,T,H,D], keys and values [B,T,G,D]."""
        q, k, v = ((x @ self.weights[f"{i}.{name}"].T).view(*x.shape[:2], -1, self.D) for name in "qkv")
        return q, k, v

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """Turns each pair of channels (i, i + D/2) of [B,T,H,D] by the angle of its position."""
        D = x.shape[-1]
        angle = position[..., None, None] * 10000.0 ** -(torch.arange(0, D, 2, dtype=torch.float64) / D)
        first, second, cos, sin = x[..., : D // 2], x[..., D // 2 :], angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def append(self, i: int, past: Memory | None, new: Memory) -> tuple[Memory, Memory]:
        """The keys and values that the tokens of a call may look at, and what layer i remembers afterwards."""
        return (new, new) if past is None else self.cache.append(past, new)

    def repeat(self, x: Tensor) -> Tensor:
        """[B,S,G,D] -> [B,H,S,D]: query head h reads key/value head h // (H // G)."""
        return repeat_heads(x.transpose(1, 2), self.H)

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        """[B,H,T,D], [B,H,S,D] -> [B,H,T,S]."""
        return (q @ k.mT) / math.sqrt(self.D)

    def behind(self, call: Call, keys: Memory) -> Tensor:
        """[B,T,S]: how far a key lies behind a token."""
        return call.position[:, :, None] - keys["position"][:, None]

    def bias(self, behind: Tensor) -> Tensor:
        """[B,T,S] -> [B,H,T,S]: each head's penalty for the distance."""
        slope = torch.exp2(-8 * torch.arange(1, self.H + 1, dtype=torch.float64) / self.H)
        return -slope[:, None, None] * behind[:, None]

    def visible(self, call: Call, keys: Memory) -> Tensor:
        """[B,T,S]: True where a token may look at a key: a real one, not later, and inside of the window."""
        behind = self.behind(call, keys)
        near = behind < (self.max_length if self.window is None else self.window)
        return keys["real"][:, None] & (behind >= 0) & near

    def hide(self, s: Tensor, allowed: Tensor) -> Tensor:
        """Minus infinity where a key is hidden."""
        return hide(s, allowed)

    def softmax(self, s: Tensor) -> Tensor:
        """Softmax over the keys; padding that sees none gets zeros."""
        return softmax_zero(s)
