"""The library itself, imported so that nothing in this process reaches a network."""

from __future__ import annotations

import importlib
import os
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from attnspec.adapters import needed


def library() -> Any:
    """transformers, offline from here on. Errors: UsageError if it is not installed."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    transformers = needed("transformers", "hugging_face")
    # The variables are read once, when the hub's client is imported: somebody may have done that before.
    hub: Any = importlib.import_module("huggingface_hub.constants")
    hub.HF_HUB_OFFLINE = True
    said: Any = importlib.import_module("transformers.utils.logging")
    said.set_verbosity_error()  # an audit makes and calls hundreds of models: bars and hints would hide its own words
    said.disable_progress_bar()
    return transformers


@cache
def data(name: str) -> dict[str, Any]:
    """A TOML file that lies beside this one."""
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text())
