"""`impl:NAME`: this project's own implementation, audited like anyone's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attnspec.adapters import Adapter

TARGETS = {"attention": "attnspec.impl.attention.attention"}
# Models by what they vary; each has two layers and weights from a fixed seed.
MODELS: dict[str, dict[str, Any]] = {
    "lm-sinusoidal": {},
    "lm-learned": {"positions": "learned", "order": "pre"},
    "lm-rotary": {"positions": "rotary", "norm": "rms", "gated": True, "activation": "silu", "bias": False},
    "lm-alibi": {"positions": "alibi", "order": "pre"},
    "lm-windowed": {"positions": "rotary", "window": 5},
    "lm-grouped": {"positions": "rotary", "kv_heads": 2, "softcap": 2.0},
    "seq2seq-sinusoidal": {"encoder_layers": 2},
    "seq2seq-grouped": {"encoder_layers": 1, "positions": "rotary", "kv_heads": 2, "order": "pre", "shared": True},
}
TINY = {"vocab_size": 29, "encoder_layers": 0, "decoder_layers": 2, "width": 24, "heads": 4, "hidden": 40, "max_length": 40}


def model(name: str) -> Any:
    """One of MODELS in float64, weights drawn so that every token matters; the global random state is left as it is."""
    import torch

    from attnspec.impl.config import TransformerConfig
    from attnspec.impl.transformer import CausalLM, Seq2Seq

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        config = TransformerConfig(**TINY | MODELS[name])
        made = (Seq2Seq if config.encoder_layers else CausalLM)(config).double().eval()
        for weight in made.parameters():
            std = 0.2 if weight.ndim == 1 else 1.4 * weight.shape[-1] ** -0.5
            weight.data.add_(std * torch.randn_like(weight)) if weight.ndim == 1 else weight.data.normal_(std=std)
    return made


def _load(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    if name in MODELS:
        return model(name), {}
    module, _, attribute = TARGETS[name].rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    seen = inspect.signature(function)
    on_path: Any = partial(function, path=options.get("path"))
    # The path is an option of the target, not of its calls.
    on_path.__signature__ = seen.replace(parameters=[p for p in seen.parameters.values() if p.name != "path"])
    return on_path, dict(function.__attnspec__)


def _expression(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    if name in MODELS:
        return "from attnspec.adapters.impl import model", f"model({name!r})"
    module, _, attribute = TARGETS[name].rpartition(".")
    if "path" not in options:
        return f"from {module} import {attribute}", attribute
    return (
        f"from functools import partial\nfrom {module} import {attribute}",
        f"partial({attribute}, path={options['path']!r})",
    )


ADAPTER = Adapter(
    name="impl",
    targets=TARGETS | dict.fromkeys(MODELS, "a small model"),
    options=("path",),
    load=_load,
    expression=_expression,
)
