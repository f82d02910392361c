"""How near correct implementations come to the bounds: the table of docs/bounds.md.

    python benchmarks/bounds.py --cases 2000
    python benchmarks/bounds.py --power

Prints the largest r by dtype, class and quantity, the median, and the case and implementation of each r above --above; with
--power, r of wrong outputs.
"""

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attnspec.properties.bounds import Analysis, of_output
from attnspec.properties.bounds_classes import precision
from attnspec.properties.bounds_oracle import attention
from tests.properties.bound_cases import Case, drawn, exact, held, make
from tests.properties.bound_ratios import CLASSES, ratio, ratios
from tests.properties.bound_subjects import SUBJECTS, computed

QUANTITIES = ("o", "weights", "lse", "q", "k", "v", "bias")


def measured(dtype: str, kind: str, cases: int, above: float, seed: int, inputs: str | None) -> dict[str, list[float]]:
    """r by quantity, over all implementations of the class."""
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for number in range(cases):
        case = drawn(np.random.default_rng((seed, number)), dtype, inputs)
        for (name, quantity), r in ratios(case, kind).items():
            found[quantity].append(r)
            if r > above:
                print(f"r = {r:.3g}: {quantity} of {name}, {dtype} {kind}, case {number}", file=sys.stderr)
    return found


def long_rows(dtype: str) -> Case:
    """The last 64 queries of 2048 keys, causal, normal numbers of width 64."""
    rng = np.random.default_rng(0)
    q, k, v = (held(rng.normal(size=(1, 1, rows, 64)), dtype) for rows in (64, 2048, 2048))
    visible = np.tri(2048, dtype=bool)[None, None, -64:]
    return Case(q, k, v, np.zeros_like(q), visible, None, 0.125, None, dtype)


def short_rows(dtype: str) -> Case:
    return make(0, "normal", "causal", 1.0, (9, 9, 8, 8), (1, 1), None, dtype)


def wrong(case: Case) -> dict[str, np.ndarray]:
    """Wrong outputs, exact otherwise."""
    n = case.k.shape[2]
    keys, now = np.arange(n), np.arange(n - case.q.shape[2], n)[:, None]

    def seeing(visible: np.ndarray) -> np.ndarray:
        return exact(replace(case, visible=visible[None, None]))["o"]

    swapped = case.v.copy()
    swapped[:, :, [0, 1]] = swapped[:, :, [1, 0]]
    finite = np.where(case.visible, 0.0, -10.0)
    return {
        "causal, one key too few": seeing(keys < np.maximum(now, 1)),
        "causal, one key too many": seeing(keys <= now + 1),
        "last key dropped": seeing((keys <= now) & (keys < n - 1)),
        "two values swapped": exact(replace(case, v=swapped))["o"],
        "scale 1/D": exact(replace(case, scale=case.scale**2))["o"],
        "scale 1 % too large": exact(replace(case, scale=case.scale * 1.01))["o"],
        "mean of values": exact(replace(case, scale=0.0))["o"],
        "-10 for -inf": exact(replace(case, visible=np.ones_like(case.visible), bias=finite))["o"],
        "1e-3 in the denominator": exact(case)["o"] / (1 + 1e-3 * exact(case)["weights"].max(-1, keepdims=True)),
        "computed in bfloat16": computed(replace(case, dtype="bfloat16"), SUBJECTS["stored"]["plain"])["o"],
    }


def power() -> None:
    """r of each wrong output, 9 keys and 2048 keys, by dtype and class."""
    columns = [(dtype, kind) for dtype, kind in CLASSES if kind != "stored"]
    print(f"| wrong | {' | '.join(f'{dtype} {kind}' for dtype, kind in columns)} |\n{'|---' * (len(columns) + 1)}|")
    found: dict[str, list[str]] = {}
    for dtype, kind in columns:
        both = []
        for case in (short_rows(dtype), long_rows(dtype)):
            y = Analysis(attention(case.q, case.k, case.v, **case.options()), precision(kind, dtype))
            want, error = exact(case)["o"], of_output(y).error
            both.append({name: ratio(held(got, dtype), want, error) for name, got in wrong(case).items()})
        for name in both[0]:
            found.setdefault(name, []).append(f"{both[0][name]:.1g} / {both[1][name]:.1g}")
    for name, cells in found.items():
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="of each dtype and class")
    parser.add_argument("--above", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", default=None, help="one kind of inputs only")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--kind", default=None)
    parser.add_argument("--power", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if asked.power:
        power()
        return
    print(f"| dtype, class | {' | '.join(QUANTITIES)} |\n{'|---' * (len(QUANTITIES) + 1)}|")
    for dtype, kind in CLASSES:
        if (asked.dtype or dtype, asked.kind or kind) != (dtype, kind):
            continue
        found = measured(dtype, kind, asked.cases, asked.above, asked.seed, asked.inputs)
        cells = [f"{max(r):.2g} / {np.median(r):.1g}" if r else "-" for r in found.values()]
        print(f"| {dtype} {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
