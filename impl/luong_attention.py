"""Multiplicative (Luong) attention: dot products rate the states; the context joins after the decoder step."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnspec.impl.additive_attention import Vector, additive_energies, context_vectors
from attnspec.impl.errors import require

__all__ = ["LuongAttention", "Score"]

Score: TypeAlias = Literal["dot", "general", "concat"]


class LuongAttention(nn.Module):
    """Averages the encoder states by how well they fit each decoder state, and joins both.

        keys[s] = h[s] (dot),  W h[s] (general),  Wk h[s] (concat), once for a source    (1)
        score[t, s] = q[t]·keys[s],  or v·tanh(Wq q[t] + keys[s]) (concat)               (2)
        weights[t] = softmax_s(score[t, s]),  context[t] = sum_s weights[t, s] h[s]      (3)
        joined[t] = tanh(Wc [context[t]; q[t]])                                          (4)

    Shapes:  queries q [B,T,N]  states h [B,S,N2], N2 = N for dot  mask broadcasts to [B,T,S]; weight W [N,N2];
             query.weight Wq [A,N]  key.weight Wk [A,N2]  score.weight v [A]; combine.weight Wc [N,N2+N]
             -> context [B,T,N2], weights [B,T,S]; join gives [B,T,N].
    Units:   scores are natural-log weights without a scale; weights are shares.
    Empty:   as in context_vectors.
    Errors:  ValueError for a score or sizes that do not fit, and as in context_vectors.
    Source:  arXiv:1508.04025 sec. 3 and 3.1, global attention.
    Differs: the paper writes W_a [q; h] for concat; [Wq Wk] is W_a.
    """

    def __init__(self, N: int, N2: int, score: Score = "general", A: int | None = None) -> None:
        super().__init__()
        A = N if A is None else A
        require(score in get_args(Score), f"a score is one of {', '.join(get_args(Score))}; pass one of these", score=score)
        require(min(N, N2, A) >= 1, "sizes are 1 or more; use positive numbers", N=N, N2=N2, A=A)
        require(score != "dot" or N == N2, "dot needs states as wide as queries; use general", N=N, N2=N2)
        self.kind = score
        if score == "general":
            self.weight = nn.Parameter(torch.empty(N, N2).uniform_(-(N2**-0.5), N2**-0.5))
        elif score == "concat":
            self.query = nn.Linear(N, A, bias=False)
            self.key = nn.Linear(N2, A, bias=False)
            self.score = Vector(A)
        self.combine = nn.Linear(N2 + N, N, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """(1) of the class docstring: what stays the same for all steps of a source."""
        if self.kind == "dot":
            return states
        return functional.linear(states, self.weight if self.kind == "general" else self.key.weight)

    def forward(
        self, queries: Tensor, states: Tensor, mask: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(2) and (3) of the class docstring; keys unless given are those of states."""
        keys = self.keys(states) if keys is None else keys
        if self.kind == "concat":
            rated = additive_energies(self.query(queries), keys, self.score.weight)
        else:
            rated = queries @ keys.mT
        return context_vectors(rated, states, mask)

    def join(self, contexts: Tensor, queries: Tensor) -> Tensor:
        """(4) of the class docstring: the attentional states."""
        return torch.tanh(self.combine(torch.cat([contexts, queries], dim=2)))
