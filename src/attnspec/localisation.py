"""Where a model's future reaches its past: which token reaches which position, and the first module that lets it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from msgspec.structs import replace

from attnspec.model import FAILED, ModelSubject
from attnspec.properties import bounds_models
from attnspec.properties.case import Case
from attnspec.properties.claims.model_causal import one_changed_in_each_row
from attnspec.properties.subject import BoolArray, FloatArray
from attnspec.properties.verdict import Leak, number
from attnspec.target import Loaded

TOKENS = 12


def leak(loaded: Loaded, subject: ModelSubject, case: Case) -> Leak | None:
    """The leakage map of a case: influence[t][s], how far another token at t moves the logits at s.

    A minimal case has so few tokens that it does not show the pattern: it is mapped with TOKENS of them where it leaks then.
    Influences are shares of the largest logit; those below the limit of the dtype count as none. With it the first module of
    a torch model, in the order in which they finish, whose output at some s < t depends on token t.
    """
    del loaded
    most = min(TOKENS, subject.max_length or TOKENS)
    larger = case.but(sizes=replace(case.sizes, T=max(case.sizes.T, most)), id="", sha256="")
    found = _mapped(subject, larger)
    return found if found is not None and _leaks(found) else _mapped(subject, case)


def _mapped(subject: ModelSubject, case: Case) -> Leak | None:
    rows = one_changed_in_each_row(subject, case)
    try:
        with _listening(subject.model) as heard:
            out = subject.logits(rows)
    except FAILED:
        return None
    influence = _influence(out)
    limit = bounds_models.LIMIT[subject.profile["dtypes"][0]]
    first = next((name for name, seen in heard if seen.shape[:2] == rows.shape and _before(_influence(seen) > limit)), None)
    return Leak(tuple(tuple(number(x) for x in row) for row in np.where(influence > limit, influence, 0.0)), first)


def _influence(out: FloatArray) -> FloatArray:
    """[T,T] from [1+T,T,...]: the largest change of each position, in units of the largest number; row t changed token t."""
    flat = out.reshape(*out.shape[:2], -1)
    plain, changed = flat[:1], flat[1:]
    largest = np.abs(plain[np.isfinite(plain)]).max(initial=0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.abs(changed - plain)
        same = (changed == plain) | (np.isnan(changed) & np.isnan(plain))
        moved = np.where(same, 0.0, np.where(np.isnan(moved), np.inf, moved))
        return np.asarray(moved.max(-1, initial=0.0) / (largest or 1.0))


def _leaks(found: Leak) -> bool:
    return any(found.influence[t][s] for t in range(len(found.influence)) for s in range(t))


def _before(reached: BoolArray) -> bool:
    """Whether a token reaches a position before it."""
    return bool(np.tril(reached, -1).any())


@contextmanager
def _listening(model: Any) -> Iterator[list[tuple[str, FloatArray]]]:
    """What each module of a torch model gives inside the block, in the order in which they finish."""
    heard: list[tuple[str, FloatArray]] = []
    torch = sys.modules.get("torch")
    inner = next((m for m in (model, getattr(model, "model", None)) if torch and isinstance(m, torch.nn.Module)), None)
    with ExitStack() as stack:
        for name, module in inner.named_modules() if inner is not None else ():
            handle = module.register_forward_hook(_hook(name or type(module).__name__, heard, torch))
            stack.callback(handle.remove)
        yield heard


def _hook(name: str, heard: list[tuple[str, FloatArray]], torch: Any) -> Any:
    def note(module: Any, inputs: Any, output: Any) -> None:
        del module, inputs
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, torch.Tensor) and first.is_floating_point() and first.ndim >= 3:
            heard.append((name, first.detach().double().cpu().numpy()))

    return note
