"""Keras on its PyTorch backend: `keras:dot_product_attention`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter, needed
from attnspec.errors import UsageError

ATTENTION = "dot_product_attention"


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    del options
    os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it once, when it is imported
    keras = needed("keras", f"keras:{name}")
    if (backend := keras.backend.backend()) != "torch":
        raise UsageError(f"keras:{name}: Keras runs on {backend} here; set KERAS_BACKEND=torch")
    return getattr(keras.ops, name), {"contract": "keras", "arrays": "torch"}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    del options
    return f'import os\nos.environ["KERAS_BACKEND"] = "torch"\nfrom keras.ops import {name} as attention', "attention"


TARGETS = {ATTENTION: "keras.ops.dot_product_attention on the PyTorch backend"}
ADAPTER = Adapter(name="keras", targets=TARGETS, load=_load, expression=_expression)
