"""Pages that are made from results of audits: the kill matrix, the known subjects, the findings (docs/generate.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspec import kill_matrix as matrix
from attnspec import known_subjects
from attnspec.properties.claim import claims
from attnspec.properties.planted import describe
from attnspec.replay import replay_case
from attnspec.report.terminal import failure

if TYPE_CHECKING:
    from attnspec.auditor import Report


def matrix_page() -> str:
    """The kill matrix: mutants by claims, then each mutant's story."""
    committed = matrix.read()
    rows, only_in_ci, confirmed = committed["killed_by"], committed["only_in_ci"], committed["confirmed_by"]
    in_ci = {m: confirmed[m]["ci"] for m in rows}
    columns = [c for c in claims() if any(c in row for row in rows.values())]
    distinct = {tuple(row) for row in rows.values() if row}
    blind = [m for m in rows if m not in matrix.NOT_BLIND]
    survivors = [m for m, row in rows.items() if not row and not in_ci[m]]
    everywhere = sum(None not in found.values() for found in confirmed.values())
    lines = [
        "# Kill matrix\n",
        f"{len(rows)} planted defects, {_share(rows, rows)} caught in a quick audit with {len(distinct)} different patterns "
        f"of violated claims, {_share(rows, in_ci)} in a ci audit. {len(blind)} were written by authors who had "
        f"not read the claims: {_share(blind, rows)} caught in quick, {_share(blind, in_ci)} in ci. "
        f"{everywhere} are caught in ci and at each of {len(matrix.CONFIRMING_PROFILES) - 1} other seeds and sizes.\n",
        "Each claim is a column, in the order of the list; `x` marks a violation in a quick audit.\n",
        "\n".join(f"{i}. `{c}`" for i, c in enumerate(columns, start=1)),
        "",
        "| mutant | " + " | ".join(str(i) for i in range(1, len(columns) + 1)) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    lines += [f"| `{m}` | " + " | ".join("x" if c in row else "" for c in columns) + " |" for m, row in rows.items()]
    if only_in_ci:
        lines += ["", "Caught by a ci audit only: " + "; ".join(f"`{m}` by {_codes(row)}" for m, row in only_in_ci.items())]
    if survivors:
        lines += ["", "Not caught: " + _codes(survivors) + "."]
    lines += ["", "## What each imitates\n", "| mutant | imitates | seen at |", "| --- | --- | --- |"]
    for m in rows:
        d = describe(m)
        source = f"<{d.source}>" if d.source.startswith("http") else d.source
        lines.append(f"| `{m}` | {d.imitates} | {source} |")
    return "\n".join(lines) + "\n"


def _share(mutants: Iterable[str], rows: Mapping[str, list[str] | str | None]) -> str:
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
TRIAGE = {
    "defect": "what is computed is not what is documented, or is no attention",
    "convention": "a choice that others make otherwise, with its reason",
    "unknown": "the cause was not found",
}
LIBRARIES = ("torch", "jax", "onnx", "onnxruntime", "keras", "mlx", "transformers", "impl")


def findings() -> list[dict[str, Any]]:
    """What audits of real libraries found, triaged: docs/audits/findings.json.

    A finding has a script of a few lines without attnspec, checks/NAME.py, and a case file if its claim has cases.
    """
    return list(json.loads((AUDITS / "findings.json").read_text(encoding="utf-8")))


def subjects_of(finding: Mapping[str, Any]) -> list[str]:
    """Where it is seen, as on the command line: first the subject of the case."""
    return [known_subjects.key(finding["target"], finding["options"]), *finding["also"]] if finding["target"] else []


def installed(finding: Mapping[str, Any]) -> bool:
    """Whether the libraries are there in the versions in which it was found."""
    try:
        return all(version(name).partition("+")[0] == v for name, v in finding["versions"].items())
    except PackageNotFoundError:
        return False


def replayed(finding: Mapping[str, Any], *, in_process: bool = False) -> Report:
    """The finding's case on its target again."""
    return replay_case(
        AUDITS / "cases" / f"{finding['case']}.json", finding["target"], finding["options"], in_process=in_process
    )


def checked(finding: Mapping[str, Any]) -> str:
    """What the finding's script prints."""
    command = [sys.executable, str(AUDITS / "checks" / f"{finding['name']}.py")]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings).stdout.strip()


