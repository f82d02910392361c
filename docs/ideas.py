"""The pages of the ideas: fills in what is generated, and makes the table of ideas (docs/ideas/README.md).

A page is written by hand; between these marks it is filled (`python docs/generate.py pages`), and a test compares:

    <!-- source: softmax.softmax -->        the code of a function of reference/, without its docstring
    <!-- run -->                            the Python block that follows is executed, one namespace a page; what it prints
                                            follows as a text block
    <!-- picture: NAME | what it shows -->  the Python block that follows leaves a matplotlib `figure`
    <!-- proof: ID -->                      what a proof of properties/proofs/ derives
    <!-- claims: I18 -->                    the claims of an idea, and what they found in real libraries
    <!-- authorities: I18 -->               who else computes the same, and how far apart they are at most

Each filled part ends with `<!-- end -->`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import json
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnspec import known_subjects
from attnspec.properties.claim import claims

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGES = DOCS / "ideas"
MEASURED = DOCS / "authorities.json"
SDPA = "torch:scaled_dot_product_attention"
# What is audited: the heading of its column, its target and its options.
TARGETS = {
    "torch SDPA": (SDPA, {}),
    "torch SDPA, math": (SDPA, {"backend": "math"}),
    "`impl:attention`": ("impl:attention", {}),
}
IDEAS = [f"I{n:02}" for n in range(1, 30)]
MARK = re.compile(r"<!-- (source|proof|claims|authorities): ([^>]+?) -->\n.*?<!-- end -->", re.S)
CODE = re.compile(r"<!-- (run|picture: [^>]+?) -->\n```python\n(.*?)^```$\n.*?<!-- end -->", re.S | re.M)


def pages() -> dict[str, Path]:
    """The page of each idea, in the order of the notes; one page may hold several ideas."""
    found: dict[str, Path] = {}
    for path in sorted(PAGES.glob("[0-9]*.md")):
        for idea in re.findall(r"I\d\d", path.read_text(encoding="utf-8").splitlines()[0]):
            found[idea] = path
    return found


def filled(text: str, draw: bool = True) -> str:
    """The page with everything generated in its place; `draw` also writes its pictures."""
    space: dict[str, Any] = {"__name__": "attnspec_docs"}

    def run(found: re.Match[str]) -> str:
        mark, code = found[1], found[2]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "a page of docs/ideas", "exec"), space)
        after = f"```text\n{printed.getvalue().rstrip()}\n```\n" if printed.getvalue() else ""
        if mark.startswith("picture"):
            name, what = (part.strip() for part in mark.removeprefix("picture:").split("|"))
            _save(space.pop("figure"), name, draw)
            after += f"\n![{what}](pictures/{name}.svg)\n"
        return f"<!-- {mark} -->\n```python\n{code}```\n{after}<!-- end -->"

    def generated(found: re.Match[str]) -> str:
        made = {"source": source, "proof": proof, "claims": claims_of, "authorities": authorities_of}[found[1]](found[2])
        return f"<!-- {found[1]}: {found[2]} -->\n{made}\n<!-- end -->"

    return MARK.sub(generated, CODE.sub(run, text))


def _save(figure: Any, name: str, draw: bool) -> None:
    import matplotlib.pyplot as plt

    if draw:
        (PAGES / "pictures").mkdir(exist_ok=True)
        with plt.rc_context({"svg.hashsalt": "attnspec", "svg.fonttype": "none"}):  # the same file on every machine
            figure.savefig(PAGES / "pictures" / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def source(where: str) -> str:
    """The code of `module.function` of reference/, without its docstring."""
    module, _, name = where.partition(".")
    text = textwrap.dedent(inspect.getsource(getattr(importlib.import_module(f"attnspec.reference.{module}"), name)))
    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    lines, docstring = text.splitlines(), function.body[0]
    assert ast.get_docstring(function)
    assert docstring.end_lineno
    kept = [*lines[: docstring.lineno - 1], *lines[docstring.end_lineno :]]
    code = "\n".join(kept).strip()
    return f"```python\n# reference/{module}.py\n{code}\n```"


def proof(which: str) -> str:
    """A proof's statement and what it derives, as a formula."""
    from sympy import latex

    from attnspec.properties.proofs.proof import proofs

    one = proofs()[which]
    shown = [f"- {name}: ${latex(expression)}$" for name, expression in one.run().items()]
    return "\n".join([f"**Proved with sympy** (`{one.id}`, {one.holds}): {one.statement}", "", *shown])


