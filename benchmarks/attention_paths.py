"""Which attention path is fastest where: the measurements behind the rule of impl/attention_paths.py.

    python benchmarks/attention_paths.py          # measures, writes docs/attention_paths.json and the tables of the page
    python benchmarks/attention_paths.py --page   # only writes the tables of docs/attention-paths.md again

Paths take turns, so that a busy moment hits all alike, and a figure is the median of the ratios of neighbours. On a CPU it is
CPU time of one thread. Queries, keys and values are what the layers pass: heads of one projection, so strided.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnspec.impl.attention import attention
from attnspec.impl.attention_paths import FAST_HALF, chosen_path

DOCS = Path(__file__).resolve().parents[1] / "docs"
FILE, PAGE = DOCS / "attention_paths.json", DOCS / "attention-paths.md"
LENGTHS = (32, 64, 128, 256, 512, 1024)
SQUARE = "the whole sequence"


class Call(NamedTuple):
    """One call of attention: what is asked for, and its sizes."""

    what: str
    dtype: str
    gradients: bool
    T: int
    S: int
    causal: bool = False
    padded: bool = False
    G: int = 8
    E: int = 64
    dropout: float = 0.0
    learned_bias: bool = False
    B: int = 8
    H: int = 8
    D: int = 64


def calls() -> Iterator[Call]:
    """All that is measured."""
    both = ("bfloat16", "float32")
    for dtype in both:
        for gradients in (True, False):
            for L in LENGTHS:
                for causal in (False, True):
                    yield Call(SQUARE, dtype, gradients, L, L, causal)
    for dtype in both:
        for gradients in (True, False):
            for L in (32, 128, 512):
                yield Call("padded", dtype, gradients, L, L, padded=True)
            yield Call("2 key/value heads", dtype, gradients, 128, 128, causal=True, G=2)
            yield Call("E = 32", dtype, gradients, 128, 128, E=32)
        yield Call("dropout 0.1", dtype, True, 128, 128, dropout=0.1)
        yield Call("bias with gradients", dtype, True, 128, 128, learned_bias=True)
        for S in (64, 256, 1024):
            yield Call("one query, padded", dtype, False, 1, S, padded=True)
        for B, S in ((1, 128), (1, 1024), (2, 128)):
            yield Call(f"one query, B = {B}", dtype, False, 1, S, B=B)
        yield Call("few queries, padded", dtype, dtype == "bfloat16", 32, 2048, padded=True)
    for dtype in ("float16", "float64"):
        for gradients in (True, False):
            yield Call(SQUARE, dtype, gradients, 128, 128)


class Ready:
    """The arrays of a call, and the call."""

    def __init__(self, call: Call, device: str) -> None:
        self.call, dtype = call, getattr(torch, call.dtype)
        sizes = ((call.T, call.H, call.D), (call.S, call.G, call.D), (call.S, call.G, call.E))
        made = [torch.randn(call.B, *size, device=device).to(dtype).requires_grad_(call.gradients) for size in sizes]
        self.q, self.k, self.v = (x.transpose(1, 2) for x in made)
        self.bias = None
        if call.learned_bias:
            self.bias = torch.randn(call.H, call.T, call.S, device=device).to(dtype).requires_grad_()
        self.leaves = [*made, *([] if self.bias is None else [self.bias])]
        lengths = call.S - torch.arange(call.B, device=device) * (call.S // 16)
        self.mask = (torch.arange(call.S, device=device) < lengths[:, None])[:, None, None] if call.padded else None
        self.cotangent = torch.randn(call.B, call.T, call.H * call.E, device=device).to(dtype)

    def rule(self) -> str:
        """What the rule picks."""
        with torch.set_grad_enabled(self.call.gradients):
            return chosen_path(self.q, self.k, self.v, self.bias, None, self.call.dropout)

    def run(self, path: str) -> None:
        call = self.call
        options: dict[str, Any] = {"mask": self.mask, "bias": self.bias, "causal": call.causal, "dropout": call.dropout}
        with torch.set_grad_enabled(call.gradients):
            out: Tensor = attention(self.q, self.k, self.v, **options, path=path).transpose(1, 2).flatten(2)
            if call.gradients:
                torch.autograd.grad(out, self.leaves, self.cotangent)


def seconds(ready: Ready, path: str, times: int, device: str) -> float:
    """Time of one of several runs."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    for _ in range(times):
        ready.run(path)
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - start) / times


