"""A failing case of a model as a stand-alone script: the model, its array library and the calls, no attnspec."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.model import ModelSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.verdict import Evidence
from attnspec.surroundings import WRITTEN
from attnspec.target import Loaded

STATES = ("start", "caches", "encode", "reorder", "crop", "fork")  # methods that give a state
MODELS = ("reloaded", "renamed", "narrowed", "nudged")  # and a model


def script_of_model(loaded: Loaded, subject: ModelSubject, claim: Claim, case: Case, evidence: Evidence) -> str:
    """The calls that the claim made on its failing case, the last one that of the failing logits."""
    arrays = subject.arrays
    lines = [
        f"# {claim.id}: {claim.statement}",
        f"# Case {case.id} on {loaded.name}.",
        *(["import numpy as np"] if arrays.name == "numpy" else arrays.imports("int64").splitlines()),
        loaded.script[0],
        "",
        f"model = {loaded.script[1]}",
    ]
    if functions := sorted({call["method"] for call in subject.calls if "function" in call}):
        lines.insert(-2, f"from attnspec.torch_models import {', '.join(functions)}  # the model has no such methods")
    for number, call in enumerate(subject.calls, start=1):
        before, after = WRITTEN.get(call.get("around", ""), ("", ""))
        line = _call(call, number, subject)
        lines += [before, f"    {line}" if before.endswith(":") else line, after] if before else [line]
    last = [n for n, call in enumerate(subject.calls, start=1) if _result(call["method"], n).startswith("out")][-2:]
    lines += [f"print(out{number})" for number in last]
    lines += [
        f"# {evidence.what}{f' at {list(evidence.at)}' if evidence.at else ''}",
        f"# got {evidence.got}, expected {evidence.expected}, allowed {evidence.allowed}: {evidence.why}",
    ]
    return "\n".join(lines) + "\n"


def _call(call: dict[str, Any], number: int, subject: ModelSubject) -> str:
    """One call; what it gives has its number."""
    arguments, method = call["arguments"], call["method"]
    shown = [_shown(x, subject) for x in arguments]
    name = call.get("on", "model")
    called = f"{method}({', '.join([name, *shown])})" if "function" in call else f"{name}.{method}({', '.join(shown)})"
    return f"{_result(method, number)} = {called}"


def _shown(x: Any, subject: ModelSubject) -> str:
    if isinstance(x, list):
        return f"[{', '.join(_shown(one, subject) for one in x)}]"
    if isinstance(x, dict):
        dtype = subject.profile["dtypes"][0]
        return "{" + ", ".join(f"{name!r}: {subject.arrays.literal(array, dtype)}" for name, array in x.items()) + "}"
    if isinstance(x, np.ndarray):
        return subject.arrays.literal(x, "int64")
    return repr(x) if isinstance(x, str) else str(x)


def _result(method: str, number: int) -> str:
    """The names of what a call gives."""
    if method == "extend":
        return f"out{number}, state{number}"
    if method in MODELS:
        return f"model{number}"
    return f"state{number}" if method.partition("[")[0] in STATES else f"out{number}"
