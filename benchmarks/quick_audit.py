"""Where the time of a quick audit goes (`make bench`): start and import, subject, engine with oracle.

Whole commands, as a user runs them; nothing is asserted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import torch

def attention(q, k, v, mask=None, causal=False):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).nan_to_num() @ v
"""
ROUNDS = 3


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, results = Path(folder) / "plain.py", Path(folder) / "results.ndjson"
        file.write_text(PLAIN)
        audit = [sys.executable, "-m", "attnspec", "audit", f"{file}::attention", "--json", str(results)]
        commands = {
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "attnspec --help": [sys.executable, "-m", "attnspec", "--help"],
            "attnspec audit plain.py::attention": audit,
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):  # interleaved, so that a busy moment hits all alike
            for name, command in commands.items():
                seconds[name].append(timed(command))
        for name, each in seconds.items():
            print(f"{name:<40} {statistics.median(each):6.2f} s   ({min(each):.2f} .. {max(each):.2f})")
        lines = [json.loads(line) for line in results.read_text().splitlines()]
    records = [line for line in lines if line["format"] == "attnspec-result/1"]
    for part in ("subject", "oracle", "engine"):
        total = sum(r["seconds"].get(part, 0.0) for r in records)
        print(f"  of the last audit, {part:<22} {total:6.2f} s")
    print(f"  cases                                  {sum(r['cases'] for r in records if r['seconds']):6}")


if __name__ == "__main__":
    main()