def measured(call: Call, device: str, budget: float) -> dict[str, Any]:
    """One row: milliseconds of SDPA, and how often the others would run in that time."""
    ready = Ready(call, device)
    others = ["explicit"] if device == "cpu" or call.dtype == "float64" or call.dropout else ["explicit", "flex"]
    one = [seconds(ready, path, 1, device) for _ in range(2) for path in ("sdpa", *others)][-1 - len(others) :]
    times = max(1, int(0.01 / max(one)))
    rounds = max(3, min(25, int(budget / (times * sum(one)))))
    took: dict[str, list[float]] = {path: [] for path in ("sdpa", *others)}
    for i in range(rounds):
        for path in took if i % 2 else reversed(took):
            took[path].append(seconds(ready, path, times, device))
    row = {**call._asdict(), "rule": ready.rule(), "rounds": rounds, "sdpa_ms": statistics.median(took["sdpa"]) * 1e3}
    for path in others:
        ratios = [a / b for a, b in zip(took["sdpa"], took[path], strict=True)]
        row[path] = [round(x, 2) for x in (statistics.median(ratios), min(ratios), max(ratios))]
    return row | {"sdpa_ms": round(row["sdpa_ms"], 3)}


def machine(device: str) -> dict[str, Any]:
    """Where this was measured."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    name = found[1] if found else platform.processor()
    if device != "cpu":
        name = torch.cuda.get_device_name()
    return {
        "device": name,
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}, {'with' if FAST_HALF else 'without'} AMX for bfloat16",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "CPU time of the process" if device == "cpu" else "wall clock",
    }


def shown(row: dict[str, Any]) -> str:
    """A ratio; bold where the rule picks explicit."""
    ratio = f"{row['explicit'][0]:.2f}"
    return f"**{ratio}**" if row["rule"] == "explicit" else ratio


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def tables(data: dict[str, Any]) -> str:
    """The tables of the page."""
    of = data["machine"]
    columns = [(d, g, c) for d in ("bfloat16", "float32") for g in (True, False) for c in (False, True)]
    square = {(r["dtype"], r["gradients"], r["causal"], r["T"]): r for r in data["rows"] if r["what"] == SQUARE}
    heads = [f"{d} {'training' if g else 'inference'}{', causal' if c else ''}" for d, g, c in columns]
    first = [[str(L), *(shown(square[*column, L]) for column in columns)] for L in LENGTHS]
    rest = [r for r in data["rows"] if r["what"] != SQUARE or r["dtype"] in ("float16", "float64")]
    second = [
        [r["what"], r["dtype"], "training" if r["gradients"] else "inference", str(r["T"]), str(r["S"]), shown(r)]
        for r in rest
    ]
    worst = min(r["explicit"][0] if r["rule"] == "explicit" else 1 / r["explicit"][0] for r in data["rows"])
    said = (
        f"{of['device']}, {of['instructions']}; torch {of['torch']}, {of['threads']} thread, {of['clock']}; "
        f"`{data['command']}`. At worst the rule's pick runs at {worst:.2f} of the other's speed."
    )
    lines = [said, "", *table(["T = S", *heads], first), ""]
    return "\n".join([*lines, *table(["call", "dtype", "", "T", "S", "SDPA / explicit"], second)])


BEGIN, END = "<!-- measured: begin -->\n", "\n<!-- measured: end -->"


def page(text: str, data: dict[str, Any]) -> str:
    """The page with its tables as of these measurements."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + tables(data) + END + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="do not measure")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=float, default=0.5, metavar="SECONDS", help="for one row")
    parser.add_argument("--file", type=Path, default=FILE)
    wanted = parser.parse_args()
    if not wanted.page:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        rows = []
        for call in calls():
            rows.append(measured(call, wanted.device, wanted.budget))
            print(rows[-1], flush=True)
        data = {"command": "python benchmarks/attention_paths.py", "machine": machine(wanted.device), "rows": rows}
        head = [f'"{key}": {json.dumps(data[key])}' for key in ("command", "machine")]
        body = ",\n".join(json.dumps(row) for row in rows)
        wanted.file.write_text("{" + ",\n".join(head) + ',\n"rows": [\n' + body + "\n]}\n")
    if wanted.file == FILE:
        PAGE.write_text(page(PAGE.read_text(), json.loads(FILE.read_text())))


if __name__ == "__main__":
    main()
