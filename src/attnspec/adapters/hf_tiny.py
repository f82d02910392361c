"""`hf-tiny:TYPE_OR_CLASS`: models of transformers, built here from a shrunk configuration with random weights.

Nothing is fetched. In a worker everything is computed in float64, also what asks for float32; in the caller's own process,
where that would change what others compute, models are float32; so they are in a worker forked after a model was imported.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter

OWN = ("attn", "recording")
FIELD = "config."  # an option that begins so is a field of the configuration


class AnyName(Mapping[str, str]):
    """Every name: whether there is such a model, only the library knows."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __contains__(self, key: object) -> bool:
        return bool(key)

    def __getitem__(self, key: str) -> str:
        return self.what

    def __iter__(self) -> Any:
        return iter((self.what,))

    def __len__(self) -> int:
        return 1


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are of the model, not of the audit."""
    fields = {name.removeprefix(FIELD): value for name, value in options.items() if name.startswith(FIELD)}
    return {name: options[name] for name in OWN if name in options} | fields


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    from attnspec.hugging_face.build import build
    from attnspec.hugging_face.float64 import in_float64, models_imported

    alone = multiprocessing.parent_process() is not None and not models_imported()
    if alone:
        in_float64()
    model: Any = build(name, dtype="float64" if alone else "float32", **chosen(options))
    return model, {}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    asked = "".join(f", {key}={value!r}" for key, value in chosen(options).items())
    return (
        "from attnspec.hugging_face.build import build\nfrom attnspec.hugging_face.float64 import in_float64\nin_float64()",
        f"build({name!r}{asked})",
    )


def preload() -> None:
    """Imports the library without any model: in_float64 must come before those. Errors: UsageError if it is not installed."""
    from attnspec.hugging_face.float64 import preload

    preload()


ADAPTER = Adapter(
    name="hf-tiny",
    targets=AnyName("TYPE_OR_CLASS"),
    options=(*OWN, FIELD),
    load=_load,
    expression=_expression,
    preload=preload,
)
