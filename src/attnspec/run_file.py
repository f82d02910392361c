"""The NDJSON file of a run of many targets: written as it goes, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspec.errors import UsageError

if TYPE_CHECKING:
    from attnspec.auditor import Report

Run = tuple[list[str], dict[str, Any], dict[str, Any]]  # the lines, the header, the summary


class RunFile:
    """Appends the records of each target when it is done; with `resume`, after those that an earlier run finished.

    A file that is there is left alone until the first target is done: a slip in the name of a target loses nothing.

    Errors: UsageError for a file to resume that is none of ours.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self._finished: dict[str, int] = {}
        self._kept: list[str] | None = []  # what comes before the first target of this run; None once it is written
        if resume and path.is_file():
            for lines, header, summary in _runs(path):
                self._finished[_key(header)] = int(summary["exit_code"])
                self._kept += lines  # what was interrupted is done again

    def finished(self, target: str, options: dict[str, Any], profile: str, seed: int) -> int | None:
        """The exit code of the target where an earlier run finished it in the same way; None otherwise."""
        return self._finished.get(_key({"target": target, "options": options, "profile": profile, "seed": seed}))

    def add(self, report: Report) -> None:
        if self._kept is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{line}\n" for line in self._kept), encoding="utf-8")
            self._kept = None
        with self.path.open("a", encoding="utf-8") as file:
            file.write(report.to_json())


def _key(header: dict[str, Any]) -> str:
    return json.dumps([header[name] for name in ("target", "options", "profile", "seed")], sort_keys=True)


def _runs(path: Path) -> Iterator[Run]:
    """The runs of a file that have their summary."""
    lines: list[str] = []
    header: dict[str, Any] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found = json.loads(line)
            kind = found["format"]
        except (json.JSONDecodeError, TypeError, KeyError):
            if header:  # the last line of a run that was killed
                lines, header = [], {}
                continue
            raise UsageError(
                f"{path}:{number}: not a line of a run; give the file that --json wrote, or another name"
            ) from None
        if "target" in found and kind.startswith("attnspec-run"):
            lines, header = [line], found
        elif header:
            lines.append(line)
            if "summary" in found:
                yield lines, header, found
                lines, header = [], {}
