"""Proofs: each one derives what it states, and refuses every false formula in its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sympy
from click.testing import CliRunner

from attnspec import cli
from attnspec.properties import mutants
from attnspec.properties.claim import FAMILIES, Claim, claims
from attnspec.properties.proofs import proof as registry
from attnspec.properties.proofs.proof import MODULES, NotProven, Proof, by_induction, ordered, proofs, proven
from attnspec.properties.proofs.sums import last_apart, linear

ALL = list(proofs().values())
FALSE = [(one, name) for one in ALL for name in one.false]
FOLDER = Path(registry.__file__).resolve().parent
x, y = sympy.symbols("x y", real=True)
n = sympy.symbols("n", integer=True, positive=True)
i, k = sympy.symbols("i k", integer=True)
a, b = sympy.IndexedBase("a"), sympy.IndexedBase("b")


# Each proof


@pytest.mark.parametrize("one", ALL, ids=lambda p: p.id)
def test_it_is_proven(one: Proof) -> None:
    derived = one.run()
    assert derived
    for name, expression in derived.items():
        assert name.strip() == name
        assert sympy.latex(expression)
        assert not sympy.sympify(expression).has(sympy.nan, sympy.zoo)


@pytest.mark.parametrize(("one", "name"), FALSE, ids=[f"{one.id}-{name}" for one, name in FALSE])
def test_a_false_formula_is_not(one: Proof, name: str) -> None:
    """The formula that `false` holds takes the place of the stated one, all others stay true."""
    with pytest.raises(NotProven):
        one.run(**{name: one.false[name]})


@pytest.mark.parametrize("one", ALL, ids=lambda p: p.id)
def test_it_says_what_it_proves_and_where_from(one: Proof) -> None:
    assert one.id.partition(".")[0] in FAMILIES
    assert re.fullmatch(r"I(0[1-9]|1\d|2\d)", one.idea)
    assert re.fullmatch(r"for symbols(; [a-z ,]+)?|for [a-zA-Z] = \d+(, \d+)*", one.holds)
    assert one.body.__module__.startswith("attnspec.properties.proofs.")
    assert one.statement.endswith(".")
    assert one.statement[0].isupper()
    assert len(one.statement) <= 120
    assert not (one.body.__doc__ or "").strip().splitlines()[1].strip()
    assert re.search(r"^    .*\(1\)$", one.explanation, re.M), "its formula is indented and numbered"
    assert re.search(r"^Source: \S", one.explanation, re.M)


def test_ids_statements_and_bodies_are_unique() -> None:
    assert not set(proofs()) & {*claims(), *mutants.ids()}
    assert len({one.statement for one in ALL}) == len(ALL)
    assert len({one.body.__name__ for one in ALL}) == len(ALL)


def test_every_file_is_listed() -> None:
    assert {p.stem for p in FOLDER.glob("*.py")} == {*MODULES, "__init__", "proof", "sums"}
    assert {one.body.__module__.rpartition(".")[2] for one in ALL} == set(MODULES)


def test_proofs_load_without_sympy() -> None:
    code = "import sys; from attnspec.properties.proofs.proof import proofs; print(len(proofs()), 'sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(len(ALL)), "False"]


# Claims that cite them


@pytest.mark.parametrize("claim", [c for c in claims().values() if c.proof], ids=lambda c: c.id)
def test_what_a_claim_cites_exists_and_is_shown(claim: Claim) -> None:
    assert set(claim.proof) <= set(proofs())
    assert len(set(claim.proof)) == len(claim.proof)
    shown = CliRunner().invoke(cli.main, ["explain", claim.id]).output
    for cited in claim.proof:
        assert f"proof      {cited}, {proofs()[cited].holds}: {proofs()[cited].statement}" in shown


# The comparisons


@pytest.mark.parametrize(
    ("derived", "stated"),
    [
        ((x + 1) ** 2, x**2 + 2 * x + 1),
        (sympy.sin(x) ** 2, 1 - sympy.cos(x) ** 2),
        (sympy.oo, sympy.oo),
        (sympy.Sum(i, (i, 1, n)), n * (n + 1) / 2),
        (sympy.Identity(n) * sympy.MatrixSymbol("A", n, n), sympy.MatrixSymbol("A", n, n)),
    ],
)
def test_equal_expressions_are_proven(derived: Any, stated: Any) -> None:
    assert proven("it", derived, stated) == stated


@pytest.mark.parametrize(
    ("derived", "stated"),
    [
        (x, y),
        (x, -x),
        (x, sympy.Abs(x)),
        (sympy.nan, sympy.nan),
        (sympy.zoo, sympy.zoo),
        (sympy.oo, -sympy.oo),
        (sympy.oo, x),
        (1.0, 1),
        (0.1 * x, x / 10),
        (sympy.MatrixSymbol("A", n, n), sympy.MatrixSymbol("B", n, n)),
        (sympy.MatrixSymbol("A", n, n), sympy.MatrixSymbol("A", n, n).T),
    ],
)
def test_other_expressions_are_not(derived: Any, stated: Any) -> None:
    with pytest.raises(NotProven, match=r"^it: not proven, .* is left$"):
        proven("it", derived, stated)


def test_order() -> None:
    positive = sympy.symbols("p", positive=True)
    assert ordered("it", 2 * x * y, x**2 + y**2).expand() == ((x - y) ** 2).expand()
    assert ordered("it", 0, positive, strictly=True) == positive
    assert ordered("it", x, x) == 0
    for smaller, larger, strictly in (
        (0, x, False),
        (0, -positive, False),
        (x, x, True),
        (0, x**2, True),
        (0, sympy.nan, False),
    ):
        with pytest.raises(NotProven, match=r"^it: not proven"):
            ordered("it", smaller, larger, strictly=strictly)


def test_induction_needs_its_base_and_its_step() -> None:
    def step(total: Any, count: Any) -> Any:
        return total + count + 1

    zero = sympy.symbols("m", integer=True, nonnegative=True)
    assert by_induction("it", lambda m: m * (m + 1) / 2, zero, 0, step) == zero * (zero + 1) / 2
    assert by_induction("it", lambda m: m * (m + 1) / 2, n, 1, step, first=1) == n * (n + 1) / 2
    with pytest.raises(NotProven, match=r"^it, base"):
        by_induction("it", lambda m: m * (m + 1) / 2 + 1, zero, 0, step)
    with pytest.raises(NotProven, match=r"^it, step"):
        by_induction("it", lambda m: m**2, zero, 0, step)
    with pytest.raises(ValueError, match=r"^n: the step starts at an integer n = 0; let n be nonnegative$"):
        by_induction("it", lambda m: m * (m + 1) / 2, n, 0, step)  # the step from 0 to 1 would be missing
    with pytest.raises(ValueError, match=r"^x: the step starts at an integer n = 1; let n be positive$"):
        by_induction("it", lambda m: m * (m + 1) / 2, x, 1, step, first=1)


# Sums

TERMS = [
    (a[i] + x) ** 2,
    x * a[i] + y,
    sympy.exp(a[i] + x) * b[i],
    sympy.KroneckerDelta(i, k) * a[i],
    sympy.Sum(a[i] * b[k] + x, (k, 1, n)),
    sympy.Sum(a[i] * a[k] * sympy.KroneckerDelta(i, k), (k, 1, n)),
    sympy.Piecewise((a[i], i <= n), (b[i], True)),
]


@pytest.mark.parametrize("term", TERMS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_linear_keeps_the_sum(term: Any, count: int) -> None:
    """Written out for a number of terms, a sum and its linear form are the same; a free index lies inside it."""
    total = sympy.Sum(term, (i, 1, n))
    form = linear(total)

    def written(expression: Any) -> Any:
        return sympy.expand(expression.subs({n: count, k: count}).doit())

    assert written(form) == written(total)


def test_linear_sees_double_sums_and_one_index() -> None:
    assert linear(sympy.Sum(sympy.KroneckerDelta(i, k), (i, 1, n), (k, 1, n))) == n
    assert linear(sympy.Sum(x * a[i], (i, 1, n)) - x * sympy.Sum(a[k], (k, 1, n))) == 0
    f = sympy.Function("f")
    for double in (sympy.Sum(f(i, k), (i, 1, n), (k, 1, n)), sympy.Sum(f(i, k) + x * a[i] * a[k], (k, 1, n), (i, 1, n))):
        assert (linear(double) - double).subs(n, 2).doit().expand() == 0


@pytest.mark.parametrize("form", [sympy.Sum, sympy.Product])
def test_the_last_term_apart(form: Any) -> None:
    total = form(a[i], (i, 1, n + 1))
    assert last_apart(total) != total
    for count in (1, 4):
        assert last_apart(total).subs(n, count).doit() == total.subs(n, count).doit()


# The registry


def body(formula: registry.Formula = lambda e: e) -> registry.Derived:
    """It holds."""
    return {"it": proven("it", x, formula(x))}


def test_a_proof_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    made = registry.proof("softmax.test", idea="I18", holds="for symbols", false={"formula": lambda e: -e})
    assert made(body) is body
    assert registry._REGISTRY["softmax.test"].formulas == ("formula",)
    with pytest.raises(ValueError, match=r"^softmax\.test is registered twice: by .*test_proofs and by .*test_proofs$"):
        made(body)


@pytest.mark.parametrize("name", ["softmax", "softmax.", "Softmax.test", "softmax.two_words", "softmax.a.b"])
def test_a_malformed_id_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    with pytest.raises(ValueError, match=rf"^id='{re.escape(name)}': an id is family\.what-is-proven$"):
        registry.proof(name, idea="I18", holds="for symbols", false={"formula": lambda e: -e})(body)


def test_a_formula_without_a_false_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    for false in ({}, {"other": lambda e: e}):
        with pytest.raises(ValueError, match=r"^softmax\.test: states formula but has false forms of "):
            registry.proof("softmax.test", idea="I18", holds="for symbols", false=false)(body)


def test_a_proof_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> registry.Derived:
        """It holds."""
        return {}

    monkeypatch.setattr(registry, "_REGISTRY", {})
    with pytest.raises(ValueError, match=r"^softmax\.test: states nothing but has false forms of $"):
        registry.proof("softmax.test", idea="I18", holds="for symbols", false={})(nothing)