def claims_of(idea: str) -> str:
    """The claims of an idea with their verdicts on real targets (docs/known-subjects.json)."""
    known = known_subjects.snapshot()
    rows = [c for c in claims().values() if idea in c.idea.split(",") and c.of == "attention"]
    models = [
        f"[`{c.id}`](../claims.md#{c.id.replace('.', '')})"
        for c in claims().values()
        if c.idea == idea and c.of != "attention"
    ]
    on_models = f"On models: {', '.join(models)}." if models else ""
    if not rows:
        return on_models or f"No claim of this version speaks of {idea}: {REASONS[idea, 'claims']}."
    lines = ["| claim | it says | " + " | ".join(TARGETS) + " |", "| --- | --- |" + " --- |" * len(TARGETS)]
    for c in rows:
        cells = [_worst(known[known_subjects.key(target, options)][c.id]) for target, options in TARGETS.values()]
        lines.append(f"| [`{c.id}`](../claims.md#{c.id.replace('.', '')}) | {c.statement} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(["", on_models] if on_models else [])])


def _worst(verdicts: str) -> str:
    """The verdict over all dtypes, of a line such as `HOLDS [float64]; NOT APPLICABLE: reason [float16]`."""
    words = ("VIOLATED (must)", "VIOLATED (should)", "VIOLATED (may)", "UNKNOWN", "HOLDS", "NOT APPLICABLE")
    return next(word.lower() for word in words if word in verdicts)


def authorities_of(idea: str) -> str:
    """Who else computes the same, and the largest error in units of the bound."""
    rows = [a for a in measured()["authorities"] if a["idea"] == idea]
    if not rows:
        return f"No independent program was asked: {REASONS[idea, 'authority']}."
    lines = ["| authority | compared | worst error / bound | comparisons |", "| --- | --- | --- | --- |"]
    lines += [f"| {a['name']} | {a['what']} | {a['ratio']:.2g} | {a['comparisons']} |" for a in rows]
    return "\n".join(lines)


# Why a cell of the table is empty; a reason for a cell that is not is an error.
REASONS: dict[tuple[str, str], str] = {
    ("I01", "claims"): "claims are asked of attention functions; torch and scikit-learn are asked here",
    ("I03", "authority"): "padding is no function of its own; torch is asked with lengths in I04 and I05, with masks in I27",
    ("I04", "claims"): "claims are asked of attention functions; the cells are compared with torch and ONNX",
    ("I05", "claims"): "claims are asked of attention functions, not of whole translators; torch's layers are asked",
    ("I05", "proof"): "a definition; that all steps at once are the single steps is shown on the page and tested",
    ("I06", "claims"): "a way to train, not a property of an attention function; see `mask.parallel-is-stepwise` (I26)",
    ("I10", "claims"): "claims are asked of attention functions; stacks and directions are compared with torch",
    ("I11", "claims"): "the weighted mean is checked by the claims of softmax (I18) and of the convex hull (I21)",
    ("I12", "claims"): "claims are asked of scaled dot-product attention; additive attention has another signature",
    ("I13", "claims"): "claims are asked of scaled dot-product attention; Luong's joins the context after the step",
    ("I14", "claims"): "BLEU scores text, not attention; it is compared with sacrebleu instead",
    ("I15", "claims"): "a picture of weights; that its rows sum to one is `softmax.rows-sum-to-one` (I18)",
    ("I15", "proof"): "a picture has nothing to prove; its rows are those of I11",
    ("I15", "authority"): "the tables are those of I12 and I13, whose authorities compare them",
    ("I21", "authority"): "the hull and the pull are facts about weighted means, for which torch is asked in I16 and I17",
    ("I23", "claims"): "positions belong to a layer, and the claims of this version speak of the attention function",
    ("I24", "claims"): "a leak is what the claims of I25 catch, as the audit on the page shows",
    ("I24", "authority"): "the unmasked layer is that of I17, which has its authorities; the leak is proved and audited",
    ("I29", "authority"): "an experiment; its gradients are compared with torch.autograd in I28",
    ("I29", "proof"): "an experiment; `mask.triangle-is-prefix` (I25) proves that a causal row sees no later word",
}


def _by_file(functions: Iterable[str]) -> list[str]:
    """Functions of reference/, each file named once."""
    files: dict[str, list[str]] = {}
    for file, _, name in (f.partition(".") for f in functions):
        files.setdefault(file, []).append(name)
    shown = {file: ", ".join(f"`{name}`" for name in names if names != [file]) for file, names in files.items()}
    return [f"[{file}](../../reference/{file}.py)" + (f" ({names})" if names else "") for file, names in shown.items()]


HEAD = "<!-- Generated by docs/generate.py: edit the pages and the authorities, not this one. -->\n\n"


def table_page() -> str:
    """The table of ideas: function, authority and worst error, proof, claims; no empty cell without a reason."""
    lines = [
        HEAD + "# Ideas\n",
        "The ideas of the lecture notes, in their order. Each has its page, its NumPy, an independent authority that agrees "
        "to the derived bound (r is the largest error seen in units of the bound; above 1 they would disagree), its proofs, "
        "and the claims that check it on any implementation.\n",
        "| idea | reference | authority (worst r) | proof | claims |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *(_row(idea, path) for idea, path in sorted(pages().items()))]) + "\n"


def _row(idea: str, path: Path) -> str:
    from attnspec.properties.proofs.proof import proofs

    text = path.read_text(encoding="utf-8")
    title = text.splitlines()[0].lstrip("# ")
    asked = [a for a in measured()["authorities"] if a["idea"] == idea]
    functions = dict.fromkeys([*re.findall(r"<!-- source: (\w+\.[a-z]\w*) -->", text), *(f for a in asked for f in a["of"])])
    best = {name: max(a["ratio"] for a in asked if a["name"] == name) for name in dict.fromkeys(a["name"] for a in asked)}
    cells = {
        "reference": _by_file(functions),
        "authority": [f"{name} ({r:.2g})" for name, r in best.items()],
        "proof": [f"`{p.id}`" for p in proofs().values() if p.idea == idea],
        "claims": [f"`{c.id}`" for c in claims().values() if idea in c.idea.split(",")],
    }
    for name, cell in cells.items():
        assert bool(cell) != ((idea, name) in REASONS), f"{idea}, {name}: {cell or 'empty'}; REASONS says otherwise"
    shown = ["; ".join(cell) or f"none: {REASONS[idea, name]}" for name, cell in cells.items()]
    return f"| [{title}]({path.name}) | " + " | ".join(shown) + " |"


@functools.cache
def measured() -> dict[str, Any]:
    """The committed measurements: what the authorities and the audits gave when they were last run."""
    return dict(json.loads(MEASURED.read_text(encoding="utf-8")))


def measure() -> None:
    """Runs every authority on its drawn examples; writes docs/authorities.json."""
    sys.path.insert(0, str(ROOT))  # the authorities belong to the tests, which are not installed
    authorities = importlib.import_module("tests.authorities.test_authorities").AUTHORITIES
    measuring = importlib.import_module("tests.authorities.agreement").measuring
    rows = []
    for one in sorted(authorities, key=lambda a: (a.idea, a.name, a.what)):
        with measuring() as found:
            _ask(one)
        worst = max(found, key=lambda m: m.ratio)
        names = [f"{f.__module__.rpartition('.')[2]}.{f.__name__}" for f in one.of]
        row = {"idea": one.idea, "name": one.name, "what": one.what, "of": names, "ratio": worst.ratio}
        rows.append(row | {"error": worst.error, "allowed": worst.allowed, "comparisons": len(found)})
    text = json.dumps({"authorities": rows}, indent=1)
    MEASURED.write_text(text + "\n", encoding="utf-8")
    measured.cache_clear()


def _ask(one: Any) -> None:
    """Runs an authority on examples that are the same every time."""
    import hypothesis
    from hypothesis import strategies as st

    @hypothesis.settings(
        max_examples=one.examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def run(data: st.DataObject) -> None:
        one.run(data.draw)

    run()
