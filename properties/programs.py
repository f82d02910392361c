"""Cases of models: tokens, and a program of what is done with them.

A program is a list of steps such as ("append", 3), ("crop", 2), ("append", 1): short enough to read when it fails. It is
drawn, tried, made smaller and written down like any case; what it amounts to is played by `sessions`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hypothesis import strategies as st
from msgspec.structs import replace

from attnspec.properties.case import Case, Mask, MaskPattern, Sizes, Values
from attnspec.properties.given import Choice, Diagnosis, Variation
from attnspec.properties.subject import Profile

if TYPE_CHECKING:
    from attnspec.properties.claim import Claim

Step = tuple[str, int]
Op = Literal["append", "ragged", "reorder", "crop", "fork", "begin", "other", "restart"]
NEEDS: dict[str, str] = {"ragged": "cached-padding", "reorder": "reorder", "crop": "crop", "fork": "fork"}  # features
READS = ("append", "ragged", "fork", "begin", "other")  # steps that read as many tokens
OF_SIDE = {"padding": "padding", "left-padding": "left-padding", "random": "padding-between"}
OF_SOURCE = {"padding": "source-padding", "left-padding": "left-source-padding", "random": "source-padding-between"}
SIDES: tuple[MaskPattern, ...] = ("padding", "left-padding", "random")  # right, left, anywhere
MORE = 4  # tokens of a row, beyond the largest length of attention cases: past the windows that small models have
CHUNK = 5


@dataclass(frozen=True)
class Programs:
    """The cases of a claim on models: which steps a program may have; without any, `tokens` are read at once.

    `sides` says where padding may stand. `schedules` are programs that are always tried, before any is drawn.
    """

    ops: tuple[Op, ...] = ()
    schedules: tuple[tuple[Step, ...], ...] = ()
    rows: tuple[int, ...] = (2, 1, 3)
    tokens: tuple[int, ...] = (7, 12, 3, 1)
    sides: tuple[MaskPattern, ...] = ()
    draws: int | None = None
    share: float = 0.35  # of the cases that a profile draws for a claim: a case of a model is many calls
    repeated: bool = True  # whether tokens may occur twice in a row
    of_source: bool = False  # whether the padding is that of a translator's source
    diagnoses: tuple[Diagnosis, ...] = ()
    own_dtype: ClassVar[bool] = True

    def needs(self, profile: Profile) -> Iterator[str]:
        """Features without which there is no case."""
        if self.rows and min(self.rows) > 1 and not profile.offers("batch"):
            yield "batch"

    def _sides(self, profile: Profile) -> tuple[MaskPattern, ...]:
        features = OF_SOURCE if self.of_source else OF_SIDE
        return tuple(side for side in self.sides if profile.offers(features[side]))

    def fixed(self, claim: str, profile: Profile, dtype: str, *, brief: bool = False, extra_size: int = 0) -> list[Case]:
        """Every schedule, every number of tokens, every side of padding once."""
        made = []
        if self.ops and not self.schedules:
            return []  # whatever is drawn
        programs, sides = self.schedules or ((),), self._sides(profile)
        for i in range(max(len(programs), len(self.tokens), 2 * len(self.sides))):
            rows = self.rows[i % len(self.rows)] if profile.offers("batch") else 1
            tokens = self.tokens[i % len(self.tokens)] + extra_size
            side = sides[i % len(sides)] if sides else None
            schedule = programs[i % len(programs)]
            schedule = tuple((op, n + extra_size if op == "append" and n > 1 else n) for op, n in schedule)
            made.append(_case(claim, dtype, rows, tokens, schedule, side, i, repeated=False))
        return [case for case in made if admissible(case, profile)][: 3 if brief else None]

    def strategy(self, claim: str, profile: Profile, dtype: str, largest: int) -> st.SearchStrategy[Case]:
        return st.composite(
            lambda draw: self._one(lambda options: draw(st.sampled_from(options)), claim, profile, dtype, largest)
        )()

    def drawn(self, claim: str, profile: Profile, dtype: str, largest: int, seed: int) -> Iterator[Case]:
        rng = random.Random(seed)
        while True:
            yield self._one(lambda options: options[int(rng.random() * len(options))], claim, profile, dtype, largest)

    def _one(self, pick: Callable[[tuple[Any, ...]], Any], claim: str, profile: Profile, dtype: str, largest: int) -> Case:
        rows = pick(self.rows) if profile.offers("batch") else 1
        ops = tuple(op for op in self.ops if profile.offers(NEEDS.get(op, "cache")))
        chunk = tuple(range(1, CHUNK + 1)) if profile.offers("chunks") else (1,)
        schedule: list[Step] = []
        room = MORE + largest
        for _ in range(pick((3, 2, 4, 5, 6))) if ops else ():
            op = "append" if not schedule else pick(ops)
            n = pick(chunk) if op in READS else pick((1, 2, 3))
            room += min(n, room) if op == "crop" else -n if op in ("append", "ragged") else 0
            if room < 0:
                break
            schedule.append((op, n))
        sides = self._sides(profile)
        side = pick(sides) if sides else None
        repeated = self.repeated and pick((False, False, True))
        return _case(claim, dtype, rows, pick(self.tokens), tuple(schedule), side, pick(tuple(range(512))), repeated=repeated)

    def simpler(self, case: Case, profile: Profile) -> Iterator[Case]:
        """The case with one thing less, as far as the subject admits it: a step, a token, a row; then other tokens."""
        yield from (one for one in _simpler(case) if admissible(one, profile))

    def variations(self, case: Case, profile: Profile) -> Iterator[Variation]:
        """None: the steps of a minimal program say what its failure needs."""
        del case, profile
        return iter(())

    def present(self, case: Case) -> set[str]:
        """The steps that the program has."""
        return {op for op, _ in case.schedule or ()}

    def choice(self, part: str) -> Choice | None:
        """Whether a program may have the step."""
        return "drawn" if part in self.ops else "never"

    def explained_by(self, root: Claim, present: set[str], pinned: set[str]) -> bool:
        """One that kept steps is explained by a claim whose programs may have all of them."""
        del pinned
        return bool(present) and root.given is not None and all(root.given.choice(op) == "drawn" for op in present)

    def hinges_on(self, root: Claim, case: Case) -> bool:
        """Whether the root's programs are made of the steps that the minimal program kept."""
        return self.explained_by(root, self.present(case), set())


