"""This project's Transformer against those that a user could pick instead (`make bench`).

The first paper's base model, the same weights everywhere, all contenders taking turns in one run. Outputs are compared
first: errors against the float64 reference, and decoded words. Writes docs/speed.json and docs/speed.md. Ctrl-C ends early
and keeps what is there. `--small` is a model of no use that takes seconds, for tests.

    python -m benchmarks.models [--threads N] [--rounds N] [--clock cpu] [--only decode_1 ...] [--folder DIR] [--small]
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from attnspec.impl.config import TransformerConfig
from benchmarks import growth, limits, speed_page
from benchmarks.contenders import Contender, Ours
from benchmarks.measure import CLOCKS, Spread, interleaved, progress, ratio
from benchmarks.outputs import Truth, words_compared
from benchmarks.paper_model import BASE, SMALL, SMALL_WORK, START, WORK, Work, padded_text, text, weights
from benchmarks.peers import ALL, NEEDS, CTranslate2, built, version

FOLDER = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True)
class Measurement:
    """One table: what is run, the least time that the machine allows for it, and how outputs are compared."""

    name: str
    title: str
    kind: str  # of Contender.does
    dtypes: tuple[str, ...]
    job: Callable[[Contender], object]
    least: Callable[[str], float]  # of a dtype
    error: Callable[[Contender], float | None]
    words: Callable[[Contender], torch.Tensor] | None = None
    source: torch.Tensor | None = None


def measurements(
    config: TransformerConfig, work: Work, bound: limits.Limits, truth: Truth, device: str = "cpu"
) -> list[Measurement]:
    """All tables."""
    needs = limits.Needs(config)
    out = []
    for B, new in work.new:
        source = text(config, B, work.source).to(device)
        title = f"Greedy decoding, {B} row{'s' * (B > 1)}: source of {work.source} tokens, {new} words"

        def job(c: Contender, source: torch.Tensor = source, new: int = new) -> torch.Tensor:
            return c.decode(source, new)

        def least(dtype: str, B: int = B, new: int = new) -> float:
            return needs.decode(bound, B, work.source, new, dtype)

        floats = ("float32", "int8")
        out.append(Measurement(f"decode_{B}", title, "decode", floats, job, least, truth.error_of_logits, job, source))
    B, T = work.train
    source, target, labels = (text(config, B, T, seed).to(device) for seed in (6, 7, 8))
    target[:, 0] = START
    for dtype, in_words in (("float32", "float32"), ("bfloat16", "bfloat16 with float32 master weights")):
        title = f"Training step, {in_words}: {B} rows of {T} + {T} tokens, forward and backward, no optimiser"
        out.append(Measurement(f"train_{dtype}", title, "train", (dtype,), lambda c: c.train(source, target, labels),
                               lambda d, B=B, T=T: needs.train(bound, B, T, d), truth.error_of_gradient))  # fmt: skip
    B, T = work.encode
    full = text(config, B, T).to(device)
    words, mask = (one.to(device) for one in padded_text(config, B, T))
    share = f"{int(mask.sum())} of {mask.numel()} tokens are real"
    for name, title, job_of, rows, padded in (
        ("full", f"Encoding, full: {B} rows of {T} tokens", lambda c: c.encode(full, None), [T] * B, False),
        ("padded", f"Encoding, padded: {B} rows, {share}", lambda c: c.encode(words, mask), mask.sum(1).tolist(), True),
    ):
        out.append(Measurement(f"encode_{name}", title, "encode", ("float32", "int8"), job_of,
                               lambda dtype, rows=rows: needs.encode(bound, rows, dtype),
                               lambda c, padded=padded: truth.error_of_memory(c, padded)))  # fmt: skip
    return out


def run(
    one: Measurement, contenders: list[Contender], truth: Truth, rounds: int, clock: str
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of one table, and whether it is complete."""
    taking_part = [c for c in contenders if one.kind in c.does and c.dtype in one.dtypes]
    ours = taking_part[0]
    assert ours.name.startswith(Ours.name)

    def rest() -> None:
        for c in taking_part:
            c.evaluated()

    rest()
    errors, words = {}, {}
    for c in taking_part:
        progress(f"{one.title}: outputs of {c.name}")
        errors[c.name] = one.error(c)
        rest()
    if one.words is not None:
        own = one.words(ours)
        words = {
            c.name: words_compared(one.words(c), own, one.source, truth, max(errors[c.name] or 0, errors[ours.name] or 0))
            for c in taking_part if c.dtype == "float32"
        }  # fmt: skip
    seconds, complete = interleaved(
        {c.name: (lambda c=c: one.job(c)) for c in taking_part}, rounds, clock=clock, say=one.title, rest=rest
    )
    if not seconds[ours.name]:
        return [], complete
    rows = []
    for c in taking_part:
        spread, over = Spread.of(seconds[c.name]), ratio(seconds, c.name, ours.name)
        share = one.least(c.dtype) / spread.median if c.dtype in ("float32", "bfloat16") else None
        rows.append({
            "measurement": one.name, "title": one.title, "contender": c.name, "dtype": c.dtype, "seconds": spread.median,
            "times_ours": asdict(over), "share_of_limit": share, "error": errors[c.name], "words": words.get(c.name),
            "rounds": len(seconds[c.name]), "note": c.notes.get(one.kind, ""),
        })  # fmt: skip
    return rows, complete


