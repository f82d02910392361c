"""Runs of one claim on the reference and on wrong versions of it, without a search: what the tests of claims share."""

from __future__ import annotations

from collections.abc import Iterator

from attnspec.properties.case import Case
from attnspec.properties.claim import Claim, claims
from attnspec.properties.showcases import showcases
from attnspec.properties.subject import FEATURES, Profile, Setting
from attnspec.properties.twins import GradientTwin, Twin, TwinSubject
from attnspec.properties.verdict import Inapplicable, Violation

EVERYTHING = Profile(settings={"empty_row": Setting("zero", "declared")}, features=dict.fromkeys(FEATURES))


def some_cases(claim: Claim, dtype: str, most: int) -> list[Case]:
    """Fixed cases of the claim, evenly over all that it has."""
    assert claim.given is not None
    cases = showcases(claim.given, claim.id, EVERYTHING, dtype)
    return cases[:: max(1, len(cases) // most)]


def violations(
    name: str, dtype: str, bug: Twin | None = None, gradient_bug: GradientTwin | None = None, most: int = 8
) -> Iterator[Violation | None]:
    """For each of some cases the violation by the reference with this defect, or None; what no bound covers is left out."""
    claim, subject = claims()[name], TwinSubject(EVERYTHING, bug, gradient_bug)
    for case in some_cases(claim, dtype, most):
        try:
            claim.body(subject, case)
        except Violation as found:
            yield found
        except Inapplicable:
            continue
        else:
            yield None


def holds(name: str, dtype: str) -> bool:
    """Whether the reference itself passes every case, of which there is one."""
    found = list(violations(name, dtype))
    return bool(found) and not any(found)
