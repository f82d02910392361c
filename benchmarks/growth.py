"""How the cost of a word grows with what the decoder has read, and with the batch; and the memory of its cache."""

from __future__ import annotations

from typing import Any

import torch

from attnspec.impl.config import TransformerConfig
from benchmarks.contenders import Ours
from benchmarks.limits import Limits, Needs
from benchmarks.measure import Spread, interleaved
from benchmarks.paper_model import State, Work, text


def measured(
    config: TransformerConfig, state: State, work: Work, bound: Limits, rounds: int, clock: str
) -> tuple[list[dict[str, Any]], bool]:
    """Rows for each context at one row, and for each batch at the least context; and whether all are there."""
    ours = Ours(config, state)
    ours.evaluated()
    rows: list[dict[str, Any]] = []
    complete = True
    for over, cases in (
        ("context", [(1, context) for context in work.contexts]), ("batch", [(B, work.contexts[0]) for B in work.batches]),
    ):  # fmt: skip
        steps = {f"{B} x {context}": Stepping(ours, config, work.source, B, context, rounds + 1) for B, context in cases}
        seconds, complete = interleaved(steps, rounds, clock=clock, say=f"time of a step over {over}")
        for (B, context), (name, step) in zip(cases, steps.items(), strict=True):
            if seconds[name]:
                taken = {"seconds": Spread.of(seconds[name]).median / Stepping.WORDS, "least": step.least(bound)}
                rows.append({"over": over, "rows": B, "context": context, **taken, **step.memory()})
        if not complete:
            break
    return rows, complete


class Stepping:
    """A decoder that has read `context` tokens; a call decodes some words more."""

    WORDS = 4

    def __init__(self, ours: Ours, config: TransformerConfig, S: int, B: int, context: int, calls: int) -> None:
        self.ours, self.config, self.S, self.B, self.context = ours, config, S, B, context
        self.capacity = min(config.max_length, context + calls * self.WORDS)
        with torch.inference_mode():
            memory = ours.net.encode(text(config, B, S))
            self.state = ours.net.start(memory, capacity=self.capacity)
            past = min(context, self.capacity - calls * self.WORDS)
            for chunk in text(config, B, past).split(64, dim=1):
                _, self.state = ours.net.extend(chunk, self.state)
        self.word = text(config, B, 1)

    def __call__(self) -> None:
        with torch.inference_mode():
            for _ in range(self.WORDS):
                _, self.state = self.ours.net.extend(self.word, self.state)

    def least(self, bound: Limits) -> float:
        """Seconds that reading the weights and the cache takes, or the operations if these take longer."""
        needs = Needs(self.config)
        read = 4 * needs.step_weights() + needs.cache_bytes(self.B, self.context, self.S)
        return max(read / bound.bandwidth, needs.decoder(self.B, 1, self.S + self.context) / bound.peak["float32"])

    def memory(self) -> dict[str, int]:
        """Bytes of the cache, and what the formula says: 2 L B G D (capacity + S) numbers of 4 bytes."""
        held = sum(one.numel() * one.element_size() for one in tensors(self.state) if one.is_floating_point())
        return {"cache_bytes": held, "formula_bytes": Needs(self.config).cache_bytes(self.B, self.capacity, self.S)}


def tensors(thing: Any) -> list[torch.Tensor]:
    """All tensors in a cache, each once; of what shares memory only the largest would count, and nothing does."""
    found: dict[int, torch.Tensor] = {}

    def walk(one: Any) -> None:
        if isinstance(one, torch.Tensor):
            found[one.data_ptr()] = one
        elif isinstance(one, (list, tuple)):
            for part in one:
                walk(part)
        elif hasattr(one, "__dict__"):
            walk(list(vars(one).values()))

    walk(thing)
    return list(found.values())
