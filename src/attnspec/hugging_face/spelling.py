"""What versions of transformers spell differently, found by asking the library: fields, implementations, dtypes."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from attnspec.errors import UsageError
from attnspec.hugging_face.offline import library


def configuration() -> Any:
    """The class that all configurations come from."""
    return getattr(library(), "PreTrainedConfig", None) or library().PretrainedConfig


def all_fields(config: Any) -> list[str]:
    """Every field of a configuration or of its class."""
    if is_dataclass(config):
        return [f.name for f in fields(config)]
    return list(dict.fromkeys([*own_fields(config), *(name for name in vars(configuration()()) if name[0] != "_")]))


def own_fields(config: Any) -> list[str]:
    """The fields that a configuration or its class adds to those of all, as its constructor has them."""
    if is_dataclass(config):
        common = {f.name for f in fields(configuration())}
        return [f.name for f in fields(config) if f.name not in common]
    made = inspect.signature(config if isinstance(config, type) else type(config)).parameters.values()
    return [p.name for p in made if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def text_config(config: Any, side: Literal["decoder", "encoder"]) -> Any:
    """The configuration of the side that reads or writes text; itself where the version knows no others."""
    ask = getattr(config, "get_text_config", None)
    if ask is None:
        return config
    return ask(**({side: True} if side in inspect.signature(ask).parameters else {}))


def implementations(attn: str) -> dict[str, str]:
    """The arguments of a constructor that choose how attention and experts are computed: experts by the plain loop.

    Errors: UsageError if there is no choice in this version, and attn is another than what it has.
    """
    chosen = {}
    if hasattr(configuration(), "_attn_implementation"):
        chosen["attn_implementation"] = attn
    elif attn != "eager":
        raise UsageError(f"attn={attn}: transformers {library().__version__} has eager alone; leave it out")
    if hasattr(configuration(), "_experts_implementation"):
        chosen["experts_implementation"] = "eager"
    return chosen


def loading(dtype: str) -> dict[str, Any]:
    """The arguments of `from_pretrained` for weights of this dtype from safetensors alone.

    Errors: UsageError if this version cannot be kept from reading pickled weights.
    """
    if "use_safetensors" not in inspect.signature(library().PreTrainedModel.from_pretrained).parameters:
        raise UsageError(f"transformers {library().__version__} may read pickled weights from a folder; take 4.32 or later")
    spelled = "dtype" if "dtype" in vars(configuration()()) else "torch_dtype"
    return {spelled: dtype, "use_safetensors": True}
