"""Proofs: identities that sympy derives for symbols, so that no claim rests on a formula that was only copied.

A proof is a function whose keyword arguments are the formulas that it states. It derives each of them by itself and hands
both to `proven`, `ordered` or `by_induction`, which raise unless they agree. `false` holds a wrong formula for every
argument: the tests put each in and see the proof fail, so that no proof passes because it compares nothing. sympy is imported
when a proof runs, not before.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

MODULES = (
    "text",
    "recurrent",
    "additive",
    "softmax",
    "permutation",
    "projection",
    "saturation",
    "scale",
    "online_softmax",
    "convex_hull",
    "multi_head",
    "mask",
    "autoregression",
    "decoding",
    "position",
    "normalization",
    "layers",
    "cross_entropy",
    "optimizer",
)
_ID = re.compile(r"[a-z0-9]+\.[a-z0-9]+(-[a-z0-9]+)*")

Formula = Callable[..., Any]
Derived = dict[str, Any]


class NotProven(AssertionError):
    """A formula that does not follow: the only exception by which a proof fails."""

    def __init__(self, what: str, rest: object) -> None:
        self.what = what
        self.rest = rest
        super().__init__(f"{what}: not proven, {rest} is left")


@dataclass(frozen=True)
class Proof:
    """A proof with the idea that it belongs to and the sizes and values that it covers."""

    id: str
    idea: str
    holds: str
    false: Mapping[str, Formula]
    body: Callable[..., Derived]

    @property
    def statement(self) -> str:
        """The first line of the docstring."""
        return (self.body.__doc__ or "").strip().splitlines()[0]

    @property
    def explanation(self) -> str:
        """The formulas and the source."""
        return "\n".join(inspect.cleandoc(self.body.__doc__ or "").splitlines()[2:])

    @property
    def formulas(self) -> tuple[str, ...]:
        """Names of the formulas that the proof states."""
        return tuple(inspect.signature(self.body).parameters)

    def run(self, **formulas: Formula) -> Derived:
        """The derived expressions by name; a formula given takes the place of the stated one. Errors: NotProven."""
        return self.body(**formulas)


_REGISTRY: dict[str, Proof] = {}


def proof(id: str, *, idea: str, holds: str, false: Mapping[str, Formula]) -> Callable[..., Callable[..., Derived]]:  # noqa: A002
    """Registers the decorated function as a proof.

    Errors: ValueError for a malformed or duplicate id, or where the formulas and the false ones are not of the same names.
    """

    def register(body: Callable[..., Derived]) -> Callable[..., Derived]:
        made = Proof(id, idea, holds, false, body)
        if not _ID.fullmatch(id):
            raise ValueError(f"id={id!r}: an id is family.what-is-proven")
        if (other := _REGISTRY.get(id)) is not None:
            raise ValueError(f"{id} is registered twice: by {other.body.__module__} and by {body.__module__}")
        if set(false) != set(made.formulas) or not false:
            raise ValueError(
                f"{id}: states {', '.join(made.formulas) or 'nothing'} but has false forms of {', '.join(false)}"
            )
        _REGISTRY[id] = made
        return body

    return register


@cache
def proofs() -> Mapping[str, Proof]:
    """All proofs by id, in the order of the modules."""
    for module in MODULES:
        importlib.import_module(f"attnspec.properties.proofs.{module}")
    return _REGISTRY


def proven(what: str, derived: Any, stated: Any) -> Any:
    """The stated expression, if the derived one minus it simplifies to zero. Errors: NotProven."""
    from sympy import expand, simplify, sympify

    derived, stated = sympify(derived), sympify(stated)
    rest = derived - stated
    if _undefined(derived) or _undefined(stated):
        raise NotProven(what, rest)
    if derived == stated:  # also where both are infinite, and their difference is not a number
        return stated
    for step in (lambda e: e.doit(), expand, simplify):
        rest = step(rest)
        if _is_zero(rest):
            return stated
    raise NotProven(what, rest)


def ordered(what: str, smaller: Any, larger: Any, *, strictly: bool = False) -> Any:
    """The difference, if larger minus smaller is seen not to be negative (strictly: to be positive). Errors: NotProven."""
    from sympy import expand, factor, sympify

    rest = sympify(larger) - sympify(smaller)
    for step in (lambda e: e, factor, expand):
        form = step(rest)
        if (form.is_positive if strictly else form.is_nonnegative) is True:
            return form
    raise NotProven(what, rest)


def by_induction(what: str, formula: Formula, n: Any, start: Any, step: Formula, *, first: int = 0) -> Any:
    """formula(n), if formula(first) is `start` and formula(n + 1) is step(formula(n), n).

    Errors: NotProven; ValueError where the step is not taken from every n since `first`.
    """
    from sympy import Integer

    if not n.is_integer or (first < 1 and n.is_positive):
        raise ValueError(f"{n}: the step starts at an integer n = {first}; let n be {'positive' if first else 'nonnegative'}")
    proven(f"{what}, base", formula(Integer(first)), start)
    proven(f"{what}, step", formula(n + 1), step(formula(n), n))
    return formula(n)


def _undefined(expression: Any) -> bool:
    """Not a number, or a rounded one, of which nothing can be proven."""
    from sympy import Float, nan, zoo

    return bool(expression.has(nan, zoo, Float))


def _is_zero(expression: Any) -> bool:
    return expression.is_ZeroMatrix if getattr(expression, "is_Matrix", False) else expression.is_zero is True
