"""What explains a violation: another violation that implies it, and planted defects that show the same pattern."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files

from attnspec.properties.claim import claims
from attnspec.properties.verdict import Record, Verdict

# Of two claims on the same thing that are both violated, the earlier one here says it more directly.
DIRECTNESS = (
    "convention", "contract", "robust", "batch", "heads", "mask.causal", "mask.window", "mask.hidden-content", "mask",
    "softmax", "scale", "reference", "grad", "cross", "cache.step-by-step", "cache.chunks", "cache", "cache.ragged-rows",
    "cache.programs",
)  # fmt: skip

LEVELS = ("must", "should", "may")
MOST = 12  # mutants that agree equally well; more are no hint
SLIGHT = 1000.0  # in units of the bound; float32 inside float64 exceeds it by 10^7, a wrong mask by 10^14


def explain(records: Sequence[Record]) -> None:
    """Fills in `implied_by` and `causes` of the violated records."""
    violated = {r.claim: r for r in reversed(records) if r.verdict is Verdict.VIOLATED}
    held = {r.claim for r in records if r.verdict is Verdict.HOLDS} - set(violated)
    clear = any(not _slight(r) for r in violated.values())
    order = sorted(violated, key=lambda c: (clear and _slight(violated[c]), *_directness(c)))
    implied = _folded(order, violated, clear)
    causes = _causes(order, implied, held)
    candidates = [c for c in order if not _needs_what_the_root_is_about(c, implied, violated)]
    if left := _left_over(candidates, implied, causes):
        implied = _folded(order, violated, clear, own=left)
        causes = _causes(order, implied, held)
    for record in records:
        if record.verdict is Verdict.VIOLATED:
            record.implied_by = implied.get(record.claim)
            record.causes = causes[record.implied_by or record.claim]


def _folded(order: Sequence[str], violated: dict[str, Record], clear: bool, own: str | None = None) -> dict[str, str]:
    """Each violated claim that another one explains, and which; `own` is explained by none."""
    roots: list[str] = []
    implied: dict[str, str] = {}
    for claim in sorted(order, key=lambda c: c != own):
        record = violated[claim]
        # A root never explains what counts more than itself: a warning must not hide a failure.
        able = [r for r in roots if LEVELS.index(violated[r].level) <= LEVELS.index(record.level) and _together(r, claim)]
        # What is left over explains only what came after it in the order, as if it had been found there.
        able = [r for r in able if r != own or order.index(r) < order.index(claim)]
        root = next(iter(able), None) if clear and _slight(record) else _root(record, able)
        if root is not None and claim != own:
            implied[claim] = root
        else:
            roots.append(claim)
            roots.sort(key=lambda r: (r == own, order.index(r)))
    return implied


def _together(root: str, claim: str) -> bool:
    """Whether one planted defect violates both; claims that none violates are left to the reading of their cases."""
    if not (_seen_to_fail(root) and _seen_to_fail(claim)):
        return True
    return any({root, claim} <= set(row) for row in kill_matrix().values())


def _seen_to_fail(claim: str) -> bool:
    """Whether any planted defect violates the claim, so that the matrix says something of it."""
    return any(claim in row for row in kill_matrix().values())


def _causes(order: Sequence[str], implied: dict[str, str], held: set[str]) -> dict[str, list[tuple[str, int, int]]]:
    """Likely causes of each root with what it implies."""
    groups = {root: {root, *(c for c in implied if implied[c] == root)} for root in order if root not in implied}
    return {root: likely_causes(set(order), held, claims()[root].mutants, group) for root, group in groups.items()}


def _left_over(order: Sequence[str], implied: dict[str, str], causes: dict[str, list[tuple[str, int, int]]]) -> str | None:
    """The most direct claim folded under another although none of the best causes violates both: a second defect, perhaps."""
    for claim in (c for c in order if c in implied):
        rows = [set(kill_matrix()[mutant]) for mutant, _, _ in _best(causes[implied[claim]])]
        if rows and _seen_to_fail(claim) and not any({claim, implied[claim]} <= row for row in rows):
            return claim
    return None


def _needs_what_the_root_is_about(claim: str, implied: dict[str, str], violated: dict[str, Record]) -> bool:
    """Whether the minimal case kept what the explaining claim is about: without it the claim holds."""
    case, given = violated[claim].case, claims()[claim].given
    if claim not in implied or case is None or given is None:
        return False
    return given.hinges_on(claims()[implied[claim]], case)


def _best(causes: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    return [row for row in causes if row[1] == causes[0][1]]


def _slight(record: Record) -> bool:
    """A bound exceeded by little, beside a claim that is violated outright: a consequence, not a cause.

    Where two calls of the subject are compared, the bound presumes that each is right; a wrong one may round differently.
    """
    return record.decided_by == "bound" and record.ratio is not None and float(record.ratio) < SLIGHT


def _directness(claim: str) -> tuple[int, str]:
    family = claim.partition(".")[0]
    return DIRECTNESS.index(claim if claim in DIRECTNESS else family) if family in DIRECTNESS else len(DIRECTNESS), claim


def _root(record: Record, roots: Sequence[str]) -> str | None:
    """The violated claim that explains this one: a minimal case has shed all that the failure does not need."""
    if record.case is None:
        return None
    given = claims()[record.claim].given
    asked = given or claims()[record.case.claim].given  # a claim without cases shows one of the claim that met it
    assert asked is not None
    present = asked.present(record.case)
    pinned = {part for part in present if given is not None and given.choice(part) == "always"}
    return next((root for root in roots if asked.explained_by(claims()[root], present, pinned)), None)


@cache
def kill_matrix() -> dict[str, list[str]]:
    """Claims that each mutant violates, as committed."""
    file = files("attnspec.properties.mutants") / "kill_matrix.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["killed_by"]) if file.is_file() else {}


def likely_causes(
    violated: set[str], held: set[str], named: Collection[str] = (), group: set[str] | None = None
) -> list[tuple[str, int, int]]:
    """Mutants ranked by how many of the claims that were exercised they agree on: (id, agreeing, exercised).

    Claims that no mutant violates are not counted. `group` is one violated claim with all that it implies, where there are
    several: then the other violated claims are not held against a mutant that leaves them alone. Listed are those that agree
    best, and the next best where that is one alone. None are if more than MOST agree best, since that says nothing, or if the
    best share fewer than half of the claims that either they or the group violate, whatever both leave alone. Among equals,
    those in `named` come first, then those that explain most of the other violated claims, then those whose other patterns
    are the plainest.
    """
    exercised = {claim for claim in violated | held if _seen_to_fail(claim)}
    group = (group or violated) & exercised
    ranked = []
    for mutant, killers in kill_matrix().items():
        pattern = set(killers) & exercised
        wrong = (group - pattern) | (pattern - violated)
        if len(pattern & group) >= max(1, len(wrong)):
            ranked.append((mutant, len(exercised) - len(wrong), len(exercised)))

    def order(row: tuple[str, int, int]) -> tuple[int, bool, int, int, str]:
        killers = kill_matrix()[row[0]]
        return -row[1], row[0] not in named, -len(violated & set(killers)), len(killers), row[0]

    ranked.sort(key=order)
    equals = _best(ranked) if ranked else []
    return [] if len(equals) > MOST else equals if len(equals) > 1 else ranked[:2]
