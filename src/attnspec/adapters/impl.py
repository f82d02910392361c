"""`impl:NAME`: this project's own implementation, audited like anyone's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter

TARGETS = {"attention": "attnspec.impl.attention.attention"}


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    module, _, attribute = TARGETS[name].rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    return function, dict(function.__attnspec__)


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    module, _, attribute = TARGETS[name].rpartition(".")
    return f"from {module} import {attribute}", attribute


ADAPTER = Adapter(name="impl", targets=TARGETS, load=_load, expression=_expression)
