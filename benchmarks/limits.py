"""What the machine allows: how fast it reads memory and multiplies matrices, and how much of both a measurement needs.

    least time = sum over passes of max(bytes of weights read / bandwidth, operations / matrix peak)     (1)

Only products with weights and those of attention count as operations; padding counts as nothing.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from attnspec.impl.config import TransformerConfig
from attnspec.impl.products import linear
from benchmarks.measure import CLOCKS, Job

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Limits:
    """Of this machine, with the given threads: bytes a second, and operations a second for each dtype."""

    bandwidth: float
    peak: dict[str, float]


def measured(megabytes: int = 1024, size: int = 2048, device: str = "cpu", clock: str = "wall") -> Limits:
    """Reads an array that no cache holds, and multiplies square matrices by either library; the best of 15 times counts."""
    array = torch.ones(megabytes * 2**18, device=device)
    bandwidth = megabytes * 2**20 / best(array.sum, device, clock)
    peak = {}
    for name in ("float32", "bfloat16"):
        matrix = torch.rand(size, size, device=device).to(getattr(torch, name))
        ways = (lambda m=matrix: m @ m, lambda m=matrix: linear(m, m))
        peak[name] = 2 * size**3 / min(best(way, device, clock) for way in ways)
    return Limits(bandwidth, peak)


def best(job: Job, device: str, clock: str) -> float:
    times = []
    for _ in range(16):  # the first warms up
        start = CLOCKS[clock]()
        job()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(CLOCKS[clock]() - start)
    return min(times[1:])


@dataclass(frozen=True)
class Needs:
    """Sizes of a model, and what passes through it cost."""

    config: TransformerConfig

    @property
    def inner(self) -> int:
        """H D, the width of all heads."""
        return self.config.heads * self.config.channels

    def encoder(self, rows: list[int]) -> float:
        """Operations of reading sources with these numbers of real tokens."""
        c = self.config
        layer = 4 * c.width * self.inner + 2 * c.width * c.hidden
        return sum(c.encoder_layers * (2 * n * layer + 4 * n * n * self.inner) for n in rows)

    def memories(self, tokens: int) -> float:
        """Operations of the keys and values of a source for all layers of the decoder."""
        return self.config.decoder_layers * 4 * tokens * self.config.width * self.inner

    def step_weights(self) -> int:
        """Numbers that a step of the decoder reads: its weights and the words' vectors."""
        c = self.config
        layer = 4 * c.width * self.inner + 2 * c.width * self.inner + 2 * c.width * c.hidden
        return c.decoder_layers * layer + c.vocab_size * c.width

    def decoder(self, B: int, T: int, S: int) -> float:
        """Operations of reading whole targets in view of sources; half of the scores are hidden, but they count."""
        scores = self.config.decoder_layers * 4 * B * T * (T + S) * self.inner
        return 2 * B * T * self.step_weights() + scores

    def decode(self, limits: Limits, B: int, S: int, new: int, dtype: str = "float32") -> float:
        """Seconds for decoding: the source, then one step a word, which reads all weights once."""
        peak, size = limits.peak[dtype], BYTES[dtype]
        step = max(size * self.step_weights() / limits.bandwidth, self.decoder(B, 1, S) / peak)
        return self.encode(limits, [S] * B, dtype) + self.memories(B * S) / peak + new * step

    def encode(self, limits: Limits, rows: list[int], dtype: str = "float32") -> float:
        """Seconds for encoding."""
        return self.encoder(rows) / limits.peak[dtype]

    def train(self, limits: Limits, B: int, T: int, dtype: str) -> float:
        """Seconds for forward and backward, which costs twice the forward."""
        forward = self.encoder([T] * B) + self.memories(B * T) + self.decoder(B, T, T)
        return 3 * forward / limits.peak[dtype]

    def cache_bytes(self, B: int, capacity: int, S: int, bytes_each: int = 4) -> int:
        """Bytes of a decoder's cache: keys and values of its own past, and of the source."""
        return 2 * self.config.decoder_layers * B * self.config.groups * self.config.channels * (capacity + S) * bytes_each


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    flags = info.read_text() if info.exists() else ""
    sets = [word for word in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if word in flags]
    return {
        "cpu": names[0] if names else platform.processor(), "cores": len(names) or 0, "instructions": ", ".join(sets),
        "threads": torch.get_num_threads(), "system": platform.system(), "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip
