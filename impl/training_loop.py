"""A loop of training steps that shows how far it is, and that one Ctrl-C ends in order."""

import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from attnspec.impl.checkpoint import save
from attnspec.impl.errors import require
from attnspec.impl.training import Batch, Trainer


class Record(NamedTuple):
    """A step of the loop: its number, loss per real token, real tokens, learning rate, and real tokens per second so far."""

    step: int
    loss: float
    tokens: int
    rate: float
    tokens_per_second: float

    def __str__(self) -> str:
        speed = f"{self.tokens_per_second:,.0f} tokens/s"
        return f"step {self.step}  loss {self.loss:.4f}  rate {self.rate:.2e}  {speed}"


def train(
    trainer: Trainer, batches: Iterable[Sequence[Batch]], *, steps: int | None = None, seconds: float | None = None,
    path: str | Path | None = None, save_every: int | None = None, stream: TextIO | None = None, show_every: float = 5.0,
) -> Iterator[Record]:  # fmt: skip
    """Takes a step for each element of batches, and gives a record of each, until something ends it.

        records = trainer.step(micro-batches) for micro-batches in batches               (1)

    The first Ctrl-C lets the step end, then the loop; a second one stops at once. However the loop ends between two
    steps, by a break of the caller too, it saves a checkpoint to path; a step that is broken off is not saved.

    Shapes:  as in Trainer.step.
    Units:   steps and seconds are limits, counted from the trainer's first step ever, and from now; a line goes to stream
             (standard error, unless given) every show_every seconds, on a terminal in place of the one before.
    Empty:   without batches there are no records.
    Errors:  ValueError for limits that are not positive; those of Trainer.step and save.
    Source:  n/a.
    Differs: n/a. Reading the loss of each step waits for a GPU: on one, give more micro-batches to a step.
    """
    for name, value in {"steps": steps, "seconds": seconds, "save_every": save_every}.items():
        require(value is None or value > 0, "a limit is positive; use None for none", **{name: value})
    line, start, tokens, whole = _Line(sys.stderr if stream is None else stream, show_every), time.perf_counter(), 0, True
    with _interrupts() as interrupted:
        try:
            for micro_batches in batches:
                if steps is not None and trainer.taken >= steps:
                    break
                whole = False
                step = trainer.step(micro_batches)
                whole = True
                tokens += int(step.tokens)
                passed = time.perf_counter() - start
                record = Record(step.step, float(step.loss), int(step.tokens), step.rate, tokens / passed)
                line.show(record)
                if path is not None and save_every is not None and step.step % save_every == 0:
                    save(path, trainer)
                yield record
                if interrupted.is_set() or (seconds is not None and time.perf_counter() - start >= seconds):
                    break
        finally:
            line.end()
            if path is not None and whole:
                save(path, trainer)


class _Line:
    """The line that says how far it is."""

    def __init__(self, stream: TextIO, every: float) -> None:
        self.stream, self.every, self.due, self.terminal = stream, every, time.perf_counter(), stream.isatty()
        self.last: Record | None = None

    def show(self, record: Record, now: bool = False) -> None:
        self.last = record
        if now or time.perf_counter() >= self.due:
            self.stream.write(f"\r\x1b[K{record}" if self.terminal else f"{record}\n")
            self.stream.flush()
            self.due, self.last = time.perf_counter() + self.every, None

    def end(self) -> None:
        """Shows the last record, unless it is there, and leaves the line."""
        if self.last is not None:
            self.show(self.last, now=True)
        if self.terminal:
            self.stream.write("\n")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the next ones do what they did before."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
