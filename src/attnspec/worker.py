"""Where subjects run: a worker process of their own, so that a crash, a hang or a kill costs one verdict.

The worker is forked. It imports the target, and so whatever heavy library the target needs; if it dies, this process imports
that library once before it forks the next worker, so that a subject that keeps crashing does not pay for it again and again.
That serves torch, and what an adapter preloads: a process that has imported a library with threads of its own, such as JAX,
must not be forked. Where
this process has imported one, for its own sake, the worker is spawned instead.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import cached_property
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, Self, TypeVar

import pebble

from attnspec.adapters import adapters
from attnspec.auditor import Unit, _named, run_unit
from attnspec.conventions import Subject, subject_of, subject_under
from attnspec.errors import CannotRun
from attnspec.properties.claim import claims
from attnspec.properties.subject import Profile
from attnspec.properties.verdict import Record
from attnspec.target import Loaded, load

R = TypeVar("R")
HEAVY = ("torch",)
THREADED = ("jax", "mlx", "onnxruntime", "tensorflow")  # locks of their threads stay locked in a forked child
COMPILING = ("jax",)  # libraries that compile anew for every shape
PATIENCE = 10  # how many times longer they may take, and loading any target, where nobody has said how long is too long
_targets: dict[str, Loaded] = {}  # in a worker: the target that it has loaded
_subjects: dict[str, Subject] = {}  # and its subject


class InProcess:
    """Runs units in this process: for debuggers, for pytest, and for callables that cannot be sent to another."""

    def __init__(self, target: str, options: Mapping[str, Any], loaded: Loaded | None = None) -> None:
        self.target = target
        self._loaded = loaded or load(target, options)

    @cached_property
    def _subject(self) -> Subject:
        return subject_of(self._loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def profile(self) -> Profile:
        return self._subject.profile

    def run(self, unit: Unit) -> Record:
        return run_unit(unit, self._loaded, self._subject)

    def do(self, work: Callable[..., R], *arguments: Any) -> R:
        """What `work(loaded, subject, *arguments)` returns."""
        return work(self._loaded, self._subject, *arguments)


class Worker:
    """Runs units in a process of its own that is replaced when it dies or exceeds `seconds` for one unit.

    A `patient` one gives more time to what is known to be slow without being stuck.
    """

    def __init__(self, target: str, options: Mapping[str, Any], seconds: float, *, patient: bool = False) -> None:
        self._target, self._options = target, dict(options)
        self._usual, self._patience = seconds, PATIENCE if patient else 1
        self._seconds = seconds * self._patience
        adapter = adapters().get(target.partition(":")[0])
        if adapter is not None and adapter.preload is not None:
            adapter.preload()
        self._pool = _pool()
        self._profile: Profile | None = None
        self._heavy: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process; whatever it was asked is LostError."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def profile(self) -> Profile:
        """The subject's profile. Errors: UsageError; CannotRun, also if loading crashes or hangs."""
        try:
            self._profile, self._heavy = self._do(_prepare, self._target, self._options)
        except LostError as lost:
            raise CannotRun(f"{self._target}: loading and probing the target {lost}") from None
        self.adopt(self._profile)
        return self._profile

    def warm_up(self) -> None:
        """Begins to load the target, and does not wait. What goes wrong shows when the subject is first needed."""
        self._pool.schedule(_load, args=(self._target, self._options), timeout=self._seconds)

    def adopt(self, profile: Profile) -> None:
        """Takes over the profile that another worker found: it is one target, and probing takes time."""
        self._profile = profile
        self._seconds = self._usual * (self._patience if profile["arrays"] in COMPILING else 1)

    def run(self, unit: Unit) -> Record:
        try:
            record = self._do(_run, unit, self._profile)
            assert isinstance(record, Record)
            return record
        except LostError as lost:
            assert self._profile is not None
            return Record.unknown(str(lost), **_named(unit, claims()[unit.claim], self._profile))

    def do(self, work: Callable[..., R], *arguments: Any) -> R:
        """What `work(loaded, subject, *arguments)` returns in the worker. Errors: LostError."""
        result: R = self._do(_work, self._target, self._options, self._profile, work, arguments)
        return result

    def _do(self, function: Any, *arguments: Any) -> Any:
        future = self._pool.schedule(function, args=arguments, timeout=self._seconds)
        try:
            return future.result()
        except TimeoutError:
            self._revive()
            raise LostError(f"hung: no answer within {self._seconds:g} s (--timeout); the worker was stopped") from None
        except pebble.ProcessExpired as died:
            self._revive()
            raise LostError(f"crashed: the worker died {_cause(died.exitcode)}") from None
        except CancelledError:
            raise LostError("was cancelled") from None

    def _revive(self) -> None:
        """Another pool, so that the next worker is forked from this thread, and after what the dead one had imported.

        A pool replaces its worker by itself, from a thread of its own and at any time: a worker that is forked while this
        process imports a module waits for that module for ever. The one that the old pool started has no work and is stopped.
        """
        self.stop()
        for name in self._heavy:
            importlib.import_module(name)
        self._pool = _pool()


class LostError(Exception):
    """The worker gave no answer."""


def _cause(code: int) -> str:
    import signal

    try:
        return f"of signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
    except ValueError:
        return f"with exit code {code}"


class _Spawned(SpawnProcess):
    """A spawned process that does not run the caller's main module again: a worker needs nothing from there."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name that multiprocessing calls
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _Spawning(SpawnContext):
    Process = _Spawned


def _pool() -> pebble.ProcessPool:
    spawns = any(name in sys.modules for name in THREADED)
    context: Any = _Spawning() if spawns else multiprocessing.get_context("fork")
    return pebble.ProcessPool(max_workers=1, context=context, initializer=_begin, initargs=(sys.path[:],))


def _begin(path: list[str]) -> None:
    """In the worker: what a target prints must not mix with the report."""
    sys.path[:] = path
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115


def _load(target: str, options: Mapping[str, Any]) -> None:
    """Loads the target and does not probe it; if that fails, it fails again when the subject is needed."""
    with suppress(Exception):
        _target(target, options)


def _target(target: str, options: Mapping[str, Any]) -> Loaded:
    key = f"{target} {sorted(options.items())}"
    if key not in _targets:
        _targets[key] = load(target, options)
    return _targets[key]


def _loaded(target: str, options: Mapping[str, Any], profile: Profile | None) -> tuple[Loaded, Subject]:
    key = f"{target} {sorted(options.items())}"
    loaded = _target(target, options)
    if key not in _subjects:
        _subjects[key] = subject_of(loaded) if profile is None else subject_under(loaded, profile)
    return loaded, _subjects[key]


def _prepare(target: str, options: Mapping[str, Any]) -> tuple[Profile, list[str]]:
    _, subject = _loaded(target, options, None)
    return subject.profile, [name for name in HEAVY if name in sys.modules]


def _work(
    target: str, options: Mapping[str, Any], profile: Profile | None, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    return work(*_loaded(target, options, profile), *arguments)


def _run(unit: Unit, profile: Profile | None) -> Record:
    record = run_unit(unit, *_loaded(unit.target, unit.options, profile))
    if (jax := sys.modules.get("jax")) is not None:
        # Each shape is compiled; some thousand of them are more pieces of memory than a process may have, and it crashes.
        jax.clear_caches()
    return record
