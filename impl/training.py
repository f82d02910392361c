"""Training: teacher forcing, the rate of the first paper, and a step that is the same however a batch is cut up."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from attnspec.impl.errors import require
from attnspec.impl.layers import Stack
from attnspec.impl.loss import cross_entropy
from attnspec.impl.master_weights import WorkingCopy

Batch: TypeAlias = tuple[Tensor | None, Tensor]  # source [B,S], or None for a language model, and words [B,T]


class Step(NamedTuple):
    """What one step found: its number from 1, the loss per real token before it, how many these were, and its rate.

    Loss and tokens are arrays without axes: reading them as numbers waits for a device, and a step should not.
    """

    step: int
    loss: Tensor
    tokens: Tensor
    rate: float


def warmup(step: int, M: int, warmup_steps: int = 4000) -> float:
    """Gives the learning rate of a step: it rises linearly, then falls with the root of the step.

        rate = M^-0.5 min(step^-0.5, step warmup_steps^-1.5)                             (1)

    Shapes:  numbers.
    Units:   steps count from 1; the rate is greatest at step = warmup_steps.
    Empty:   n/a.
    Errors:  ValueError if a step, M or warmup_steps is less than 1.
    Source:  arXiv:1706.03762 eq. 3.
    Differs: the paper writes d_model for M.
    """
    got = {"step": step, "M": M, "warmup_steps": warmup_steps}
    require(min(got.values()) >= 1, "each is at least 1; count steps from 1", **got)
    return float(M**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


def shift_right(words: Tensor, start_id: int, real: Tensor | None = None) -> Tensor:
    """Gives the decoder's inputs: the words, one step late.

        inputs[b, t] = start_id if t is the first real token of its row, else words[b, t - 1]     (1)

    Shapes:  words, real [B,T] -> [B,T].
    Units:   ids; real is True at real tokens, which are next to each other: padding stands on either side.
    Empty:   T = 0 stays empty. Inputs at padding mean nothing.
    Errors:  none.
    Source:  arXiv:1706.03762 sec. 3.1: "the output embeddings are offset by one position".
    Differs: the paper has no padding.
    """
    inputs = words.roll(1, dims=1)
    if real is None:
        inputs[:, :1] = start_id
        return inputs
    return torch.where(real & (real.cumsum(dim=1) == 1), start_id, inputs)


def teacher_forced_loss(
    model: Any, source: Tensor | None, words: Tensor, *, start_id: int, padding_id: int | None = None, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Measures how surprised a model is by the right words, each given those before it, all in parallel.

        total, count = cross_entropy(logits, words),  logits = model.logits(source, shift_right(words))     (1)

    Shapes:  source [B,S], or None for a language model  words [B,T] -> two numbers, as in cross_entropy.
    Units:   ids; a token is real if it is not padding_id, and a word's input is real if the word is.
    Empty:   no real word gives 0 and 0.
    Errors:  those of the model and of cross_entropy.
    Source:  arXiv:1706.03762 sec. 3.1, 5.4.
    Differs: the paper has no padding.
    """
    real = None if padding_id is None else words != padding_id
    inputs = shift_right(words, start_id, real)
    if source is None:
        logits = model.logits(inputs, real)
    else:
        logits = model.logits(source, inputs, None if padding_id is None else source != padding_id, real)
    return cross_entropy(logits, words, real, smoothing=smoothing)


