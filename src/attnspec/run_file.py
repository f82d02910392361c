"""The NDJSON file of a run: each line is written when it is known, so that whoever reads along sees it at once.

A run that is interrupted, or killed, leaves what it found, and goes on at the first target that it did not finish. When it
ends it puts the records of each target in the order of the claims. While it writes it holds a lock on the file, which ends
with the process however that ends: two runs never write one file.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attnspec.errors import UsageError

if sys.platform != "win32":  # where there is no fcntl, there is no fork, and no audit in workers either
    import fcntl

if TYPE_CHECKING:
    from attnspec.auditor import Report
    from attnspec.properties.verdict import Record

Run = tuple[list[str], dict[str, Any], dict[str, Any]]  # the lines, the header, the summary
FOUND = "attnspec-found/1"  # a violation when it is found; its record follows when it is known what explains it
OURS = '{"format":"attnspec-'  # how each line begins


class RunFile:
    """Appends to a file record by record; with `resume`, after the targets that an earlier run finished.

    A file that is there is left alone until there is a first line of this run: a slip in the name of a target loses nothing.

    Errors: UsageError for a file that cannot be written, that another run is writing, or that is none of ours to resume.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self._created = not path.exists()
        self._descriptor = _opened(path)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._finished: dict[str, int] = {}
        self._written: set[tuple[str, str]] | None = None  # claim and dtype of this target's records; None before its header
        self._begun = False
        self._lines: list[bytes] = []  # of this target
        self._before: list[bytes] = []  # of those before it, in order; at first those that an earlier run finished
        try:
            for lines, header, summary in self._runs() if resume else ():
                self._finished[_key(header)] = int(summary["exit_code"])
                self._before += [f"{line}\n".encode() for line in lines]  # what was interrupted is done again
        except UsageError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Puts the records in order, and lets go of the file; one that this run made and wrote nothing to is removed."""
        if self._created and self._regular and not os.fstat(self._descriptor).st_size:
            self.path.unlink(missing_ok=True)
        elif self._begun and self._regular:
            self._put_in_order()
        os.close(self._descriptor)

    def finished(self, target: str, options: dict[str, Any], profile: str, seed: int) -> int | None:
        """The exit code of the target where an earlier run finished it in the same way; None otherwise."""
        return self._finished.get(_key({"target": target, "options": options, "profile": profile, "seed": seed}))

    def begin(self, report: Report) -> None:
        """Writes the header of a target."""
        if not self._begun:
            self._keep(b"".join(self._before))
            self._begun = True
        self._before, self._lines = self._before + self._lines, []
        self._written = set()
        self._append(report.header_line())

    def found(self, record: Record) -> None:
        """Writes a record when it is found: whole, but for a violation, of which it is not known yet what explains it."""
        assert self._written is not None
        if record.verdict == "VIOLATED":
            self._append(record.line().replace(record.format.encode(), FOUND.encode(), 1))
        else:
            self._append(record.line())
            self._written.add((record.claim, record.dtype))

    def finish(self, report: Report) -> None:
        """Writes what is missing of a target: violations with what explains them, what was observed, the summary."""
        if self._written is None:
            self.begin(report)
        assert self._written is not None
        for record in report.records:
            if (record.claim, record.dtype) not in self._written:
                self._append(record.line())
        if not report.interrupted:  # a target without the summary was interrupted
            self._append(report.summary_line())
        self._written, self._lines = None, [report.to_json().encode()]

    def _append(self, line: bytes) -> None:
        """One write, so that no reader sees half a line as long as the disk has room."""
        self._lines.append(line + b"\n")
        left = memoryview(self._lines[-1])
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise UsageError(f"--json {self.path}: cannot be written: {error.strerror}") from None

    def _keep(self, kept: bytes) -> None:
        """Leaves that much of an earlier run, which mostly stands at the beginning already."""
        if not self._regular:
            return
        if _content(self._descriptor)[: len(kept)] != kept:
            os.pwrite(self._descriptor, kept, 0)
        os.ftruncate(self._descriptor, len(kept))
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def _put_in_order(self) -> None:
        """Another file in the place of this one, at once, so that nothing is lost if this is killed or the disk is full."""
        ordered, path = b"".join(self._before + self._lines), self.path.resolve()
        if ordered == _content(self._descriptor):
            return
        other = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            other.write_bytes(ordered)
            shutil.copymode(path, other)
            other.replace(path)
        except OSError:
            other.unlink(missing_ok=True)

    def _runs(self) -> Iterator[Run]:
        """The runs of the file that have their summary."""
        lines: list[str] = []
        header: dict[str, Any] = {}
        text = _content(self._descriptor).decode("utf-8", errors="replace")
        whole, _, torn = text.rpartition("\n")
        if torn and not (torn.startswith(OURS) or OURS.startswith(torn)):
            whole = text  # not what a kill left of a line of ours
        for number, line in enumerate(whole.split("\n") if whole else (), start=1):
            try:
                found = json.loads(line)
                kind = found["format"]
            except (json.JSONDecodeError, TypeError, KeyError):
                if header:  # broken off in the midst of a line
                    lines, header = [], {}
                    continue
                raise UsageError(
                    f"{self.path}:{number}: not a line of a run; give the file that --json wrote, or another name"
                ) from None
            if "target" in found and kind.startswith("attnspec-run"):
                lines, header = [line], found
            elif header:
                lines.append(line)
                if "summary" in found:
                    yield lines, header, found
                    lines, header = [], {}


def _key(header: dict[str, Any]) -> str:
    return json.dumps([header[name] for name in ("target", "options", "profile", "seed")], sort_keys=True)


def _opened(path: Path) -> int:
    """A descriptor with an exclusive lock, which no child process has. Errors: UsageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            if path.exists() and not path.is_file():  # a pipe, or /dev/stdout: nothing to keep, nothing to lose
                return os.open(path, os.O_WRONLY)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if sys.platform != "win32":
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)  # another run removed the file before it was locked
    except (BlockingIOError, PermissionError) as error:
        if path.is_file() and os.access(path, os.W_OK):
            raise UsageError(f"--json {path}: another run is writing it; wait for it, or give another file") from None
        raise UsageError(f"--json {path}: cannot be written: {error.strerror}") from None
    except OSError as error:
        raise UsageError(f"--json {path}: cannot be written: {error.strerror}") from None


def _content(descriptor: int) -> bytes:
    """Read by the descriptor that has the lock: closing another of the same file would end it."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
