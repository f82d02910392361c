"""Whether contenders compute the same: their errors against the reference in float64, and the words that they decode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.reference.transformer import encode, transformer
from attnspec.reference.transformer_backward import transformer_backward
from benchmarks.contenders import Contender, Ours
from benchmarks.paper_model import START, State, padded_text, text

Array = np.ndarray[Any, Any]


class Truth:
    """What the reference says of a short text, in float64."""

    def __init__(self, config: TransformerConfig, state: State, device: str = "cpu") -> None:
        self.config, self.state, self.device = config, state, device
        self.parameters = {name: entry.double().numpy() for name, entry in state.items()}
        self.options: Any = {"heads": config.heads, "positions": "sinusoidal", "scale_embeddings": True}
        self.source, self.target = text(config, 2, 9, seed=3), text(config, 2, 7, seed=4)
        self.target[:, 0] = START
        self.labels = text(config, 2, 7, seed=5)
        self.padded, self.mask = padded_text(config, 3, 8)
        self.logits = transformer(self.source.numpy(), self.target.numpy(), self.parameters, **self.options)

    def error_of_logits(self, contender: Contender) -> float:
        """The largest, in units of the largest logit."""
        with torch.no_grad():
            got = contender.logits(self.source.to(self.device), self.target.to(self.device))
        return relative(got, self.logits)

    def error_of_memory(self, contender: Contender, padded: bool) -> float | None:
        """The largest at real tokens, in units of the largest entry; None if the contender does not show it."""
        source, mask = (self.padded, self.mask) if padded else (self.source, None)
        got = contender.encode(source.to(self.device), None if mask is None else mask.to(self.device))
        if not got.numel():
            return None
        want = encode(source.numpy(), self.parameters, None if mask is None else mask.numpy(), **self.options)
        real = torch.ones_like(source, dtype=torch.bool) if mask is None else mask
        longest = int(real.sum(dim=1).max())
        return relative(got[:, :longest].cpu()[real[:, :longest]], want[real.numpy()])

    def error_of_gradient(self, contender: Contender) -> float:
        """That of the source's embedding, which has passed all layers twice, as a share of its Euclidean norm."""
        contender.train(*(one.to(self.device) for one in (self.source, self.target, self.labels)))
        got = contender.source_gradient().double().cpu().numpy()
        shares = np.exp(self.logits - self.logits.max(axis=-1, keepdims=True))
        cotangent = shares / shares.sum(axis=-1, keepdims=True)
        cotangent -= np.eye(self.config.vocab_size)[self.labels.numpy()]
        cotangent /= self.labels.numel()
        source, target = self.source.numpy(), self.target.numpy()
        want = transformer_backward(source, target, self.parameters, cotangent, **self.options)["source.embedding.weight"]
        return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def relative(got: Tensor, want: Array) -> float:
    return float(np.max(np.abs(got.double().cpu().numpy() - want)) / np.max(np.abs(want)))


def words_compared(words: Tensor, ours: Tensor, source: Tensor, truth: Truth, error: float) -> str:
    """ "same", "tie" if every row parts from ours at two words that rounding can swap, else how many rows are other.

    Rounding can swap two words whose logits in float64 differ by at most twice the error that was measured.
    """
    if torch.equal(words, ours):
        return "same"
    rows = (words != ours).any(dim=1).nonzero()[:, 0]
    exact = Ours(truth.config, truth.state)
    exact.net.double().eval()
    swapped = 2 * error * float(np.max(np.abs(truth.logits)))
    apart = 0
    for row in rows.tolist():
        t = int((words[row] != ours[row]).nonzero()[0])
        target = torch.cat([torch.tensor([START]), ours[row, :t]])[None]
        with torch.no_grad():
            logits = exact.net.logits(source[row : row + 1], target)[0, -1]
        apart += bool((logits[words[row, t]] - logits[ours[row, t]]).abs() > swapped)
    return "tie" if not apart else f"{apart} of {len(words)} rows differ"
