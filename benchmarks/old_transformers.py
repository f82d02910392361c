"""Audits models of older versions of transformers, each version in an environment of its own (`make old-transformers`).

pip resolves what each version wants (huggingface_hub below 1.0 and the like); everything else, torch too, is of the
versions in constraints.txt. Environments are kept in .venvs/ and made once; `--versions` and `--families` choose. The table
goes to the terminal, and with all versions and families to docs/audits/old-transformers.md, whose scripts are run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venvs"
PAGE = ROOT / "docs" / "audits" / "old-transformers.md"
MARK = "<!-- table: `make old-transformers` -->"
SCRIPT = re.compile(
    r"(?P<head><!-- run: (?P<version>[\d.]+) -->\n```python\n(?P<code>.*?)```\n\nIt prints\n\n```text\n).*?```", re.DOTALL
)
VERSIONS = ("4.24.0", "4.36.2", "4.44.2", "4.51.3")
FAMILIES = ("gpt2", "llama", "mistral", "bloom", "t5", "bart", "bert", "mamba")
ABSENT = "not in this version"
KNOWN = """
import json
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
print(json.dumps(list(CONFIG_MAPPING_NAMES)))
"""


def environment(version: str) -> Path:
    """The folder of the environment with this version, made if it is not there or its constraints have changed."""
    folder = HOME / f"transformers-{version}"
    pinned = re.sub(r"^transformers==.*\n", "", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    done = folder / "constraints.txt"  # written last
    if done.is_file() and done.read_text(encoding="utf-8") == pinned:
        return folder
    venv.create(folder, with_pip=True, clear=True)
    trial = folder / "trial.txt"
    trial.write_text(pinned, encoding="utf-8")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(trial)]
    subprocess.run([*pip, "--editable", str(ROOT), f"transformers=={version}"], check=True)
    trial.rename(done)
    return folder


def audited(version: str, families: Iterable[str], jobs: int) -> dict[str, str]:
    """The verdicts on each family in this version, as a cell of the table."""
    folder = environment(version)
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    asked = subprocess.run(
        [folder / "bin" / "python", "-W", "ignore", "-c", KNOWN], capture_output=True, text=True, check=True, env=offline
    )
    there = [family for family in families if family in json.loads(asked.stdout)]
    results = folder / "results.ndjson"
    results.unlink(missing_ok=True)
    command = [folder / "bin" / "attnspec", "audit", *(f"hf-tiny:{f}" for f in there), "--jobs", str(jobs), "--json", results]
    done = subprocess.run(command, cwd=folder, env=offline, check=False)  # cases are written to the folder
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"transformers {version}: the audit ended with {done.returncode}; it printed why")
    records = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    of = {f: [r for r in records if r.get("target") == f"hf-tiny:{f}"] for f in families}
    return {family: cell(found) if family in there else ABSENT for family, found in of.items()}


def cell(records: list[dict[str, Any]]) -> str:
    """How many claims hold, and which do not, of the records of one target.

    Errors: ValueError if there is none.
    """
    verdicts = [r for r in records if "verdict" in r]
    if not verdicts:
        raise ValueError("records of no claim: the target was not audited")
    held = sum(r["verdict"] == "HOLDS" for r in verdicts)
    parts = [f"{held} hold"]
    for verdict in ("VIOLATED", "UNKNOWN"):
        if found := [f"`{r['claim']}`" for r in verdicts if r["verdict"] == verdict]:
            parts.append(f"{len(found)} {verdict.lower()}: {', '.join(found)}")
    if rest := sum(r["verdict"] == "NOT APPLICABLE" for r in verdicts):
        parts.append(f"{rest} not applicable")
    return "; ".join(parts)


def table(rows: dict[str, dict[str, str]]) -> str:
    """Families by versions, of cells by version and family."""
    versions = list(rows)
    families = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(versions) + " |", "| --- |" + " --- |" * len(versions)]
    lines += [f"| {family} | " + " | ".join(rows[version][family] for version in versions) + " |" for family in families]
    return "\n".join(lines)


def rerun(page: str) -> str:
    """The page with what its scripts print now, each in the version that `<!-- run: VERSION -->` above it names."""

    def printed(found: re.Match[str]) -> str:
        python = environment(found["version"]) / "bin" / "python"
        command = [python, "-W", "ignore", "-c", found["code"]]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        return f"{found['head']}{done.stdout}```"

    return SCRIPT.sub(printed, page)


def filled(page: str, text: str) -> str:
    """The page with this table behind its mark, in place of one that is there."""
    head, found, rest = page.partition(MARK + "\n")
    if not found:
        raise ValueError(f"the page has no line {MARK}, behind which the table goes")
    after = re.sub(r"\A(\|.*\n)*", "", rest)  # what is there of an older table
    return f"{head}{found}{text}\n{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    rows = {version: audited(version, chosen.families, chosen.jobs) for version in chosen.versions}
    text = table(rows)
    print(text)
    if (*chosen.versions, *chosen.families) == (*VERSIONS, *FAMILIES):
        PAGE.write_text(rerun(filled(PAGE.read_text(encoding="utf-8"), text)), encoding="utf-8")
        print(f"written to {PAGE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