class Trainer:
    """Takes steps of AdamW on a model, each on any number of micro-batches that count as one batch.

        loss = sum over micro-batches of total / sum over micro-batches of count, (1) of teacher_forced_loss     (1)
        weights = adamw(weights, gradients of loss), at rate(step)                       (2)

    With `masters` a copy of the model in bfloat16 computes (1), and the model itself keeps float32 weights, which take
    the step; with `recompute` layers keep nothing but their input, and run a second time in the backward pass.

    Shapes:  as in teacher_forced_loss.
    Units:   rate gives the learning rate of step 1, 2, ..; clip is the largest norm of all gradients together, if given;
             weight_decay is per unit of rate, and 0 makes AdamW Adam. The model is put into training mode by each step.
    Empty:   a step without a real token has a loss of zero and gradients of zero.
    Errors:  ValueError for no micro-batches, options out of range, and a model for `masters` that is not float32.
    Source:  arXiv:1706.03762 sec. 5.3 for betas and eps; arXiv:1711.05101 algorithm 2; arXiv:1604.06174 sec. 3
             (recompute); arXiv:1710.03740 sec. 3.1 (masters); arXiv:1211.5063 algorithm 1 (clip).
    Differs: the first paper has neither decay, clipping nor bfloat16.
    """

    def __init__(
        self, model: nn.Module, rate: Callable[[int], float], *, start_id: int, padding_id: int | None = None,
        smoothing: float = 0.0, weight_decay: float = 0.0, clip: float | None = None, masters: bool = False,
        recompute: bool = False,
    ) -> None:  # fmt: skip
        require(weight_decay >= 0, "weights shrink by it; use 0.0 for none", weight_decay=weight_decay)
        require(clip is None or clip > 0, "a norm is positive; use None for no limit", clip=clip)
        self.model, self.rate, self.clip, self.taken = model, rate, clip, 0
        self.words: dict[str, Any] = {"start_id": start_id, "padding_id": padding_id}
        self.smoothing = smoothing
        self.working = WorkingCopy(model) if masters else None
        self.computing = self.working.model if self.working else model
        for stack in self.computing.modules():
            if isinstance(stack, Stack):
                stack.recompute = recompute
        options = {"betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": weight_decay}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True, **options)  # type: ignore[arg-type]

    def step(self, batches: Sequence[Batch]) -> Step:
        """Takes one step on all micro-batches together (class docstring)."""
        require(len(batches) > 0, "a step has at least one micro-batch; pass [(source, words)]", batches=len(batches))
        self.computing.train()
        self.optimizer.zero_grad()
        padding_id = self.words["padding_id"]
        real = [
            words.new_tensor(words.numel()) if padding_id is None else (words != padding_id).sum() for _, words in batches
        ]
        tokens = torch.stack(real).sum()  # known before the first backward pass, which can divide by it
        loss = torch.zeros((), device=tokens.device)
        for source, words in batches:
            total, _ = teacher_forced_loss(self.computing, source, words, **self.words, smoothing=self.smoothing)
            part = total / tokens.clamp(min=1)
            part.backward()  # type: ignore[no-untyped-call]
            loss = loss + part.detach()
        rate = self.update()
        return Step(self.taken, loss, tokens, rate)

    def update(self) -> float:
        """Moves the weights along the gradients that are there: (2)."""
        rate = self.rate(self.taken + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.taken += 1
        if self.working:
            self.working.refresh()
        return rate

    def evaluate(self, batches: Iterable[Batch]) -> float:
        """The loss per real token, without smoothing and dropout."""
        return evaluate(self.computing, batches, **self.words)


def evaluate(model: nn.Module, batches: Iterable[Batch], *, start_id: int, padding_id: int | None = None) -> float:
    """Measures the loss per real token of all batches together, without smoothing and dropout.

        out = sum of total / sum of count, those of teacher_forced_loss                  (1)

    Shapes:  as in teacher_forced_loss -> a number.
    Units:   natural-log units per real token; exp of it is the perplexity. The model's mode is as before afterwards.
    Empty:   no real word gives 0.
    Errors:  those of teacher_forced_loss.
    Source:  arXiv:1706.03762 sec. 5.4, table 3 for perplexity.
    Differs: the paper's perplexity is per word piece of its own vocabulary.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [teacher_forced_loss(model, *batch, start_id=start_id, padding_id=padding_id) for batch in batches]
    finally:
        model.train(training)
    return sum(float(total) for total, _ in parts) / max(sum(int(count) for _, count in parts), 1)
