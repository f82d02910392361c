"""The docs are true: their code runs, their tables are those of the code, their links lead somewhere.

In a page, `<!-- test: NAME -->` marks a block that is executed, in one namespace a page and in order; `<!-- file: NAME -->` a
file that is written to one folder and run; `<!-- output: NAME -->` what that file prints; `<!-- table: NAME -->` a table and
`<!-- list: NAME -->` a sentence that is compared with the code.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner

import attnspec
from attnspec import adapters as adapter_list
from attnspec import causes, cli, contracts, search, target, torch_models
from attnspec.function import INTERNAL
from attnspec.kept_cases import script_path
from attnspec.properties import bounds_models, case, claim, compare, models, mutants, programs, subject, verdict
from attnspec.properties.admitted import STORAGES
from attnspec.report import terminal
from attnspec.signature import ROLES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OWN = ("bounds.md", "conventions.md", "cases.md", "verdicts.md", "adding-a-claim.md", "how-it-works.md")
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
BLOCK = re.compile(
    r"<!-- (?P<kind>test|file|output): (?P<name>[^>]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
TYPES = {bool: ["true", "false"], str: "text", int: "a whole number", float: "a number"}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, kind: str = "test") -> dict[str, str]:
    return {m["name"]: m["text"] for m in BLOCK.finditer(page(name)) if m["kind"] == kind}


def marked(name: str, mark: str) -> str:
    """What follows `<!-- mark -->`, up to an empty line."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n(.*?)\n\n", page(name) + "\n\n", re.S)
    assert found is not None, f"docs/{name} has no <!-- {mark} -->"
    return found[1]


def table(name: str, mark: str) -> list[list[str]]:
    """The cells of a table, row by row, without its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in marked(name, f"table: {mark}").splitlines()]
    assert set("".join(rows[1])) <= set("- "), f"docs/{name}: {mark} is not a table"
    return rows[2:]


def quoted(text: str) -> list[str]:
    """The words in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def first(name: str, mark: str) -> list[str]:
    """The quoted word of each row's first cell."""
    return [quoted(row[0])[0] for row in table(name, mark)]


def fields(of: type) -> list[str]:
    return [f.name for f in msgspec.structs.fields(of)]


# Code


