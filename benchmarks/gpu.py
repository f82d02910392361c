"""The model on a GPU: eager, compiled, as CUDA graphs, in float32 and bfloat16, beside nn.Transformer and transformers.

    python -m benchmarks.gpu [--device cuda] [--rounds N] [--only decode_1 ..] [--file FILE] [--small]

A step of decoding has fixed shapes here, so that it can be compiled or captured: the cache is as long as it will be, a mask
hides what is not written yet, and keys and values go to a slot that a tensor names. `--device cpu --small` runs everything
but the capture, in seconds: compiled means traced and run as it is. Prints a table; writes a small file if asked.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.impl.layers import Keep, Memory
from attnspec.impl.positions import Sight, turn_by
from benchmarks import limits
from benchmarks.contenders import Contender, Ours, TorchTransformer
from benchmarks.measure import Spread, interleaved, ratio
from benchmarks.models import Measurement, measurements
from benchmarks.outputs import Truth, words_compared
from benchmarks.paper_model import BASE, SMALL, SMALL_WORK, START, WORK, State, weights
from benchmarks.peers import Marian, built

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FixedStep:
    """One step of greedy decoding whose tensors never change their shapes or places: compiled or captured once, then run.

    word <- argmax of the logits after word, slot <- slot + 1                        (1)
    """

    def __init__(self, ours: Ours, B: int, S: int, new: int, how: str, backend: str) -> None:
        self.net, self.config, self.how = ours.net, ours.net.config, how
        table = ours.net._table("target")
        self.dtype, device, c = table.dtype, table.device, self.config
        self.word = torch.full((B, 1), START, device=device)
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.slots = torch.arange(new, device=device)
        size = (B, c.groups, new, c.channels)
        self.past = [torch.zeros(2, *size, dtype=self.dtype, device=device) for _ in range(c.decoder_layers)]
        of_source = (B, c.groups, S, c.channels)
        self.memories = [
            Memory(*(torch.zeros(of_source, dtype=self.dtype, device=device) for _ in "kv"), Sight()) for _ in self.past
        ]
        self.graph: Any = None
        self.step: Callable[[], None] = self.plain
        if how == "compiled":
            self.step = torch.compile(self.plain, backend=backend, fullgraph=True)

    def keep(self, i: int) -> Keep:
        def write(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            self.past[i][0].index_copy_(2, self.slot, k)
            self.past[i][1].index_copy_(2, self.slot, v)
            return self.past[i][0], self.past[i][1]

        return write

    def plain(self) -> None:
        places = self.slot[None]
        x = self.net.target(self.word, places, self.net._table("target"))
        sight = Sight(mask=(self.slots <= self.slot)[None, None, None])
        keeps = [self.keep(i) for i in range(len(self.past))]
        state = self.net.decoder(x, sight, turn_by(places, self.config, x.dtype), self.memories, keeps)
        self.word.copy_(self.net.score(state)[:, -1].argmax(dim=-1, keepdim=True))
        self.slot.add_(1)

    def capture(self) -> None:
        """Runs the step on a stream of its own first, as capturing asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.slot.zero_()
                self.plain()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.plain()
        self.step = self.graph.replay

    def decode(self, source: Tensor, new: int) -> Tensor:
        with torch.no_grad():
            found = self.net.decoder.memories(self.net.encode(source), Sight())
            for mine, one in zip(self.memories, found, strict=True):
                mine.k.copy_(one.k)
                mine.v.copy_(one.v)
            if self.how == "graph" and self.graph is None:
                self.capture()
            self.word.fill_(START)
            self.slot.zero_()
            words = torch.empty(len(source), new, dtype=torch.long, device=source.device)
            for t in range(new):
                self.step()
                words[:, t] = self.word[:, 0]
        return words


class OnDevice(Ours):
    """This project's model on a device, in a dtype, its steps run in one of the ways."""

    def __init__(self, config: TransformerConfig, state: State, device: str, dtype: str, how: str, backend: str) -> None:
        super().__init__(config, state)
        self.net.to(device, DTYPES[dtype])
        self.dtype, self.how, self.backend = dtype, how, backend
        self.name = f"{Ours.name}, {how}, {dtype}"
        self.steps: dict[tuple[int, ...], FixedStep] = {}
        self.read, self.scored = self.net.encode, self.net.logits
        if how == "compiled":
            self.read = torch.compile(self.net.encode, backend=backend)
            self.scored = torch.compile(self.net.logits, backend=backend)

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.scored(source, target)

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        with torch.no_grad():
            return self.read(source, mask)

    def decode(self, source: Tensor, new: int) -> Tensor:
        if self.how == "eager":
            with torch.inference_mode():
                return super().decode(source, new)
        size = (*source.shape, new)
        if size not in self.steps:
            self.steps[size] = FixedStep(self, *size, self.how, self.backend)
        return self.steps[size].decode(source, new)


