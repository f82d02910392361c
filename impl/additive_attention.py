"""Additive (Bahdanau) attention: a small network rates each encoder state for each decoder state."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnspec.impl.errors import require

__all__ = ["AdditiveAttention", "Vector", "additive_energies", "context_vectors"]


def context_vectors(energies: Tensor, states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Averages the encoder's states, each weighted by the softmax of its energy.

        weights[t, s] = softmax_s(energies[t, s] if visible, else -inf)                  (1)
        context[t] = sum_s weights[t, s] states[s]                                       (2)

    Shapes:  energies [B,T,S]  states [B,S,N]  mask broadcasts to [B,T,S] -> context [B,T,N], weights [B,T,S].
    Units:   energies are natural-log weights; mask True = may attend.
    Empty:   a step that sees no state has weights and context of zero, and sends back zero gradients.
    Errors:  ValueError if arrays do not fit or the mask is not boolean. NaN in states spreads even if hidden.
    Source:  arXiv:1409.0473 eq. 5 and 6, where weights is alpha and context is c.
    Differs: the paper has no mask, as it has no padding.
    """
    fits = energies.ndim == states.ndim == 3 and energies.shape[::2] == states.shape[:2]
    require(fits, "energies are [B,T,S] and states [B,S,N]; rate every state", energies=energies.shape, states=states.shape)
    if mask is None:
        weights = torch.softmax(energies, dim=-1)
        return weights @ states, weights
    require(mask.dtype == torch.bool, "a mask is boolean, True = may attend; compare it with zero", mask=mask.dtype)
    fits = mask.ndim <= 3 and all(n in (1, size) for n, size in zip(mask.shape[::-1], energies.shape[::-1], strict=False))
    require(fits, "a mask broadcasts to [B,T,S]; insert axes of size 1", mask=mask.shape, energies=energies.shape)
    visible = energies.masked_fill(~mask, -torch.inf)
    empty = ~mask.any(dim=-1, keepdim=True) if mask.ndim else ~mask
    weights = torch.softmax(visible.masked_fill(empty, 0.0), dim=-1)  # of -inf alone it is NaN, and so is its gradient
    weights = weights.masked_fill(empty, 0.0)
    return weights @ states, weights


def additive_energies(queries: Tensor, keys: Tensor, v: Tensor) -> Tensor:
    """Rates how well each encoder state fits each decoder state.

        e[t, s] = v·tanh(queries[t] + keys[s])                                           (1)

    Shapes:  queries [B,T,A]  keys [B,S,A], both after their weights  v [A] -> [B,T,S].
    Units:   natural-log weights; |e| <= sum_a |v[a]|, so no scale is needed.
    Empty:   T or S may be zero.
    Errors:  those of torch for sizes that do not fit.
    Source:  arXiv:1409.0473 appendix A.1.2, where e_ij = a(s_{i-1}, h_j).
    """
    hidden = torch.tanh(queries[:, :, None, :] + keys[:, None, :, :])
    return hidden @ v


class Vector(nn.Module):
    """A parameter `weight` [A] under a name of its own."""

    def __init__(self, A: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(A).uniform_(-(A**-0.5), A**-0.5))


class AdditiveAttention(nn.Module):
    """Averages the encoder states by how well they fit each decoder state.

        keys[s] = Wk h[s] + b, once for a source                                         (1)
        weights[t] = softmax_s(v·tanh(Wq q[t] + keys[s])),  context[t] = sum_s weights[t, s] h[s]        (2)

    Shapes:  queries q [B,T,N]  states h [B,S,N2]  mask broadcasts to [B,T,S]  keys [B,S,A]; query.weight Wq [A,N]
             key.weight Wk [A,N2]  score.weight v [A]  bias b [A] -> context [B,T,N2], weights [B,T,S].
    Units:   weights are shares; contexts have the units of the states.
    Empty:   as in context_vectors.
    Errors:  ValueError for sizes that do not fit, and as in context_vectors.
    Source:  arXiv:1409.0473 sec. 3.1 and appendix A.1.2.
    Differs: the paper has no b; its W_a is Wq, its U_a is Wk. b joins the keys, not each step.
    """

    def __init__(self, N: int, N2: int, A: int, *, bias: bool = True) -> None:
        super().__init__()
        require(min(N, N2, A) >= 1, "sizes are 1 or more; use positive numbers", N=N, N2=N2, A=A)
        self.query = nn.Linear(N, A, bias=False)
        self.key = nn.Linear(N2, A, bias=False)
        self.score = Vector(A)
        self.bias = nn.Parameter(torch.zeros(A)) if bias else None

    def keys(self, states: Tensor) -> Tensor:
        """(1) of the class docstring: what stays the same for all steps of a source."""
        return functional.linear(states, self.key.weight, self.bias)

    def forward(
        self, queries: Tensor, states: Tensor, mask: Tensor | None = None, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(2) of the class docstring; keys unless given are those of states."""
        keys = self.keys(states) if keys is None else keys
        return context_vectors(additive_energies(self.query(queries), keys, self.score.weight), states, mask)
