"""Every claim is seen to fail, every mutant is caught, and the committed matrix says how.

The whole matrix is half an hour of work (`make docs`). Here each mutant is caught again by one claim of its row, another one
with each commit.
"""

from __future__ import annotations

import pytest

from attnspec.kill_matrix import CONFIRMING_PROFILES, NO_DEFECT, NOT_BLIND, killers, read
from attnspec.properties.claim import claims
from attnspec.properties.planted import describe, ids
from attnspec.properties.spec import SPEC, VERSIONS

MATRIX = read()
TURNS = 4
ROWS: dict[str, list[str]] = MATRIX["killed_by"]


def test_the_matrix_has_every_mutant() -> None:
    assert list(ROWS) == ids()
    assert list(MATRIX["confirmed_by"]) == ids()


def test_quick_catches_nearly_all_and_ci_the_rest() -> None:
    missed = [m for m, row in ROWS.items() if not row]
    assert len(missed) <= 0.03 * len(ROWS)
    assert missed == list(MATRIX["only_in_ci"])
    assert all(MATRIX["only_in_ci"].values())


def test_there_are_many_different_defects() -> None:
    """Mutants with the same pattern of violated claims count once."""
    assert len({tuple(row) for row in ROWS.values() if row}) >= 90


def test_most_mutants_were_written_without_reading_the_claims() -> None:
    assert set(NOT_BLIND) <= set(ids())
    assert len(ids()) > 2 * len(NOT_BLIND)


def test_each_mutant_is_caught_in_ci_and_at_other_seeds_and_sizes() -> None:
    assert {tuple(found) for found in MATRIX["confirmed_by"].values()} == {tuple(CONFIRMING_PROFILES)}
    assert {m: found for m, found in MATRIX["confirmed_by"].items() if None in found.values()} == {}


@pytest.mark.parametrize("claim", [c for c in claims() if c not in NO_DEFECT])
def test_every_claim_is_seen_to_fail(claim: str) -> None:
    named = claims()[claim].mutants
    assert named
    assert all(claim in ROWS[mutant] for mutant in named)


@pytest.mark.parametrize("mutant", ids())
def test_every_mutant_says_what_it_imitates(mutant: str) -> None:
    about = describe(mutant)
    assert about.imitates
    assert about.source.startswith(("https://", "frameworks.md: ", "huggingface.md: ", "claims.md: ", "arXiv:"))


@pytest.mark.parametrize("mutant", [m for m, row in ROWS.items() if row])
def test_each_mutant_is_caught_as_the_matrix_says(mutant: str, commit_seed: int) -> None:
    """By one claim of its row; what several claims find together is checked when the matrix is made."""
    row = [c for c in ROWS[mutant] if claims()[c].given is not None]
    alone = bool(row) and mutant.partition(".")[0] != "state"  # what a claim finds of those depends on the calls before it
    if not alone and (ids().index(mutant) + commit_seed) % TURNS:
        pytest.skip("an audit of its own, which has its turn with another commit")
    chosen = row[commit_seed % len(row)] if alone else ""
    if not alone or killers(mutant, [chosen]) != [chosen]:  # others remember too; claims without cases need the others to run
        assert set(killers(mutant, ROWS[mutant] if row else ())) & set(ROWS[mutant])


def test_the_spec_lists_the_claims() -> None:
    assert list(VERSIONS[SPEC]) == list(claims())
