"""A failing case as a stand-alone script: NumPy, the target's array library and the target, no attnspec."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.function import FunctionSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.verdict import Evidence
from attnspec.target import Loaded


def script(loaded: Loaded, subject: FunctionSubject, claim: Claim, case: Case, evidence: Evidence) -> str:
    """The calls that the claim made on its failing case, in the function's own terms, and what was to be seen."""
    lines = [
        f"# {claim.id}: {claim.statement}",
        f"# Case {case.id} on {loaded.name}, {case.dtype}.",
        "import numpy as np",
        *(["import torch"] if subject.arrays.name == "torch" else []),
        loaded.script[0],
        "",
    ]
    defined: dict[str, str] = {}
    for number, call in enumerate(subject.calls[-2:], start=1):
        lines += _call(number, call, subject, loaded.script[1], defined)
    lines += [
        f"# {evidence.what}{f' at {list(evidence.at)}' if evidence.at else ''} (batch, head, position, channel)",
        f"# got {evidence.got}, expected {evidence.expected}, allowed {evidence.allowed}: {evidence.why}",
    ]
    return "\n".join(lines) + "\n"


def _call(number: int, call: dict[str, Any], subject: FunctionSubject, expression: str, defined: dict[str, str]) -> list[str]:
    """One call: definitions of the arrays that changed since the last one, the call, and its output printed."""
    dtype = call["dtype"]
    asked = {n: call.get(n) for n in ("mask", "bias", "causal", "scale", "window", "softcap")}
    arguments: dict[str, Any] = {n: subject.laid_out(call[n]) for n in "qkv"}
    lines = []
    options = subject.options(asked, call["q"], call["k"], dtype)
    for role in ("mask", "bias"):
        if role in options and subject.arrays.owns(options[role]):
            wide = subject.arrays.widen(options[role])
            boolean = subject.arrays.dtype_of(options[role]) == "bool"
            options[role] = wide.astype(bool) if boolean else wide
    for role, value in {**arguments, **options}.items():
        if isinstance(value, np.ndarray):
            text = subject.arrays.literal(value, "bool" if value.dtype == bool else dtype)
            if defined.get(role) != text:
                lines.append(f"{role} = {text}")
                defined[role] = text
    positional, named = subject.arguments(arguments, options)
    names = {id(v): n for n, v in {**arguments, **options}.items() if isinstance(v, np.ndarray)}

    def shown(value: Any) -> str:
        return names.get(id(value), repr(value))

    inside = ", ".join([*map(shown, positional), *(f"{n}={shown(v)}" for n, v in named.items())])
    lines.append(f"out{number} = {expression}({inside})")
    lines.append(f"print(out{number})")
    return lines
