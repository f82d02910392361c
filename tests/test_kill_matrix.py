"""Every claim is seen to fail, every mutant is caught, and the committed matrix says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnspec.causes import kill_matrix
from attnspec.kill_matrix import killers
from attnspec.properties.claim import claims
from attnspec.properties.mutants import describe, ids
from attnspec.properties.spec import SPEC, VERSIONS

# No claim of this version reaches these: the region, and the claim of the catalogue that will.
UNREACHED = {
    "softmax.hides_nan": "NaN in a visible input (RB3)",
    "precision.float16_overflow": "float16 inputs",
    "precision.returns_float32": "16-bit inputs",
}
RANDOM = ("state.dropout_left_on", "state.noise")  # which claims notice differs from run to run
MATRIX = kill_matrix()
CAUGHT = [m for m in ids() if m not in UNREACHED]


def test_the_matrix_has_every_mutant() -> None:
    assert list(MATRIX) == ids()


def test_all_but_the_unreached_are_caught() -> None:
    assert [m for m, row in MATRIX.items() if not row] == list(UNREACHED)


def test_there_are_many_different_defects() -> None:
    """Mutants with the same pattern of violated claims count once."""
    assert len({tuple(row) for row in MATRIX.values() if row}) >= 25


@pytest.mark.parametrize("claim", claims())
def test_every_claim_is_seen_to_fail(claim: str) -> None:
    named = claims()[claim].mutants
    assert named
    assert all(claim in MATRIX[mutant] for mutant in named)


@pytest.mark.parametrize("mutant", ids())
def test_every_mutant_says_what_it_imitates(mutant: str) -> None:
    about = describe(mutant)
    assert about.imitates
    assert about.source.startswith(("https://", "frameworks.md: "))


@pytest.mark.parametrize("mutant", CAUGHT)
def test_each_mutant_is_caught_as_the_matrix_says(mutant: str) -> None:
    """Every violated claim of its row, again; that nothing else is violated is checked when the matrix is made."""
    row = MATRIX[mutant]
    if mutant in RANDOM:
        assert "robust.deterministic" in killers(mutant)
    elif mutant.startswith("state.") or any(claims()[c].given is None for c in row):
        assert killers(mutant) == row  # what one claim finds depends on the calls of those before it, so all must run
    else:
        assert killers(mutant, row) == row


def test_the_shipped_file_is_readable() -> None:
    file = Path(__file__).resolve().parents[1] / "properties" / "mutants" / "kill_matrix.json"
    content = json.loads(file.read_text())
    assert content["profile"] == "quick"


def test_the_spec_lists_the_claims() -> None:
    assert list(VERSIONS[SPEC]) == list(claims())
