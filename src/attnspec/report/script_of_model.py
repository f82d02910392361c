"""A failing case of a model as a stand-alone script: the model, its array library and the calls, no attnspec."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.model import ModelSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.verdict import Evidence
from attnspec.target import Loaded


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
    lines += [_call(call, number, subject) for number, call in enumerate(subject.calls, start=1)]
    last = [n for n, call in enumerate(subject.calls, start=1) if call["method"] in ("logits", "extend")][-2:]
    lines += [f"print(out{number})" for number in last]
    lines += [
        f"# {evidence.what}{f' at {list(evidence.at)}' if evidence.at else ''}",
        f"# got {evidence.got}, expected {evidence.expected}, allowed {evidence.allowed}: {evidence.why}",
    ]
    return "\n".join(lines) + "\n"


def _call(call: dict[str, Any], number: int, subject: ModelSubject) -> str:
    """One call; what it gives has its number."""
    arguments, method = call["arguments"], call["method"]
    shown = [subject.arrays.literal(x, "int64") if isinstance(x, np.ndarray) else str(x) for x in arguments]
    result = {"logits": f"out{number}", "extend": f"out{number}, state{number}"}.get(method, f"state{number}")
    return f"{result} = model.{method}({', '.join(shown)})"