def _simpler(case: Case) -> Iterator[Case]:
    steps = case.schedule or ()
    for i in range(len(steps) if len(steps) > 1 else 0):
        yield case.but(schedule=steps[:i] + steps[i + 1 :])
    for i, (op, n) in enumerate(steps):
        for less in _less(n):
            yield case.but(schedule=(*steps[:i], (op, less), *steps[i + 1 :]))
    for i, (op, n) in enumerate(steps):
        if op in READS and op != "append":  # what it does beside reading may not matter
            yield case.but(schedule=(*steps[:i], ("append", n), *steps[i + 1 :]))
    for less in _less(case.sizes.B):
        yield case.but(sizes=replace(case.sizes, B=less))
    for less in _less(case.sizes.T):
        yield case.but(sizes=replace(case.sizes, T=less))
    if case.mask is not None and steps and all(op != "ragged" for op, _ in steps):
        yield case.but(mask=None)  # nothing in the program is padded
    if case.values["ids"].kind != "normal":
        yield case.but(values={"ids": Values("normal")})
    if case.seed:
        yield case.but(seed=0)


def _less(n: int) -> list[int]:
    return [less for less in dict.fromkeys((1, n // 2, n - 1)) if 0 < less < n]


def _case(
    claim: str,
    dtype: str,
    rows: int,
    tokens: int,
    schedule: tuple[Step, ...],
    side: MaskPattern | None,
    seed: int,
    *,
    repeated: bool,
) -> Case:
    return Case(
        claim,
        dtype,
        Sizes(B=rows, T=1 if schedule else tokens, S=1),
        mask=Mask("bool", side) if side else None,
        values={"ids": Values("ties" if repeated else "normal")},
        schedule=schedule or None,
        seed=seed,
    )


def admissible(case: Case, profile: Profile) -> bool:
    """Whether the subject offers every step of the program, and each step has something to work on."""
    steps = case.schedule or ()
    offered = all(profile.offers(NEEDS.get(op, "cache")) for op, _ in steps)
    chunks = profile.offers("chunks") or all(n == 1 for op, n in steps if op in READS)
    starts = not steps or steps[0][0] in ("append", "ragged")
    return offered and chunks and starts
