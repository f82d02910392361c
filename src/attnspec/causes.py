"""What explains a violation: another violation that implies it, and planted defects that show the same pattern."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files

from attnspec.properties.case import Case
from attnspec.properties.claim import claims
from attnspec.properties.verdict import Record, Verdict

# Of two claims on the same thing that are both violated, the earlier one here says it more directly.
DIRECTNESS = (
    "convention", "contract", "robust", "batch", "heads", "mask.causal", "mask.window", "mask.hidden-content", "mask",
    "softmax", "scale", "reference", "grad",
)  # fmt: skip

LEVELS = ("must", "should", "may")
SLIGHT = 1000.0  # in units of the bound; float32 inside float64 exceeds it by 10^7, a wrong mask by 10^14


def explain(records: Sequence[Record]) -> None:
    """Fills in `implied_by` and `causes` of the violated records."""
    violated = {r.claim: r for r in reversed(records) if r.verdict is Verdict.VIOLATED}
    held = {r.claim for r in records if r.verdict is Verdict.HOLDS} - set(violated)
    roots: list[str] = []
    implied: dict[str, str] = {}
    clear = any(not _slight(r) for r in violated.values())
    for claim in sorted(violated, key=lambda c: (clear and _slight(violated[c]), *_directness(c))):
        record = violated[claim]
        # A root never explains what counts more than itself: a warning must not hide a failure.
        able = [r for r in roots if LEVELS.index(violated[r].level) <= LEVELS.index(record.level)]
        root = next(iter(able), None) if clear and _slight(record) else _root(record, able)
        if root is not None:
            implied[claim] = root
        else:
            roots.append(claim)
    named = {mutant for root in roots for mutant in claims()[root].mutants}
    causes = likely_causes(set(violated), held, named) if violated else []
    for record in records:
        if record.verdict is Verdict.VIOLATED:
            record.implied_by, record.causes = implied.get(record.claim), causes


def _slight(record: Record) -> bool:
    """A bound exceeded by little, beside a claim that is violated outright: a consequence, not a cause.

    Where two calls of the subject are compared, the bound presumes that each is right; a wrong one may round differently.
    """
    return record.decided_by == "bound" and record.ratio is not None and float(record.ratio) < SLIGHT


def _directness(claim: str) -> tuple[int, str]:
    family = claim.partition(".")[0]
    return DIRECTNESS.index(claim if claim in DIRECTNESS else family) if family in DIRECTNESS else len(DIRECTNESS), claim


def _root(record: Record, roots: Sequence[str]) -> str | None:
    """The violated claim that explains this one.

    A minimal case has shed every option that the failure does not need. So one that kept an option is explained by a
    violated claim about that option; one that kept none by a violated claim that is about none.
    """
    if record.case is None:
        return None
    needed = options(record.case)
    for root in roots:
        about = claims()[root].about
        if about in needed or (about is None and claims()[root].given is not None and not needed - {"heads", "batch"}):
            return root
    return None


def options(case: Case) -> set[str]:
    """What a case has beyond a plain call of one head and one batch row."""
    z, call, mask = case.sizes, case.call, case.mask
    present = {
        "causal": call.causal,
        "window": call.window is not None,
        "softcap": call.softcap is not None,
        "scale": call.scale is not None,
        "mask": mask is not None,
        "bias": mask is not None and mask.kind == "bias",
        "empty": mask is not None and bool(mask.empty),
        "grouped": z.H != z.G,
        "heads": z.H > 1,
        "batch": z.B > 1,
    }
    return {name for name, there in present.items() if there}


@cache
def kill_matrix() -> dict[str, list[str]]:
    """Claims that each mutant violates, as committed."""
    file = files("attnspec.properties.mutants") / "kill_matrix.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["killed_by"]) if file.is_file() else {}


def likely_causes(
    violated: set[str], held: set[str], named: Collection[str] = (), most: int = 2
) -> list[tuple[str, int, int]]:
    """Mutants ranked by how many of the claims that were exercised they agree on: (id, agreeing, exercised).

    Only mutants that violate a claim that is violated here are causes at all. Among equals, those that a root claim names
    come first, then those whose other patterns are the plainest.
    """
    exercised = violated | held
    ranked = []
    for mutant, killers in kill_matrix().items():
        pattern = set(killers) & exercised
        if pattern & violated:
            ranked.append((mutant, len(exercised) - len(pattern ^ violated), len(exercised)))
    ranked.sort(key=lambda row: (-row[1], row[0] not in named, len(kill_matrix()[row[0]]), row[0]))
    return ranked[:most]
