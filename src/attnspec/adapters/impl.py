"""`impl:NAME`: this project's own attention and models, audited like anyone's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attnspec.adapters import Adapter
from attnspec.small_models import NAMES, model

TARGETS = {"attention": "attnspec.impl.attention.attention"}


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    if name in NAMES:
        return model(name), {}
    module, _, attribute = TARGETS[name].rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    seen = inspect.signature(function)
    on_path: Any = partial(function, path=options.get("path"))
    # The path is an option of the target, not of its calls.
    on_path.__signature__ = seen.replace(parameters=[p for p in seen.parameters.values() if p.name != "path"])
    return on_path, dict(function.__attnspec__)


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    if name in NAMES:
        return "from attnspec.small_models import model", f"model({name!r})"
    module, _, attribute = TARGETS[name].rpartition(".")
    if "path" not in options:
        return f"from {module} import {attribute}", attribute
    return (
        f"from functools import partial\nfrom {module} import {attribute}",
        f"partial({attribute}, path={options['path']!r})",
    )


ADAPTER = Adapter(
    name="impl",
    targets=TARGETS | dict.fromkeys(NAMES, "a small model"),
    options=("path",),
    load=_load,
    expression=_expression,
)
