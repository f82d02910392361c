"""What the cases of a claim are asked, whatever they are about: calls of a function (`strategies`), steps of a model
(`programs`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from attnspec.properties.case import Case
    from attnspec.properties.claim import Claim
    from attnspec.properties.subject import Profile

Choice = Literal["never", "drawn", "always"]
Diagnosis = Literal["variations", "exactness", "leak"]


@dataclass(frozen=True)
class Variation:
    """A case with one field changed: which field, and the change in words."""

    field: str
    text: str
    case: Case
    recorded: bool = False  # gradients are recorded while the subject computes


class Given(Protocol):
    """The cases of a claim: which there are, how one is made smaller, and what a minimal one says of its failure.

    A part is what a case may have beyond a plain one: an option of a call, a step of a program.
    """

    @property
    def draws(self) -> int | None:
        """How many cases are drawn at most, beside the fixed ones; None for as many as the budget has."""

    @property
    def share(self) -> float:
        """The share that is drawn of the cases that the budget has."""

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """What is found out about a failure (`independence`)."""

    @property
    def own_dtype(self) -> bool:
        """Whether the subjects compute in a dtype of their own, and not in that of the case."""

    def needs(self, profile: Profile) -> Iterator[str]:
        """Features without which there is no case."""

    def fixed(self, claim: str, profile: Profile, dtype: str, *, brief: bool = False, extra_size: int = 0) -> list[Case]:
        """What is always tried; `brief` leaves a part of it, and sizes that are no edges are larger by `extra_size`."""

    def strategy(self, claim: str, profile: Profile, dtype: str, largest: int) -> SearchStrategy[Case]:
        """Cases for one subject, for Hypothesis; `largest` limits their sizes."""

    def drawn(self, claim: str, profile: Profile, dtype: str, largest: int, seed: int) -> Iterator[Case]:
        """The same cases without Hypothesis, and without an end."""

    def simpler(self, case: Case, profile: Profile) -> Iterator[Case]:
        """The case with one thing less, in the ways that the claim and the subject admit."""

    def variations(self, case: Case, profile: Profile) -> Iterator[Variation]:
        """The case with one field changed, in the ways that the claim and the subject admit."""

    def present(self, case: Case) -> set[str]:
        """The parts that a case has."""

    def choice(self, part: str) -> Choice | None:
        """Whether cases of the claim have the part; None where the claim does not say."""

    def explained_by(self, root: Claim, present: set[str], pinned: set[str]) -> bool:
        """Whether a violation of `root` explains one whose minimal case has these parts, some of them in every case."""

    def hinges_on(self, root: Claim, case: Case) -> bool:
        """Whether a minimal case kept what `root` is about, though it could have shed it: without it the claim holds."""
