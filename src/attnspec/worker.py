"""Where subjects run: a worker process of their own, so that a crash, a hang or a kill costs one verdict.

The worker is forked. It imports the target, and so whatever heavy library the target needs; if it dies, this process imports
that library once before it forks the next worker, so that a subject that keeps crashing does not pay for it again and again.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import CancelledError
from functools import cached_property
from typing import Any, Self

import pebble

from attnspec.auditor import Unit, _named, run_unit
from attnspec.conventions import subject_of
from attnspec.errors import CannotRun
from attnspec.function import FunctionSubject
from attnspec.properties.claim import claims
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Record
from attnspec.target import Loaded, load

HEAVY = ("torch",)
_here: dict[str, tuple[Loaded, FunctionSubject]] = {}  # in a worker: the target that it has loaded


class InProcess:
    """Runs units in this process: for debuggers, for pytest, and for callables that cannot be sent to another."""

    def __init__(self, target: str, options: Mapping[str, Any], loaded: Loaded | None = None) -> None:
        self.target = target
        self._loaded = loaded or load(target, options)

    @cached_property
    def _subject(self) -> FunctionSubject:
        return subject_of(self._loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def profile(self) -> Profile:
        return self._subject.profile

    def run(self, unit: Unit) -> Record:
        return run_unit(unit, self._loaded, self._subject)


class Worker:
    """Runs units in a forked process that is replaced when it dies or exceeds `seconds` for one unit."""

    def __init__(self, target: str, options: Mapping[str, Any], seconds: float) -> None:
        self._target, self._options, self._seconds = target, dict(options), seconds
        self._pool = _pool()
        self._profile: Profile | None = None
        self._heavy: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def profile(self) -> Profile:
        """The subject's profile. Errors: UsageError; CannotRun, also if loading crashes or hangs."""
        try:
            self._profile, self._heavy = self._do(_prepare, self._target, self._options)
        except _LostError as lost:
            raise CannotRun(f"{self._target}: loading and probing the target {lost}") from None
        return self._profile

    def run(self, unit: Unit) -> Record:
        try:
            record = self._do(_run, unit)
            assert isinstance(record, Record)
            return record
        except _LostError as lost:
            assert self._profile is not None
            return Record.unknown(str(lost), **_named(unit, claims()[unit.claim], self._profile))

    def _do(self, function: Any, *arguments: Any) -> Any:
        future = self._pool.schedule(function, args=arguments, timeout=self._seconds)
        try:
            return future.result()
        except TimeoutError:
            self._revive()
            raise _LostError(f"hung: no answer within {self._seconds:g} s (--timeout); the worker was stopped") from None
        except pebble.ProcessExpired as died:
            self._revive()
            raise _LostError(f"crashed: the worker died {_cause(died.exitcode)}") from None
        except CancelledError:
            raise _LostError("was cancelled") from None

    def _revive(self) -> None:
        """Imports here what the dead worker had imported: the next one starts with it."""
        for name in self._heavy:
            importlib.import_module(name)


class _LostError(Exception):
    """The worker gave no answer."""


def _cause(code: int) -> str:
    import signal

    try:
        return f"of signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
    except ValueError:
        return f"with exit code {code}"


def _pool() -> pebble.ProcessPool:
    return pebble.ProcessPool(max_workers=1, context=multiprocessing.get_context("fork"), initializer=_quiet)


def _quiet() -> None:
    """In the worker: what a target prints must not mix with the report."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


def _loaded(target: str, options: Mapping[str, Any]) -> tuple[Loaded, FunctionSubject]:
    key = f"{target} {sorted(options.items())}"
    if key not in _here:
        loaded = load(target, options)
        _here[key] = loaded, subject_of(loaded)
    return _here[key]


def _prepare(target: str, options: Mapping[str, Any]) -> tuple[Profile, list[str]]:
    _, subject = _loaded(target, options)
    return subject.profile, [name for name in HEAVY if name in sys.modules]


def _run(unit: Unit) -> Record:
    loaded, subject = _loaded(unit.target, unit.options)
    return run_unit(unit, loaded, subject)
