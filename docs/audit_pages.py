"""Pages that are made from committed results of audits: the kill matrix and the known subjects (docs/generate.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspec import kill_matrix as matrix
from attnspec import known_subjects
from attnspec.properties.claim import claims
from attnspec.properties.mutants import describe
from attnspec.replay import replay_case
from attnspec.report.terminal import failure

if TYPE_CHECKING:
    from attnspec.auditor import Report


def matrix_page() -> str:
    """The kill matrix: mutants by claims, then each mutant's story."""
    committed = matrix.read()
    rows, in_ci, elsewhere = committed["killed_by"], committed["only_in_ci"], committed["elsewhere"]
    columns = [c for c in claims() if any(c in row for row in rows.values())]
    distinct = {tuple(row) for row in rows.values() if row}
    blind = [m for m in rows if m not in matrix.NOT_BLIND]
    survivors = [m for m, row in in_ci.items() if not row]
    both = sum(None not in found for found in elsewhere.values())
    lines = [
        "# Kill matrix\n",
        f"{len(rows)} planted defects, {_share(rows, rows)} caught in a quick audit with {len(distinct)} different patterns "
        f"of violated claims, {_share(rows, rows | in_ci)} in a ci audit. {len(blind)} were written by authors who had "
        f"not read the claims: {_share(blind, rows)} caught in quick, {_share(blind, rows | in_ci)} in ci. {both} are also "
        f"caught at each of {len(matrix.ELSEWHERE)} other seeds and sizes.\n",
        "Each claim is a column, in the order of the list; `x` marks a violation in a quick audit.\n",
        "\n".join(f"{i}. `{c}`" for i, c in enumerate(columns, start=1)),
        "",
        "| mutant | " + " | ".join(str(i) for i in range(1, len(columns) + 1)) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    lines += [f"| `{m}` | " + " | ".join("x" if c in row else "" for c in columns) + " |" for m, row in rows.items()]
    if in_ci:
        lines += ["", "Caught by a ci audit only: " + "; ".join(f"`{m}` by {_codes(row)}" for m, row in in_ci.items() if row)]
    if survivors:
        lines += ["", "Not caught: " + _codes(survivors) + "."]
    lines += ["", "## What each imitates\n", "| mutant | imitates | seen at |", "| --- | --- | --- |"]
    for m in rows:
        d = describe(m)
        source = f"<{d.source}>" if d.source.startswith("http") else d.source
        lines.append(f"| `{m}` | {d.imitates} | {source} |")
    return "\n".join(lines) + "\n"


def _share(mutants: Iterable[str], rows: Mapping[str, list[str]]) -> str:
    chosen = list(mutants)
    caught = sum(bool(rows[m]) for m in chosen)
    return f"{caught} ({100 * caught / len(chosen):.1f} %)"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def subjects_page() -> str:
    """What is known of real implementations and of the correct variants, claim by claim."""
    known = known_subjects.snapshot()
    real = [known_subjects.key(t, o) for t, o in known_subjects.REAL]
    variants = [name for name in known if name not in real]
    lines = [
        "# Known subjects\n",
        "What a quick audit says of each; a test compares it at seeds drawn from the commit, so that a claim cannot stop "
        "applying unseen. `x` holds, `-` does not apply, `W` is a violated should, `F` a violated must; a cell names dtypes "
        "where they differ. What is violated is triaged in [audits/](audits/).\n",
        "\n".join(f"{i}. `{name}`" for i, name in enumerate(real, start=1)),
        f"\nThe last column counts the variants (properties/variants*.py), of {len(variants)}, for which the claim holds.\n",
        "| claim | " + " | ".join(str(i) for i in range(1, len(real) + 1)) + " | variants |",
        "| --- |" + " --- |" * (len(real) + 1),
    ]
    for claim in claims():
        cells = [_mark(known.get(name, {}).get(claim, "")) for name in real]
        holding = sum(known[name].get(claim, "").startswith("HOLDS") for name in variants)
        lines.append(f"| `{claim}` | " + " | ".join(cells) + f" | {holding} |")
    lines += ["", "## What does not apply, and why\n"]
    for name in real:
        reasons: dict[str, list[str]] = {}
        for claim, words in known.get(name, {}).items():
            for part in words.split("; "):
                if part.startswith("NOT APPLICABLE"):
                    reasons.setdefault(part.partition(": ")[2].rpartition(" [")[0], []).append(claim)
        lines.append(
            f"- `{name}`: " + ("; ".join(f"{reason} ({_codes(which)})" for reason, which in reasons.items()) or "nothing")
        )
    return "\n".join(lines) + "\n"


def _mark(words: str) -> str:
    """The cell of a line of verdicts."""
    letters = {"HOLDS": "x", "NOT APPLICABLE": "-", "VIOLATED (must)": "F", "VIOLATED (should)": "W", "VIOLATED (may)": "N"}
    parts = [part.rpartition(" [") for part in words.split("; ") if part]
    marks = [(next((m for w, m in letters.items() if head.startswith(w)), "?"), dtypes[:-1]) for head, _, dtypes in parts]
    if len({mark for mark, _ in marks}) <= 1:
        return marks[0][0] if marks else ""
    return ", ".join(f"{mark} {dtypes}" for mark, dtypes in marks)


AUDITS = Path(__file__).resolve().parent / "audits"


def findings() -> list[dict[str, Any]]:
    """What audits of real libraries found, triaged: docs/audits/findings.json, with one case file each."""
    return list(json.loads((AUDITS / "findings.json").read_text(encoding="utf-8")))


def replayed(finding: dict[str, Any]) -> Report:
    """The finding's case on its target again."""
    return replay_case(AUDITS / "cases" / f"{finding['case']}.json", finding["target"], finding["options"], in_process=False)


def audit_page(library: str) -> str:
    """The findings in one library, each with what a replay of its minimal case prints."""
    chosen = [f for f in findings() if f["library"] == library]
    subjects = dict.fromkeys(known_subjects.key(t, o) for t, o in known_subjects.REAL if t.partition(":")[0] == library)
    lines = [
        f"# Audit of {library}\n",
        f"Audited: {_codes(subjects)}; verdicts in [known-subjects.md](../known-subjects.md).\n",
    ]
    for finding in chosen:
        report = replayed(finding)
        text = next(
            (block for records in report.by_claim().values() if (block := failure(records, report))), "not violated here"
        )
        options = "".join(f" -o {k}={v}" for k, v in finding["options"].items())
        lines += [
            f"## {finding['title']}\n",
            f"Triage: {finding['triage']}. {finding['cause']}\n",
            f"Versions: {finding['versions']}.\n" if finding.get("versions") else "",
            f"`attnspec replay docs/audits/cases/{finding['case']}.json --target {finding['target']}{options}`\n",
            "```text\n" + text.strip() + "\n```\n",
        ]
    if not chosen:
        lines.append("Nothing was found.\n")
    return "\n".join(line for line in lines if line)
