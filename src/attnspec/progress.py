"""What a terminal shows while there is work: one line that is rewritten, and nothing where output is collected."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from attnspec.auditor import Unit
    from attnspec.properties.verdict import Record

EVERY = 1.0  # seconds: so that a long claim is seen to be at work
CLEAR = "\r\x1b[K"


class Progress:
    """The line of one target: its name and place among all, how many claims are done, the time, what was done last.

    A thread rewrites it as time passes. It writes to the descriptor, as a worker that is forked meanwhile would find the lock
    of a stream held for ever.
    """

    def __init__(self, target: str, place: str = "") -> None:
        self._name = f"{place} {target}".strip()
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._start = time.monotonic()
        self._left: Counter[str] = Counter()  # units of each claim that are not done
        self._claims = 0
        self._text = "loading"
        self._writing = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        if self._shown:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing:
            self._ended.set()
            self._write(CLEAR)

    def begin(self, units: Sequence[Unit]) -> None:
        """What there is to do is known."""
        self._left = Counter(unit.claim for unit in units)
        self._claims = len(self._left)
        self.say("begins")

    def done(self, unit: Unit, record: Record) -> None:
        self._left[unit.claim] -= 1
        left = any(self._left.values())
        self.say(f"{unit.claim} {unit.dtype} {record.verdict.value}" if left else "looking for causes")

    def say(self, text: str) -> None:
        self._text = text
        self._show()

    def line(self) -> str:
        """`2/3 model.py::Bag: claim 7 of 19, 12 s, cache.crop float64 HOLDS`."""
        begun = self._claims - sum(1 for left in self._left.values() if left > 0) + any(self._left.values())
        claim = f"claim {begun} of {self._claims}, " if self._claims else ""
        return f"{self._name}: {claim}{time.monotonic() - self._start:.0f} s, {self._text}"

    def _tick(self) -> None:
        while not self._ended.wait(EVERY):
            self._show()

    def _show(self) -> None:
        with self._writing:
            if not self._ended.is_set():
                self._write(CLEAR + self.line()[: _width()])

    def _write(self, text: str) -> None:
        if self._shown:
            os.write(sys.stderr.fileno(), text.encode(errors="replace"))


def _width() -> int:
    """Of the terminal, less one: a line that reaches its end may be broken there, and cannot be rewritten."""
    try:
        return max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    except OSError:
        return 79
