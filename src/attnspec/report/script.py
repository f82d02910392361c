"""A failing case as a stand-alone script: NumPy, the target's array library and the target, no attnspec."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.arguments import by_place_and_name
from attnspec.function import FunctionSubject
from attnspec.model import ModelSubject
from attnspec.properties.case import Case
from attnspec.properties.claim import Claim
from attnspec.properties.subject import NARROW, NARROW_KEYS, UNDER
from attnspec.properties.verdict import Evidence
from attnspec.report.script_of_model import script_of_model
from attnspec.surroundings import WRITTEN
from attnspec.target import Loaded

# The view of a larger buffer that each storage is (engine 1), in words that NumPy and torch share; other libraries have none.
VIEWS = {
    "strided": "{0}.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype=x.dtype)[..., ::2]",
    "offset": "{0}.zeros((*x.shape[:-2], x.shape[-2] + 1, x.shape[-1]), dtype=x.dtype)[..., 1:, :]",
    "transposed": "{0}.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), dtype=x.dtype).swapaxes(-1, -2)",
    "expanded": "{0}.broadcast_to(x[:1], x.shape)",
    "poisoned": "{0}.full((*x.shape[:-2], x.shape[-2] + 2, x.shape[-1] + 2), np.nan, dtype=x.dtype)[..., 1:-1, 1:-1]",
}

GENERATORS = {"torch": "torch.Generator().manual_seed({0})", "jax": "jax.random.key({0})"}
PULLED = {
    "torch": "torch.autograd.grad({out}, (q, k, v), weight, allow_unused=True)",
    "jax": "jax.vjp(lambda q, k, v: {call}, q, k, v)[1](weight)",
    "mlx": "mx.vjp(lambda q, k, v: {call}, [q, k, v], [weight])[1]",
}


def script(loaded: Loaded, subject: FunctionSubject | ModelSubject, claim: Claim, case: Case, evidence: Evidence) -> str:
    """The calls that the claim made on its failing case, in the function's own terms, and what was to be seen."""
    if isinstance(subject, ModelSubject):
        return script_of_model(loaded, subject, claim, case, evidence)
    lines = [
        f"# {claim.id}: {claim.statement}",
        f"# Case {case.id} on {loaded.name}, {case.dtype}.",
        "import numpy as np",
        *subject.arrays.imports(case.dtype).splitlines(),
        loaded.script[0],
        "",
        *_stored(case.storage, subject),
    ]
    defined: dict[str, str] = {}
    for number, call in enumerate(subject.calls[-2:], start=1):
        lines += _call(number, call, subject, loaded.script[1], defined)
    if claim.id == "robust.inputs-unchanged":
        lines.append("print(q, k, v)  # the inputs, after the call")
    lines += [
        f"# {evidence.what}{f' at {list(evidence.at)}' if evidence.at else ''} (batch, head, position, channel)",
        f"# got {evidence.got}, expected {evidence.expected}, allowed {evidence.allowed}: {evidence.why}",
    ]
    return "\n".join(lines) + "\n"


def _stored(storage: str, subject: FunctionSubject) -> list[str]:
    """A function that stores an array as the case says, where the library has that storage."""
    if storage not in VIEWS or storage not in subject.arrays.storages:
        return []
    view = VIEWS[storage].format("torch" if subject.arrays.name == "torch" else "np")
    if storage == "expanded":
        return ["def stored(x):", f"    return {view}  # one batch row, seen from every other", "", ""]
    return ["def stored(x):", f"    view = {view}  # {storage}", "    view[...] = x", "    return view", "", ""]


def _call(number: int, call: dict[str, Any], subject: FunctionSubject, expression: str, defined: dict[str, str]) -> list[str]:
    """One call: definitions of the arrays that changed since the last one, the call, and its output printed."""
    dtype, cotangent = call["dtype"], call.get("cotangent")
    asked = {n: call.get(n) for n in ("mask", "bias", "causal", "scale", "window", "softcap", "sinks", "dropout", "seed")}
    library = subject.arrays.name
    inputs: dict[str, Any] = {n: subject.laid_out(call[n]) for n in "qkv"}
    options = subject.options(asked, call["q"], call["k"], dtype)
    for role, value in options.items():
        if subject.arrays.owns(value) and role != "rng":
            boolean = subject.arrays.dtype_of(value) == "bool"
            options[role] = subject.arrays.widen(value).astype(bool if boolean else float)
    lines = []
    for role, value in {**inputs, **options}.items():
        if isinstance(value, np.ndarray):
            own = NARROW if role in ("k", "v") and NARROW_KEYS in call.get("need", ()) else dtype
            text = subject.arrays.literal(value, "bool" if value.dtype == bool else own)
            if role in inputs:
                storage = call.get("storage", "plain")
                text = f"stored({text})" if storage in VIEWS and storage in subject.arrays.storages else text
                text += ".requires_grad_()" if cotangent is not None and library == "torch" else ""
            if defined.get(role) != text:
                lines.append(f"{role} = {text}")
                defined[role] = text
    positional, named = by_place_and_name(subject.signature, inputs, options)
    names = {id(v): n for n, v in {**inputs, **options}.items() if isinstance(v, np.ndarray)}

    if "rng" in options:
        names[id(options["rng"])] = GENERATORS.get(library, "np.random.default_rng({0})").format(call.get("seed", 0))
    elif call.get("dropout") and "seed" not in options:
        lines.append(f"np.random.seed({call.get('seed', 0)})")
        lines += [f"torch.manual_seed({call.get('seed', 0)})"] if library == "torch" else []

    def shown(value: Any) -> str:
        return names.get(id(value), repr(value))

    inside = ", ".join([*map(shown, positional), *(f"{n}={shown(v)}" for n, v in named.items())])
    lines += [*_around(f"out{number} = {expression}({inside})", call), f"print(out{number})"]
    if cotangent is not None:
        lines.append(f"weight = {subject.arrays.literal(subject.laid_out(cotangent), dtype)}")
        pulled = PULLED.get(library)
        called = {"out": f"out{number}", "call": f"{expression}({inside})"}
        lines.append(f"print({pulled.format(**called)})  # for q, k, v" if pulled else "# the gradients are those of `vjp`")
    return lines


def _around(line: str, call: dict[str, Any]) -> list[str]:
    """The line of the call in the surroundings that the claim asked for."""
    under = next((n.removeprefix(UNDER) for n in call.get("need", ()) if n.startswith(UNDER)), "")
    before, after = WRITTEN.get(under, ("", ""))
    return [before, f"    {line}"] if before.endswith(":") else [text for text in (before, line, after) if text]
