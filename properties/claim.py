"""Claims: falsifiable statements with a source, a precondition, a case strategy, an oracle, an allowed error and mutants.

The decorator `claim` registers one function; the test suite, the pytest plugin, the command line and the generated
catalogue all read the same registry.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from attnspec.properties.subject import DTYPES
from attnspec.properties.verdict import Level

if TYPE_CHECKING:
    from attnspec.properties.case import Case
    from attnspec.properties.given import Given
    from attnspec.properties.subject import Profile
    from attnspec.properties.twins import GradientTwin, Twin

FAMILIES = [
    "text",
    "embed",
    "rnn",
    "seq2seq",
    "additive",
    "softmax",
    "scale",
    "heads",
    "mask",
    "cross",
    "position",
    "cache",
    "batch",
    "state",
    "layer",
    "grad",
    "train",
    "random",
    "robust",
    "convention",
    "contract",
    "reference",
]
MODULES = (
    "softmax",
    "values",
    "scores",
    "weights",
    "range",
    "scale",
    "mask",
    "hidden",
    "causal",
    "window",
    "empty_row",
    "sinks",
    "heads",
    "batch",
    "invariance",
    "random",
    "gradient",
    "gradient_laws",
    "robust",
    "shapes",
    "reference",
    "convention",
    "model_causal",
    "model_cache",
    "model_padding",
    "model_batch",
    "model_source",
    "model_routes",
    "model_search",
    "model_training",
    "model_copies",
)
OF_VALUES = ("softmax", "scale", "reference", "random")  # families that say which weights there are
_ID = re.compile(r"[a-z0-9]+\.[a-z0-9]+(-[a-z0-9]+)*")

Body = Callable[[Any, "Case"], None]  # of what the claim is about: an Attention, a LanguageModel
Kind = Literal["attention", "lm", "seq2seq"]
Dtypes = Literal["widest", "all", "float32"]
WIDEST = 2  # how many of the dtypes that a subject offers, the widest first, "widest" means
Option = Literal[
    "causal", "mask", "bias", "window", "softcap", "scale", "grouped", "heads", "batch", "empty", "sinks", "dropout"
]
Allowed = Literal["exact", "bound", "statistic", "exact, bound", "calibrated", "observed"]


@dataclass(frozen=True)
class Source:
    """Where a claim comes from: a paper or specification and the place in it."""

    work: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.work}, {self.place}" if self.place else self.work


@dataclass(frozen=True)
class Claim:
    """A claim with everything that belongs to it (engine 5 for ids, 3 for levels).

    `body(subject, case)` raises Violation where the claim fails. A claim without cases (`given` is None) is decided by what
    was observed while the others ran, or by probing. `about` names the option that the claim is about: another claim's
    violation whose minimal case needs that option is explained by this one's. `proof` names the proofs (properties/proofs/)
    of what the claim takes from mathematics. `dtypes`: structure shows best in the widest dtypes that a subject offers; what
    depends on the dtype, and exact relations, are looked at in all. `twin` is a wrong answer that the claim must reject on a
    case, else the case proves nothing (properties/twins.py).
    """

    id: str
    level: Level
    handle: str
    idea: str
    source: Source
    needs: tuple[str, ...]
    given: Given | None
    within: Allowed
    mutants: tuple[str, ...]
    body: Body
    promoted_by: str | None = None
    about: Option | None = None
    dtypes: Dtypes = "widest"
    proof: tuple[str, ...] = ()
    twin: Twin | None = None
    gradient_twin: GradientTwin | None = None
    of: Kind = "attention"

    def applies_to(self, kind: str) -> bool:
        """Whether the claim is on subjects of this kind: a translator whose source stays the same is a language model."""
        return self.of == kind or (self.of == "lm" and kind == "seq2seq")

    def dtypes_of(self, offered: Sequence[str]) -> tuple[str, ...]:
        """The dtypes to look at, the widest first, among those that a subject offers."""
        if self.dtypes == "float32":
            return (self.dtypes,)
        ordered = [dtype for dtype in DTYPES if dtype in offered]
        return tuple(ordered if self.dtypes == "all" else ordered[:WIDEST])

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]

    @property
    def statement(self) -> str:
        """The first line of the docstring."""
        return (self.body.__doc__ or "").strip().splitlines()[0]

    @property
    def explanation(self) -> str:
        import inspect

        return "\n".join(inspect.cleandoc(self.body.__doc__ or "").splitlines()[2:])

    def lacking(self, profile: Profile) -> str | None:
        """Why the claim does not apply to a subject of this profile, or None."""
        form = profile.get("form", "exact")
        if form != "exact" and (self.within not in ("exact", "observed") or self.family in OF_VALUES):
            return f"not offered: attention declared {form} has laws without values only"
        needs = (*self.needs, *(self.given.needs(profile) if self.given else ()))
        return next((reason for need in needs if (reason := profile.lacks(need))), None)

    def level_for(self, profile: Profile) -> Level:
        """The level, raised to must where the subject declares or promises what the claim is about."""
        name, _, value = (self.promoted_by or "").partition("=")  # "poison=nan": only where that value is promised
        return "must" if profile.promises(name) and value in ("", str(profile.get(name))) else self.level


class Registry(Mapping[str, Claim]):
    """Claims by id, in the order of their families."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def add(self, claim: Claim) -> None:
        if not _ID.fullmatch(claim.id) or claim.family not in FAMILIES:
            raise ValueError(f"id={claim.id!r}: an id is family.what-is-true with a family of {', '.join(FAMILIES)}")
        if (other := self._claims.get(claim.id)) is not None:
            raise ValueError(f"{claim.id} is registered twice: by {other.body.__module__} and by {claim.body.__module__}")
        self._claims[claim.id] = claim

    def __getitem__(self, key: str) -> Claim:
        return self._claims[key]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._claims, key=lambda i: (FAMILIES.index(i.partition(".")[0]), i)))

    def __len__(self) -> int:
        return len(self._claims)