def printed() -> dict[str, dict[str, str]]:
    """What scripts and replays printed when the audits were last made: docs/audits/printed.json."""
    file = AUDITS / "printed.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def measure() -> None:
    """Runs script and case of every finding whose libraries are installed, and keeps what they print."""
    kept = printed()
    rows = {}
    for finding in findings():
        name = finding["name"]
        rows[name] = _outputs(finding) if installed(finding) else kept[name]
        print(name, file=sys.stderr)  # noqa: T201 - progress
    (AUDITS / "printed.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _outputs(finding: Mapping[str, Any]) -> dict[str, str]:
    replay = ""
    if finding["case"]:
        report = replayed(finding)
        blocks = [block for records in report.by_claim().values() if (block := failure(records, report))]
        if len(blocks) != 1:
            raise SystemExit(f"{finding['name']}: {report.cannot_run or f'{len(blocks)} claims are violated, not one'}")
        replay = re.sub(r"\nReproduce .*", "", blocks[0], flags=re.DOTALL).strip()  # the page has the case and a script
    return {"script": checked(finding), "replay": replay}


def audit_pages() -> dict[Path, str]:
    """The page of each library and the list of all findings."""
    pages = {AUDITS / f"{library}.md": audit_page(library) for library in LIBRARIES}
    return pages | {AUDITS / "README.md": audits_index()}


def audits_index() -> str:
    """One line a finding, by library."""
    everything = findings()
    lines = [
        "# Audits\n",
        "What `attnspec audit` finds in attention functions and models of released libraries, each with a minimal case, its "
        "cause, and a script of a few lines that shows it without attnspec. Nothing is listed that was not seen outside of "
        "the tool too. Each finding has a triage:\n",
        *(f"- {word}: {meaning} ({sum(f['triage'] == word for f in everything)})" for word, meaning in TRIAGE.items()),
        "\n`make docs` runs every script and replays every case; a test does so where the same version is installed.\n",
        "| library | finding | claim | triage |",
        "| --- | --- | --- | --- |",
    ]
    for f in sorted(everything, key=lambda f: (LIBRARIES.index(f["library"]), list(TRIAGE).index(f["triage"]))):
        claim = f"`{f['claim']}`" if f["claim"] else ""
        lines.append(f"| [{f['library']}]({f['library']}.md#{f['name']}) | {f['title']} | {claim} | {f['triage']} |")
    return "\n".join(lines) + "\n"


def audit_page(library: str) -> str:
    """The findings in one library: what is wrong, why, and how to see it, with and without attnspec."""
    chosen = [f for f in findings() if f["library"] == library]
    outputs = printed()
    versions = {name: v for f in chosen for name, v in f["versions"].items()}
    audited = _codes(dict.fromkeys(subject for f in chosen for subject in subjects_of(f)))
    lines = [
        f"# Audit of {library}\n",
        f"{' and '.join(f'{name} {v}' for name, v in versions.items())} on Linux x86-64, CPU. Audited: {audited}.\n",
    ]
    for finding in chosen:
        lines += _finding(finding, outputs[finding["name"]])
    return "\n".join(lines)


def _finding(finding: Mapping[str, Any], output: Mapping[str, str]) -> list[str]:
    name = finding["name"]
    script = (AUDITS / "checks" / f"{name}.py").read_text(encoding="utf-8")
    lines = [f'<a id="{name}"></a>\n', f"## {finding['title']}\n", f"{finding['triage'].capitalize()}. {finding['cause']}\n"]
    if finding["also"]:
        lines.append(f"Seen in {_codes(subjects_of(finding))}.\n")
    if finding["claims"]:
        lines.append(f"Violated by it too: {_codes(finding['claims'])}.\n")
    if finding["upstream"]:
        lines.append("Upstream: " + ", ".join(f"<{url}>" for url in finding["upstream"]) + ".\n")
    lines += [f"```python\n{script}```\n", f"It prints\n\n```text\n{output['script']}\n```\n"]
    if output["replay"]:
        subject = subjects_of(finding)[0]
        lines += [
            f"`attnspec replay docs/audits/cases/{finding['case']}.json --target {subject}` prints\n",
            f"```text\n{output['replay']}\n```\n",
        ]
    elif finding["claim"]:
        lines.append(f"`attnspec audit {subjects_of(finding)[0]} --select {finding['claim']}` reports it.\n")
    return lines