def contenders(config: TransformerConfig, state: State, device: str, backend: str) -> Iterator[Contender]:
    """Ours in every way that the device knows, then peers."""
    for dtype in DTYPES:
        for how in ("eager", "compiled", *(["graph"] * (device == "cuda"))):
            yield OnDevice(config, state, device, dtype, how, backend)
    for one in built(config, state, (TorchTransformer, Marian)):
        one.net.to(device)
        yield one


def rows_of(
    one: Measurement, taking_part: list[Contender], truth: Truth, device: str, rounds: int
) -> list[dict[str, Any]]:  # fmt: skip
    """One table; every job ends with the device at rest."""

    def finished(c: Contender) -> Callable[[], None]:
        def job() -> None:
            one.job(c)
            if device == "cuda":
                torch.cuda.synchronize()

        return job

    def rest() -> None:
        for c in taking_part:
            c.evaluated()

    rest()
    base = taking_part[0]
    decoded = {c.name: one.words(c).cpu() for c in taking_part} if one.words and one.source is not None else {}
    errors = {c.name: one.error(c) for c in taking_part}
    rest()
    seconds, _ = interleaved({c.name: finished(c) for c in taking_part}, rounds, say=one.title, rest=rest)
    rows = []
    for c in taking_part:
        words, median = None, Spread.of(seconds[c.name]).median
        if c.name in decoded and c.dtype == "float32" and one.source is not None:
            error = max(errors[c.name] or 0, errors[base.name] or 0)
            words = words_compared(decoded[c.name], decoded[base.name], one.source.cpu(), truth, error)
        rows.append({
            "measurement": one.name, "contender": c.name, "seconds": median, "share_of_limit": one.least(c.dtype) / median,
            "times_eager": asdict(ratio(seconds, c.name, base.name)), "error": errors[c.name], "words": words,
        })  # fmt: skip
    return rows


def line(row: dict[str, Any]) -> str:
    over, share = row["times_eager"]["median"], row["share_of_limit"]
    took = f"{row['seconds'] * 1e3:9.3f} ms, {over:5.2f} of the first, {share:4.0%} of the limit"
    return f"{row['measurement']:<16} {row['contender']:<34} {took}  {row['words'] or ''}"


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="decode_1, train_float32, ..")
    parser.add_argument("--file", type=Path, help="a JSON file for the figures")
    parser.add_argument("--small", action="store_true")
    wanted = parser.parse_args(given)
    if wanted.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: run it with --device cpu --small to see that it works")
        return 1
    warnings.simplefilter("ignore")  # of other libraries, about each other
    config, work = (SMALL, SMALL_WORK) if wanted.small else (BASE, WORK)
    bound = (
        limits.measured(16, 256, device=wanted.device) if wanted.small else limits.measured(4096, 8192, device=wanted.device)
    )
    state = weights(config)
    truth = Truth(config, state, wanted.device)
    taking_part = list(contenders(config, state, wanted.device, "eager" if wanted.small else "inductor"))
    rows = []
    for one in measurements(config, work, bound, truth, wanted.device):
        if wanted.only and one.name not in wanted.only:
            continue
        able = [c for c in taking_part if one.kind in c.does]
        if one.kind == "train":  # which is not captured
            able = [c for c in able if c.dtype == one.dtypes[0] and "graph" not in c.name]
        rows += rows_of(one, able, truth, wanted.device, wanted.rounds)
        for row in rows[-len(able) :]:
            print(line(row))
    name = torch.cuda.get_device_name() if wanted.device == "cuda" else limits.machine()["cpu"]
    command = " ".join(["python -m benchmarks.gpu", *(sys.argv[1:] if given is None else given)])
    date = datetime.date.today().isoformat()
    result = {
        "command": command,
        "date": date,
        "device": name,
        "torch": torch.__version__,
        "limits": asdict(bound),
        "rows": rows,
    }
    if wanted.file:
        wanted.file.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
