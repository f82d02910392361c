"""A stack of recurrent layers, in one direction or in both, on torch's fused kernels."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from attnspec.impl.errors import require

__all__ = ["CELLS", "Cell", "Recurrent", "State", "real_steps", "reverse_source"]

Cell: TypeAlias = Literal["rnn", "rnn_relu", "lstm", "gru", "gru_reset_before"]
State: TypeAlias = tuple[Tensor, ...]  # (h, c) for lstm, (h,) for the others

CELLS = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}  # gates
# What torch.nn.RNN, LSTM and GRU call. No kernel resets before the product with U_n: that cell is written out below.
KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "rnn": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "lstm": torch.lstm,
    "gru": torch.gru,
}


def reverse_source(source: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Reverses the real part of each sequence, and leaves its padding behind it; done twice it undoes itself.

        out[b, t] = source[b, n - 1 - t] if t < n else source[b, t],  n = lengths[b]     (1)

    Shapes:  source [B,T] or [B,T,...]  lengths [B], T each unless given -> the shape of source.
    Units:   those of source, which may be ids, embeddings or states.
    Empty:   a sequence of length zero is all padding; T may be zero.
    Errors:  ValueError as in real_steps.
    Source:  arXiv:1409.3215 sec. 3.3.
    Differs: the paper says nothing of padding; it does not move here.
    """
    if lengths is None:
        return source.flip(1)
    B, T = source.shape[:2]
    place = torch.arange(T, device=source.device)
    index = torch.where(real_steps(lengths, B, T), lengths[:, None] - 1 - place, place)
    return source.gather(1, index.reshape(B, T, *[1] * (source.ndim - 2)).expand_as(source))


def real_steps(lengths: Tensor, B: int, T: int) -> Tensor:
    """Says which steps are words and which are padding.

        real[b, t] = t < lengths[b]                                                      (1)

    Shapes:  lengths [B] -> [B,T].
    Units:   lengths count steps; booleans, True = real.
    Empty:   a length of zero gives a row of False.
    Errors:  ValueError if lengths are not B integers within 0..T.
    Source:  docs/notation.md, arrays.
    """
    integers = not lengths.is_floating_point() and lengths.dtype != torch.bool
    fits = integers and lengths.shape == (B,) and bool(((lengths >= 0) & (lengths <= T)).all())
    require(fits, "lengths are integers [B] within 0..T; count the words of each sentence", lengths=lengths, B=B, T=T)
    return torch.arange(T, device=lengths.device) < lengths[:, None]


class Run(nn.Module):
    """The weights of a layer in one direction; in a layer of two, `reverse` has those of the other."""

    def __init__(self, M: int, N: int, gates: int, bias: bool) -> None:
        super().__init__()
        self.input = nn.Linear(M, gates * N, bias)
        self.hidden = nn.Linear(N, gates * N, bias)

    def flat(self) -> list[Tensor]:
        """The weights as torch's kernels take them."""
        found = (self.input.weight, self.hidden.weight, self.input.bias, self.hidden.bias)
        return [array for array in found if array is not None]


class Recurrent(nn.ModuleList):
    """Runs each layer over the outputs of the one below it; padding leaves no trace.

        out_0 = x,  out_l = layer_l(out_(l-1))                                           (1)
        state[t + 1] = cell(x[t], state[t]) if t < length else state[t]                  (2)
        out[t] = h[t + 1] if t < length else 0                                           (3)

    A layer of two directions joins, at every position, a run from the left and one from the right.

    Shapes:  x [B,T,M]  lengths [B], T each unless given  each array of the state [R,B,N], zeros unless given; R runs:
             layers, or 2*layers -> outputs of the last layer [B,T,N] or [B,T,2*N], and the final state.
    Units:   gates in torch's order (LSTM i, f, g, o; GRU r, z, n); the state is (h, c) for lstm, (h,) for the others.
    Empty:   T = 0 or a length of zero hands the state on as it is; padding of x may be anything, NaN included.
    Errors:  ValueError for sizes, lengths or a cell that do not fit.
    Source:  arXiv:1409.3215 sec. 2; doi:10.1109/78.650093 (both directions); arXiv:1406.1078v3 sec. 2.3 (gru_reset_before:
             n = tanh(x W_n^T + b_n + (r h) U_n^T + d_n), where gru has r times the whole product).
    Differs: all layers have the same number of directions. Initial weights are those of torch.nn.LSTM.
    """

    def __init__(
        self, M: int, N: int, layers: int = 1, cell: Cell = "lstm", *, bidirectional: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        require(min(M, N, layers) >= 1, "sizes are 1 or more; use positive numbers", M=M, N=N, layers=layers)
        require(cell in CELLS, f"a cell is one of {', '.join(CELLS)}; pass one of these", cell=cell)
        self.M, self.N, self.cell, self.bias, self.directions = M, N, cell, bias, 2 if bidirectional else 1
        self.runs: list[Run] = []  # in the order of the states
        for layer in range(layers):
            width = M if layer == 0 else self.directions * N
            runs = [Run(width, N, CELLS[cell], bias) for _ in range(self.directions)]
            for reverse in runs[1:]:
                runs[0].reverse = reverse
            self.append(runs[0])
            self.runs += runs
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(N**-0.5), N**-0.5)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Reads x from the state on (class docstring)."""
        fits = x.ndim == 3 and x.shape[2] == self.M
        require(fits, "x is [B,T,M]; embed or project it to the width of the stack", x=x.shape, M=self.M)
        B, T = x.shape[:2]
        state = self._started(x, state)
        lengths = None if lengths is None else lengths.to(x.device)
        real = None if lengths is None else real_steps(lengths, B, T)
        if T == 0:  # the kernels refuse it
            return x.new_zeros(B, 0, self.directions * self.N), state
        if lengths is None or real is None or bool(real.all()):  # nothing to pack
            return self._by_hand(x, state, None, None) if self.cell not in KERNELS else self._fused((x,), state, True)
        x = torch.where(real[..., None], x, 0.0)  # not even a NaN of the padding may be multiplied
        if self.cell not in KERNELS:
            return self._by_hand(x, state, lengths, real)
        return self._packed(x, state, lengths, real)

    def _started(self, x: Tensor, state: State | None) -> State:
        arrays, shape = 2 if self.cell == "lstm" else 1, torch.Size((len(self.runs), x.shape[0], self.N))
        if state is None:
            return tuple(x.new_zeros(shape) for _ in range(arrays))
        got = [list(array.shape) for array in state]
        rule = "a state is (h, c) for lstm and (h,) else, each [R,B,N]; pass the state of a stack like this"
        require(got == arrays * [list(shape)], rule, state=got, cell=self.cell, shape=shape)
        return state

    def _fused(self, arrays: tuple[Tensor, ...], state: State, *batch_first: bool) -> tuple[Tensor, State]:
        """One call for all layers; arrays are x, or the data and the batch sizes of packed sequences."""
        weights = [array for run in self.runs for array in run.flat()]
        start = tuple(array.contiguous() for array in state)  # as the kernels want it
        # train costs nothing without dropout, and cuDNN has no gradients without it
        options = (self.bias, len(self), 0.0, torch.is_grad_enabled(), self.directions == 2)
        hidden = start if self.cell == "lstm" else start[0]
        out, *final = KERNELS[self.cell](*arrays, hidden, weights, *options, *batch_first)
        return out, tuple(final)

    def _packed(self, x: Tensor, state: State, lengths: Tensor, real: Tensor) -> tuple[Tensor, State]:
        """Packing refuses lengths of zero: such a sentence reads one zero, and what came of it is dropped."""
        order = lengths.argsort(descending=True)
        back, sizes = order.argsort(), lengths[order].clamp(min=1).cpu()
        packed = pack_padded_sequence(x[order], sizes, batch_first=True)
        out, final = self._fused((packed.data, packed.batch_sizes), tuple(array[:, order] for array in state))
        unpacked = PackedSequence(out, packed.batch_sizes)
        padded, _ = pad_packed_sequence(unpacked, batch_first=True, total_length=x.shape[1])
        begun = (lengths > 0)[:, None]
        final = tuple(torch.where(begun, new[:, back], old) for new, old in zip(final, state, strict=True))
        return torch.where(real[..., None], padded[back], 0.0), final

    def _by_hand(self, x: Tensor, state: State, lengths: Tensor | None, real: Tensor | None) -> tuple[Tensor, State]:
        """The stack of the cell that resets before the product; x is zero where real is False."""
        finals: list[Tensor] = []
        for _ in range(len(self)):
            outs: list[Tensor] = []
            for direction in range(self.directions):
                number = len(finals)
                y = x if direction == 0 else reverse_source(x, lengths)
                out, final = _reset_before(y, state[0][number], self.runs[number], real)
                outs.append(out if direction == 0 else reverse_source(out, lengths))
                finals.append(final)
            x = torch.cat(outs, dim=2)
        return x, (torch.stack(finals),)


def _reset_before(x: Tensor, h: Tensor, run: Run, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """One run of the gated recurrent unit of arXiv:1406.1078v3: the input is weighed for all steps at once."""
    gates, weight, bias = 2 * h.shape[1], run.hidden.weight, run.hidden.bias  # the rows of r and z, and those of n
    gate_bias, new_bias = (None, None) if bias is None else (bias[:gates], bias[gates:])
    from_input = run.input(x)
    outs: list[Tensor] = []
    for t in range(x.shape[1]):
        r, z = torch.sigmoid(from_input[:, t, :gates] + functional.linear(h, weight[:gates], gate_bias)).chunk(2, dim=1)
        n = torch.tanh(from_input[:, t, gates:] + functional.linear(r * h, weight[gates:], new_bias))
        new = (1 - z) * n + z * h
        h = new if real is None else torch.where(real[:, t, None], new, h)
        outs.append(h if real is None else torch.where(real[:, t, None], h, 0.0))
    return torch.stack(outs, dim=1), h