def measure_all(
    result: dict[str, Any],
    contenders: list[Contender],
    truth: Truth,
    bound: limits.Limits,
    work: Work,
    wanted: argparse.Namespace,
) -> None:
    """Fills in the rows, and prints each table when it is there."""
    for one in measurements(truth.config, work, bound, truth):
        if wanted.only and one.name not in wanted.only:
            continue
        rows, result["complete"] = run(one, contenders, truth, wanted.rounds, wanted.clock)
        result["rows"] += rows
        print(speed_page.table(one.title, rows), flush=True)
        if not result["complete"]:
            return
    if not wanted.only or "growth" in wanted.only:
        found = growth.measured(truth.config, truth.state, work, bound, wanted.rounds, wanted.clock)
        result["growth"], result["complete"] = found
        print(speed_page.growth_tables(result["growth"]))


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu ignores other programs, but is for one thread and does not see CTranslate2",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="decode_1, train_float32, growth, ..; the pages are not written"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where speed.json and speed.md go")
    parser.add_argument("--small", action="store_true")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    wanted = arguments(given)
    warnings.simplefilter("ignore")  # of other libraries, about each other
    torch.set_num_threads(wanted.threads)
    config, work = (SMALL, SMALL_WORK) if wanted.small else (BASE, WORK)
    missing = sorted({NEEDS[kind] for kind in ALL if version(kind) is None})
    for name in missing:
        print(f"{name}: not installed, left out; `make bench` installs it")
    bound = limits.measured(16, 256, clock=wanted.clock) if wanted.small else limits.measured(clock=wanted.clock)
    state = weights(config)
    truth = Truth(config, state)
    seen = [kind for kind in ALL if wanted.clock == "wall" or not issubclass(kind, CTranslate2)]  # another process
    contenders = built(config, state, tuple(seen))
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.models", *(given if given is not None else sys.argv[1:])]),
        "date": datetime.date.today().isoformat(), "machine": limits.machine(), "clock": wanted.clock,
        "versions": {NEEDS.get(type(c), "torch"): version(type(c)) for c in contenders}, "missing": missing,
        "limits": asdict(bound), "rows": [], "growth": [], "complete": True,
    }  # fmt: skip
    try:
        measure_all(result, contenders, truth, bound, work, wanted)
    except KeyboardInterrupt:  # between rounds `interleaved` has caught it
        result["complete"] = False
    if not wanted.only:
        wanted.folder.mkdir(parents=True, exist_ok=True)
        (wanted.folder / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
        (wanted.folder / "speed.md").write_text(speed_page.page(result))
    other = [row["contender"] for row in result["rows"] if (row["words"] or "same") not in ("same", "tie")]
    if other:
        print(f"decoded other words than {Ours.name}: {', '.join(other)}")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
