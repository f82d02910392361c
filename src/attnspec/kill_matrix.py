"""The kill matrix: which claims each planted defect violates, in a quick audit and beyond it.

A claim that no mutant violates proves nothing; a mutant that no claim violates is a defect we would miss. Beside the matrix
stands which mutants only a ci audit catches, and what confirms each: a claim that catches it in ci, and at three other seeds
and sizes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from attnspec.auditor import DEFAULT_SEED, audit
from attnspec.properties.claim import claims
from attnspec.properties.oracle import long_memory
from attnspec.properties.planted import ids, target

FILE = Path(__file__).resolve().parent / "properties" / "mutants" / "kill_matrix.json"

# Written by someone who knew the claims; all others were written by authors who had not read them.
NOT_BLIND = (
    "calls.upper_layer_reads_the_first_word",
    "calls.upper_layer_reads_the_words",
    "cross.causal_on_the_memory",
    "cross.last_word_unread",
    "cross.mask_forgotten_in_steps",
    "cross.memory_stays",
    "cross.padding_read_at_once",
    "declared.always_causal",
    "declared.scale_of_another_width",
    "precision.keys_in_eight_bits",
    "precision.values_in_eight_bits",
    "robust.index_error_for_one_query",
    "robust.positions_before_heads",
    "robust.raises_on_large_scores",
    "robust.refuses_boolean_mask",
    "robust.refuses_odd_lengths",
    "robust.returns_float64",
    "robust.true_means_hidden",
    "shapes.bits_of_narrow_keys_are_integers",
    "shapes.mask_cut_to_fit",
    "shapes.narrow_values_lose_their_fractions",
    "shapes.no_keys_is_garbage",
    "shapes.shortest_wins",
    "shapes.sixteen_bit_positions",
    "surroundings.autocast_forgets_the_scale",
    "surroundings.autocast_to_eight_bits",
    "state.running_statistics",
    "surroundings.default_dtype",
    "surroundings.reseeds",
)
NO_DEFECT = {"mask.hidden-nan"}  # violated by the correct function, too, from which the mutants are made
# Where else each mutant is to be caught, with the seed: in ci, and in profiles with other sizes.
CONFIRMING_PROFILES = {"ci": DEFAULT_SEED, "elsewhere-1": 31, "elsewhere-2": 41, "elsewhere-3": 59}


def killers(
    mutant: str,
    select: Iterable[str] = (),
    *,
    profile: str = "kill",
    seed: int = DEFAULT_SEED,
) -> list[str]:
    """The claims that the mutant violates, in the order of the registry. Nothing is shrunk: only the verdicts count."""
    with long_memory():
        report = audit(target(mutant), select=tuple(select), profile=profile, seed=seed, in_process=True)
    violated = {record.claim for record in report.violations} - NO_DEFECT
    return [claim for claim in claims() if claim in violated]


def confirmations(row: tuple[str, list[str]]) -> tuple[str, dict[str, str | None]]:
    """For each of CONFIRMING_PROFILES a claim that catches the mutant there: one of its row, else any; None for none."""
    mutant, known = row
    # One after the other; then with others, since some only see what happens while those run; at last all of them.
    tries = [*([claim] for claim in known), [*known, "reference.forward", "softmax.large-scores"], []]
    found: dict[str, str | None] = {}
    for profile, seed in CONFIRMING_PROFILES.items():
        caught = (killers(mutant, some, profile=profile, seed=seed) for some in tries)
        found[profile] = next((claim for row in caught for claim in row), None)
    return mutant, found


def _row(mutant: str, profile: str = "kill") -> tuple[str, list[str]]:
    return mutant, killers(mutant, profile=profile)


def _each(work: Callable[[Any], tuple[str, Any]], jobs: list[Any], what: str, processes: int) -> dict[str, Any]:
    """The jobs' results by mutant, worked out side by side, with a line of progress each."""
    done: dict[str, Any] = {}
    with get_context("fork").Pool(processes, maxtasksperchild=64) as pool:
        for mutant, result in pool.imap(work, jobs):
            done[mutant] = result
            print(f"{what} {len(done):4}/{len(jobs)} {mutant:36} {result}", file=sys.stderr)  # noqa: T201 - progress
    return done


def compute(chosen: Sequence[str] = (), processes: int = 2) -> dict[str, Any]:
    """The rows of the chosen mutants anew, all others as committed; every row for none chosen (an hour on two cores)."""
    import torch  # before the fork, so that the workers share it

    torch.set_num_threads(1)
    before = read() if chosen else {"killed_by": {}, "only_in_ci": {}, "confirmed_by": {}}
    wanted = [mutant for mutant in ids() if not chosen or mutant in chosen]
    rows = _each(_row, wanted, "quick", processes)
    missed = [mutant for mutant, row in rows.items() if not row]
    in_ci = _each(partial(_row, profile="ci"), missed, "ci", processes) if missed else {}
    confirmed = _each(confirmations, [(mutant, rows[mutant] or in_ci[mutant]) for mutant in wanted], "confirm", processes)
    matrix: dict[str, Any] = {"profile": "quick", "seed": DEFAULT_SEED}
    for part, new in (("killed_by", rows), ("only_in_ci", in_ci), ("confirmed_by", confirmed)):
        kept = {mutant: row for mutant, row in before[part].items() if mutant not in wanted} | new
        matrix[part] = {mutant: kept[mutant] for mutant in ids() if mutant in kept}
    return matrix


def write(matrix: dict[str, Any], file: Path = FILE) -> None:
    """The matrix as JSON that `attnspec` ships, to name likely causes."""
    file.write_text(json.dumps(matrix, indent=1) + "\n", encoding="utf-8")


def read(file: Path = FILE) -> dict[str, Any]:
    """The committed matrix."""
    return dict(json.loads(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    write(compute(sys.argv[1:]))