REGISTRY = Registry()


def claim(
    id: str,  # noqa: A002 - the word of the catalogue
    *,
    level: Level,
    handle: str,
    idea: str,
    source: Source,
    within: Allowed,
    given: Given | None = None,
    needs: tuple[str, ...] = (),
    mutants: tuple[str, ...] = (),
    promoted_by: str | None = None,
    about: Option | None = None,
    dtypes: Dtypes = "widest",
    proof: tuple[str, ...] = (),
    twin: Twin | None = None,
    gradient_twin: GradientTwin | None = None,
    of: Kind = "attention",
) -> Callable[[Body], Body]:
    """Registers the decorated function as the body of a claim. Errors: ValueError for a malformed or duplicate id."""

    def register(body: Body) -> Body:
        REGISTRY.add(
            Claim(
                id,
                level,
                handle,
                idea,
                source,
                needs,
                given,
                within,
                mutants,
                body,
                promoted_by,
                about,
                dtypes,
                proof,
                twin,
                gradient_twin,
                of,
            )
        )
        return body

    return register


@cache
def claims() -> Mapping[str, Claim]:
    """All claims: those of this package and those that others offer by the entry point group `attnspec.claims`."""
    from importlib.metadata import entry_points

    for module in MODULES:
        importlib.import_module(f"attnspec.properties.claims.{module}")
    for entry in entry_points(group="attnspec.claims"):
        entry.load()
    return REGISTRY


class UnknownClaim(KeyError):
    """A selection that matches no claim."""

    def __str__(self) -> str:
        return str(self.args[0])


def select(patterns: tuple[str, ...], ignore: tuple[str, ...] = ()) -> list[Claim]:
    """Claims whose id is a pattern or lies in the family that it names; all of them for no pattern.

    Errors: UnknownClaim for a pattern that matches nothing, with the nearest id or family.
    """
    everything = claims()
    for pattern in (*patterns, *ignore):
        if not any(_matches(pattern, i) for i in everything):
            names = [*everything, *{c.family for c in everything.values()}]
            near = difflib.get_close_matches(pattern.replace("_", "-").lower(), names, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UnknownClaim(f"claim {pattern!r} matches nothing{hint} `attnspec claims` lists them all")
    chosen = [i for i in everything if not patterns or any(_matches(p, i) for p in patterns)]
    return [everything[i] for i in chosen if not any(_matches(p, i) for p in ignore)]


def _matches(pattern: str, claim_id: str) -> bool:
    """A pattern is an id or a prefix of one that ends at a dot."""
    return claim_id == pattern or claim_id.startswith(pattern.rstrip(".") + ".")