@pytest.mark.parametrize("name", OWN)
def test_code_runs(name: str) -> None:
    space: dict[str, Any] = {"__name__": "attnspec_docs"}
    for title, text in blocks(name).items():
        if "```python\n" + text in page(name):
            exec(compile(text, f"docs/{name} ({title})", "exec"), space)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_no_code_is_untested(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tested = {m["text"] for m in BLOCK.finditer(text)}
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        if path.name in OWN or path.parent != DOCS:
            assert language, f"{path.name}: a block without a language"
        assert language not in ("python", "json", "toml") or code in tested or path.name not in OWN, code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the worked example."""
    made = tmp_path_factory.mktemp("worked_example")
    for name, text in blocks("adding-a-claim.md", "file").items():
        (made / name).write_text(text, encoding="utf-8")
    return made


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_worked_example_prints_what_the_page_says(folder: Path) -> None:
    done = run(folder, "see.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == blocks("adding-a-claim.md", "output")["see.py"]


def test_worked_example_passes_under_pytest(folder: Path) -> None:
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_linear.py")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_worked_mutant_is_caught_by_the_worked_claim(folder: Path) -> None:
    (folder / "planted.py").write_text(blocks("adding-a-claim.md")["mutant"], encoding="utf-8")
    audit = 'attnspec.audit(planted.epsilon_in_numerator, select=["softmax.linear-in-values"], arrays="torch")'
    done = run(folder, "-c", f"import attnspec, linear, planted; raise SystemExit({audit}.exit_code)")
    assert done.returncode == 1, done.stderr
    assert not done.stderr


def test_worked_adapter_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, Any] = {"__name__": "attnspec_docs"}
    exec(blocks("adding-a-claim.md")["adapter"], space)
    monkeypatch.setitem(adapter_list.adapters(), "mine", space["ADAPTER"])
    assert set(vars(space["ADAPTER"])) == set(inspect.signature(adapter_list.Adapter).parameters)
    report = attnspec.audit("mine:attention", select=["softmax.in-hull"], in_process=True)
    assert report.ok
    assert report.profile is not None
    assert report.profile.settings["layout"].origin == "adapter"


def test_entry_points_are_those_that_are_read() -> None:
    groups = tomllib.loads(blocks("adding-a-claim.md")["entry points"])["project"]["entry-points"]
    assert set(groups) == {"attnspec.claims", "attnspec.adapters"}
    assert 'group="attnspec.claims"' in inspect.getsource(claim.claims)
    assert 'group="attnspec.adapters"' in inspect.getsource(adapter_list.adapters)


# Conventions


def test_declarations() -> None:
    rows = {quoted(key)[0]: values for key, values, _ in table("conventions.md", "declarations")}
    assert list(rows) == list(target.DECLARATIONS)
    for key, rule in target.DECLARATIONS.items():
        wanted = list(rule) if isinstance(rule, tuple) else TYPES[rule]
        assert (quoted(rows[key]) or rows[key]) == wanted, key
    lists = {quoted(key)[0] for key, _, meaning in table("conventions.md", "declarations") if "a comma list" in meaning}
    assert lists == set(target.LISTS)


def test_aliases() -> None:
    said: dict[str, dict[str, str]] = {}
    for key, also, means in table("conventions.md", "aliases"):
        said.setdefault(quoted(key)[0], {}).update(dict.fromkeys(quoted(also), quoted(means)[0]))
    assert said == target.ALIASES


def test_no_key_is_accepted_without_effect() -> None:
    assert not [key for key, _, meaning in table("conventions.md", "declarations") if "not used yet" in meaning]


def test_origins_contract_and_features() -> None:
    assert [quoted(line)[0] for line in page("conventions.md").splitlines() if line.startswith("| `")][:5] == list(
        get_args(subject.Origin)
    )
    rows = {quoted(k)[0]: (said, promised.split()) for k, said, promised in table("conventions.md", "contracts")}
    assert list(rows) == list(contracts.CONTRACTS)
    for name, (said, promised) in rows.items():
        values = {k: ",".join(v) if isinstance(v, tuple) else v for k, v in contracts.CONTRACTS[name].items()}
        assert promised == [f"{k}={v}" for k, v in values.items()]
        known = contracts.RECOGNISED.get(name, contracts.Names(()))
        assert quoted(said) == [*known.all, *known.one]
    assert {quoted(k)[0]: text for k, text in table("conventions.md", "features")} == subject.FEATURES


def test_models() -> None:
    assert {quoted(k)[0]: text for k, text in table("conventions.md", "model features")} == models.FEATURES
    methods = {quoted(member)[0].partition("(")[0] for member, _ in table("conventions.md", "model methods")}
    plain = {"logits", "start", "extend", "reorder", "crop", "fork"}
    ours = {"start_in", "by_route", "surrounded", "altered"}  # how claims ask for caches, routes and what lies around a call
    asked = {name for name, member in vars(models.LanguageModel).items() if callable(member) and name[0] != "_"}
    assert methods == asked - plain - ours | {"routes", "caches"}
    worked_out = {"gradients", "grafted", "jacobian", "reloaded", "renamed", "nudged", "narrowed"}
    assert {*torch_models.OF_MODULES, "jacobian"} == worked_out
    assert {quoted(step)[0] for step, _ in table("cases.md", "steps")} == set(get_args(programs.Op))
    limits = {
        dtype: float(limit) if "^" not in limit else 2.0 ** int(limit[2:]) for dtype, limit in table("bounds.md", "models")
    }
    assert limits == bounds_models.LIMIT


def test_roles() -> None:
    assert {quoted(role)[0]: tuple(quoted(names)) for role, names in table("conventions.md", "roles")} == ROLES


def test_errors_from_inside() -> None:
    assert quoted(marked("conventions.md", "list: internal errors")) == [e.__name__ for e in INTERNAL]


def test_every_adapter_with_targets_is_named() -> None:
    for name, adapter in adapter_list.adapters().items():
        assert adapter.load is None or f"`{name}:" in page("conventions.md")


@pytest.mark.parametrize(
    "arguments", [["-o", "layot=bhtd"], ["-o", "layout=bdht"], ["-o", "arrays=torch", "-o", "arrays=torch"]]
)
def test_a_wrong_option_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.main, ["audit", "impl:attention", *arguments]).exit_code == 2


# Cases


def test_example_case_is_what_it_says() -> None:
    text = blocks("cases.md")["example"]
    read = case.Case.from_json(text)
    signed = read.signed()
    assert (read.id, read.sha256) == (signed.id, signed.sha256)
    assert json.loads(read.to_json()) == json.loads(text)  # every field is shown
    assert f"{script_path(read, 'kernel.py::attention')}" in page("cases.md")
    assert f"attnspec replay {read.id[:4]} " in page("cases.md")


def test_case_fields() -> None:
    for record in (case.Case, case.Sizes, case.Call, case.Values, case.Mask, case.Plant):
        assert sorted(first("cases.md", record.__name__)) == sorted(fields(record)), record.__name__
    required = [f.name for f in msgspec.structs.fields(case.Case) if f.required]
    assert required == ["claim", "dtype", "sizes"]


def test_case_words() -> None:
    assert first("cases.md", "ValueKind") == list(get_args(case.ValueKind))
    assert sorted(first("cases.md", "MaskPattern")) == sorted(get_args(case.MaskPattern))
    assert first("cases.md", "storage") == list(STORAGES)
    plant = {f.name: f.type for f in msgspec.structs.fields(case.Plant)}
    said = {quoted(row[0])[0]: quoted(row[1]) for row in table("cases.md", "Plant")}
    assert said["array"] == list(get_args(plant["array"]))
    assert first("cases.md", "where") == list(get_args(plant["where"]))
    words, number = get_args(plant["value"])
    assert first("cases.md", "value") == list(get_args(words))
    assert number is float
    kinds = quoted({quoted(a)[0]: b for a, b in table("cases.md", "Mask")}["kind"])
    assert kinds == list(get_args(case.MaskKind))


def test_numbers_are_as_large_as_said() -> None:
    assert case.PEAK == 128
    assert "the positions in `at` are 128 |" in page("cases.md")
    assert case.HUGE == {"k": 2.0**13, "v": 2.0**100}
    assert "times 2^13 for keys and 2^100 for values" in page("cases.md")


# Verdicts


def test_levels_and_verdicts() -> None:
    assert first("verdicts.md", "Level") == list(get_args(verdict.Level))
    assert first("verdicts.md", "Verdict") == [v.value for v in verdict.Verdict]
    decided = {f.name: f.type for f in msgspec.structs.fields(verdict.Record)}["decided_by"]
    assert first("verdicts.md", "decided_by") == list(get_args(get_args(decided)[0]))
    assert compare.EXACT == "exact"


def test_printed_words() -> None:
    words = {f"VIOLATED, {level}": word for level, word in terminal.FAIL.items()}
    words |= {v.value: word for v, word in terminal.SHOWN.items()}
    assert {row[1].partition(";")[0]: quoted(row[0])[0] for row in table("verdicts.md", "words")} == words


def record(what: verdict.Verdict, level: verdict.Level = "must", reason: str | None = None) -> verdict.Record:
    return verdict.Record(
        spec="", target="", options={}, claim="", level=level, dtype="", profile="", seed=0, verdict=what, reason=reason
    )


def test_exit_codes() -> None:
    v, code = verdict.Verdict, verdict.exit_code
    holds, unknown = record(v.HOLDS), record(v.UNKNOWN, reason="crashed")
    found = {
        0: code([holds, record(v.VIOLATED, "should"), record(v.UNKNOWN, reason="vacuous: no case")]),
        1: code([holds, unknown, record(v.VIOLATED)]),
        3: code([holds, unknown]),
        5: code([record(v.NOT_APPLICABLE)]),
        130: code([record(v.VIOLATED)], interrupted=True),
    }
    assert found == {c: c for c in found}
    assert code([record(v.VIOLATED, "should")], fail_on="should") == 1
    assert {int(c) for c in first("verdicts.md", "exit codes")} == {*found, 2}
    order = [int(n) for n in re.findall(r"\d+", marked("verdicts.md", "list: priority").partition(".")[0])]
    assert [cli._worse(*order[i:]) for i in range(len(order))] == order


def test_records() -> None:
    said = first("verdicts.md", "Record")
    made = json.loads(record(verdict.Verdict.HOLDS).line())
    assert said == list(made)
    assert first("verdicts.md", "Evidence") == fields(verdict.Evidence)


def test_causes() -> None:
    assert tuple(quoted(marked("verdicts.md", "list: directness"))) == causes.DIRECTNESS
    assert (causes.MOST, terminal.CAUSES) == (12, 3)
    assert {"quick", "ci", "deep", "replay"} <= set(search.BUDGETS)


# Links, names, files


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(there), f"{path.name}: {link}"


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def words(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        for word in quoted(re.sub(r"^```.*?^```$", "", page(name), flags=re.M | re.S)):
            yield name, word


def test_files_that_are_named_exist() -> None:
    folders = r"(src|properties|reference|impl|tests|docs|benchmarks|\.ci)/"
    for name, word in words(OWN):
        if re.fullmatch(folders + r"[\w./-]*", word):
            assert (ROOT / word).exists(), f"docs/{name}: {word}"
    for word in quoted((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        if re.fullmatch(folders + r"[\w./-]*", word):
            assert (ROOT / word).exists(), f"CONTRIBUTING.md: {word}"


def test_claims_that_are_named_exist() -> None:
    known = {*claim.claims(), *mutants.ids()}
    for name, word in words(OWN):
        if re.fullmatch(r"[a-z0-9]+\.[a-z0-9_-]+", word) and word.partition(".")[0] in claim.FAMILIES:
            assert word in known, f"docs/{name}: {word}"


def test_modules_of_the_diagram_exist() -> None:
    diagram = re.search(r"^```text\n(.*?)^```$", page("how-it-works.md"), re.M | re.S)
    assert diagram is not None
    for file in re.findall(r"\b\w+\.py\b", diagram[1]):
        assert (ROOT / "src/attnspec" / file).exists() or (ROOT / "properties" / file).exists(), file


def test_contributing_is_short_and_its_targets_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        *re.findall(r"(?:^ +|`)make ([\w-]+)", text, re.M),
        *re.findall(r"^make ([\w-]+)", (ROOT / ".ci/run").read_text(), re.M),
    }
    assert len(named) > 3
    for name in named:
        assert re.search(rf"^{name}:", makefile, re.M), f"make {name}"


def test_changelog_names_every_family_and_command() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## [")[0]
    for family in {c.family for c in claim.claims().values()}:
        assert f"`{family}`" in unreleased, family
    for command in cli.main.commands:
        assert f"{command}`" in unreleased, command
