"""`hf:FOLDER`: a model of transformers that was saved to a folder, config.json and safetensors.

Nothing is fetched and no code of the folder is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attnspec.adapters import Adapter
from attnspec.adapters.hf_tiny import OWN, AnyName, chosen, preload


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    from attnspec.hugging_face.build import folder

    model: Any = folder(name, **chosen(options))
    return model, {}


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    asked = "".join(f", {key}={value!r}" for key, value in chosen(options).items())
    return "from attnspec.hugging_face.build import folder", f"folder({name!r}{asked})"


ADAPTER = Adapter(name="hf", targets=AnyName("FOLDER"), options=OWN, load=_load, expression=_expression, preload=preload)
