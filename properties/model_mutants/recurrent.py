"""A correct decoder with recurrent layers: a GRU, or linear attention with decay behind a causal convolution.

A recurrent memory has one size for any number of tokens, so it cannot be cropped: the model reads the row again.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

from attnspec.properties.model_mutants.plain import Call, Decoder, Positions
from attnspec.properties.model_mutants.slots import Memory


class Recurrent(Decoder):
    """A decoder whose layers are "gru", "linear" or "attention", each with a norm before and a feed-forward layer behind."""

    positions: Positions = "none"
    C = 4  # tokens that the convolution sees

    def drawn(self, i: int, draw: Callable[..., Tensor]) -> Memory:
        """The weights of what mixes the tokens in layer i."""
        M, H, D = self.M, self.H, self.D
        match self.layers[i]:
            case "attention":
                return super().drawn(i, draw)
            case "gru":
                biases = {name: draw(3 * M, std=0.2) for name in ("input.bias", "hidden.bias")}
                biases["hidden.bias"][M : 2 * M] += 2  # the update gate keeps; else the first of 20 tokens is forgotten
                return {"input": draw(3 * M, M), "hidden": draw(3 * M, M), **biases}
            case "linear":
                square = {name: draw(H * D, M) for name in "qkv"}
                return {**square, "o": draw(M, H * D), "convolution": draw(M, self.C).T, "out.norm": 1 + draw(D, std=0.2)}

    def empty(self, i: int, B: int) -> Memory:
        """What layer i remembers before the first token: zeros, or no keys."""
        match self.layers[i]:
            case "attention":
                return super().empty(i, B)
            case "gru":
                return {"h": torch.zeros(B, self.M, dtype=torch.float64)}
            case "linear":
                tail = torch.zeros(B, self.C - 1, self.M, dtype=torch.float64)
                return {"tail": tail, "sum": torch.zeros(B, self.H, self.D, self.D, dtype=torch.float64)}

    def cropped(self, i: int, past: Memory, length: int) -> Memory | None:
        """The earlier values of a recurrent memory are lost."""
        return super().cropped(i, past, length) if self.layers[i] == "attention" else None

    def mix(self, i: int, x: Tensor, call: Call, past: Memory | None) -> tuple[Tensor, Memory]:
        """What layer i adds to each token, and what it remembers afterwards."""
        if self.layers[i] == "attention":
            return super().mix(i, x, call, past)
        before = self.empty(i, len(x)) if past is None else past
        return (self.gru if self.layers[i] == "gru" else self.linear)(i, x, call, before)

    # Pieces of the GRU

    def gru(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """Token by token: [B,T,M] -> [B,T,M]."""
        h, out = past["h"], []
        for t in range(x.shape[1]):
            h = self.advance(h, self.cell(i, x[:, t], h), call.real[:, t])
            out.append(h)
        return torch.stack(out, dim=1), {"h": h}

    def cell(self, i: int, x: Tensor, h: Tensor) -> Tensor:
        """One step of all rows; gates in torch's order r, z, n, the reset after the product."""
        w = self.weights
        given = (x @ w[f"{i}.input"].T + w[f"{i}.input.bias"]).chunk(3, dim=-1)
        kept = (h @ w[f"{i}.hidden"].T + w[f"{i}.hidden.bias"]).chunk(3, dim=-1)
        r, z = torch.sigmoid(given[0] + kept[0]), torch.sigmoid(given[1] + kept[1])
        return (1 - z) * torch.tanh(given[2] + r * kept[2]) + z * h

    def advance(self, old: Tensor, new: Tensor, real: Tensor) -> Tensor:
        """Padding leaves a row's memory as it is."""
        return torch.where(real[:, None], new, old)

    # Pieces of linear attention

    def linear(self, i: int, x: Tensor, call: Call, past: Memory) -> tuple[Tensor, Memory]:
        """All tokens of the call at once; decay counts real tokens.

        sum[t] = decay sum[t-1] + k[t] v[t]ᵀ;  out[t] = norm(q[t] sum[t])
        """
        x, tail = self.convolved(i, x, call, past["tail"])
        q, k, v = (y.transpose(1, 2) for y in self.project(i, x))
        behind = self.behind(call, {"position": call.position})
        seen = call.real[:, None] & (behind >= 0)
        inside = (self.score(q, k) * (self.decay(behind.clamp(min=0)) * seen[:, None])) @ v
        before = self.decay(call.position - call.length[:, None] + 1)[..., None] * (q @ past["sum"]) / math.sqrt(self.D)
        out = self.norm(inside + before, f"{i}.out.norm").transpose(1, 2).flatten(-2) @ self.weights[f"{i}.o"].T
        n = call.real.sum(1, keepdim=True)
        left = self.decay((call.length[:, None] + n - 1 - call.position).clamp(min=0)) * call.real[:, None]
        return out, {"tail": tail, "sum": self.decay(n)[..., None] * past["sum"] + (left[..., None] * k).mT @ v}

    def decay(self, tokens: Tensor) -> Tensor:
        """What is left after so many tokens: [B,...] -> [B,H,...]."""
        rate = 1 - 2.0 ** -(2 + torch.arange(self.H, dtype=torch.float64))
        return rate.view(1, -1, *(1 for _ in tokens.shape[1:])) ** tokens[:, None]

    def convolved(self, i: int, x: Tensor, call: Call, tail: Tensor) -> tuple[Tensor, Tensor]:
        """silu(Σ_j w[j] x[t-C+1+j]) over the last C real tokens, and the last C - 1 of the row; `tail` are those before."""
        line, rank = self.lined_up(x, call, tail)
        rows = torch.arange(len(x))[:, None, None]
        near = line[rows, rank[..., None] + torch.arange(self.C)]  # [B,T,C,M]
        last = call.real.sum(1)[:, None] + torch.arange(self.C - 1)
        return silu((near * self.weights[f"{i}.convolution"]).sum(2)), line[rows[..., 0], last]

    def lined_up(self, x: Tensor, call: Call, tail: Tensor) -> tuple[Tensor, Tensor]:
        """The tail, then the real tokens without gaps [B,C-1+T,M]; and how many real ones stand before each token [B,T]."""
        line = torch.cat([tail, torch.zeros_like(x)], dim=1)
        rank = (call.real.cumsum(1) - 1).clamp(min=0)
        row, t = call.real.nonzero(as_tuple=True)
        line[row, self.C - 1 + rank[row, t]] = x[row, t]
        return line, rank
