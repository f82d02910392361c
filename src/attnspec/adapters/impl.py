"""`impl:NAME`: this project's own attention and models, audited like anyone's; `impl:PATH.safetensors`: a checkpoint."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attnspec.adapters import Adapter
from attnspec.errors import UsageError
from attnspec.small_models import NAMES, model

TARGETS = {"attention": "attnspec.impl.attention.attention"}
FILE = ".safetensors"  # how the name of a checkpoint ends


class _Targets(dict[str, str]):
    """What has a name, and whatever file a checkpoint may be in."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or str(key).endswith(FILE)


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    if name in NAMES:
        return model(name), {}
    if name.endswith(FILE):
        return _from_checkpoint(name), {}
    module, _, attribute = TARGETS[name].rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    seen = inspect.signature(function)
    on_path: Any = partial(function, path=options.get("path"))
    # The path is an option of the target, not of its calls.
    on_path.__signature__ = seen.replace(parameters=[p for p in seen.parameters.values() if p.name != "path"])
    return on_path, dict(function.__attnspec__)


def _from_checkpoint(path: str) -> Any:
    """A model that `impl.checkpoint.save` wrote. Errors: UsageError if there is none in the file."""
    from attnspec.impl.checkpoint import read_model

    try:
        return read_model(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"target 'impl:{path}': {error}") from error


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    if name in NAMES:
        return "from attnspec.small_models import model", f"model({name!r})"
    if name.endswith(FILE):
        return "from attnspec.impl.checkpoint import read_model", f"read_model({name!r})"
    module, _, attribute = TARGETS[name].rpartition(".")
    if "path" not in options:
        return f"from {module} import {attribute}", attribute
    return (
        f"from functools import partial\nfrom {module} import {attribute}",
        f"partial({attribute}, path={options['path']!r})",
    )


ADAPTER = Adapter(
    name="impl",
    targets=_Targets(TARGETS | dict.fromkeys(NAMES, "a small model") | {f"PATH{FILE}": "a checkpoint of a model of ours"}),
    options=("path",),
    load=_load,
    expression=_expression,
)
