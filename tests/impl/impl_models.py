"""The drawn Transformers of the reference as models of impl/: the same weights, the same options."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.impl.transformer import CausalLM, Seq2Seq, Transformer
from attnspec.reference.key_value_cache import empty_cache, extend
from attnspec.reference.transformer import encode
from tests.reference.drawn import given
from tests.reference.drawn_models import POSITIONS, Model

torch.set_num_threads(1)


def always(*strategies: Any, **settings: Any) -> Any:
    """hypothesis.given with the same examples in every run: one in thousands of models has a bound too wide to say anything,
    where small norms follow each other; `agrees` then raises, which is no finding about impl/."""
    return given(*strategies, derandomize=True, **settings)


def config_of(model: Model, **others: Any) -> TransformerConfig:
    """What the parameters themselves say, beside the options."""
    p, options = model.parameters, dict(model.options)
    one = next(name for name in p if name.endswith("0.attention.q.weight")).removesuffix("attention.q.weight")
    sizes = {
        "vocab_size": model.V, "width": p[one + "attention.q.weight"].shape[1], "heads": options.pop("heads"),
        "head_width": p[one + "attention.q.weight"].shape[0] // model.options["heads"],
        "hidden": len(p[one + "feed_forward.up.weight"]), "max_length": POSITIONS,
        "encoder_layers": depth(p, "encoder"), "decoder_layers": depth(p, "decoder"),
    }  # fmt: skip
    made = {
        "bias": one + "attention.q.bias" in p, "gated": one + "feed_forward.gate.weight" in p,
        "embedding_norm": any(".embedding_norm." in name for name in p), "tied": "output.weight" not in p,
        "output_bias": "output.bias" in p, "last_norm": any(name.split(".")[1] == "norm" for name in p),
        "shared": model.source is not None and model.target is not None and "target.embedding.weight" not in p,
    }  # fmt: skip
    return TransformerConfig(**sizes | made | options | others)


def depth(parameters: dict[str, Any], stack: str) -> int:
    """The number of layers."""
    return len({name.split(".")[1] for name in parameters if name.startswith(f"{stack}.")} - {"norm"})


def built(model: Model, dtype: torch.dtype = torch.float64, **others: Any) -> Any:
    """The model of impl/ with the same weights."""
    config = config_of(model, **others)
    kind = Transformer if model.target is None else CausalLM if model.source is None else Seq2Seq
    net = kind(config).to(dtype).eval()
    net.load_state_dict({name: torch.tensor(array) for name, array in model.parameters.items()})
    return net


def tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.tensor(array)


def masks(model: Model) -> dict[str, Tensor]:
    return {name: torch.tensor(mask) for name, mask in model.masks.items()}


def logits(net: Any, model: Model) -> Tensor:
    return net(tensor(model.source), tensor(model.target), **masks(model))


def started(net: Any, model: Model, **options: Any) -> Any:
    """A state without a past."""
    if model.source is None:
        return net.start(len(model.target), **options)
    real = masks(model).get("source_mask")
    return net.start(net.encode(tensor(model.source), real), real, **options)


def small(**options: Any) -> Any:
    """A language model in float64, or a translator if it has encoder_layers; and norms that do not swallow differences."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "encoder_layers": 0, "decoder_layers": 2, "width": 8, "heads": 4, "hidden": 12}
    config = TransformerConfig(**{**sizes, "max_length": 12, "tied": False} | options)
    return (Seq2Seq if config.encoder_layers else CausalLM)(config).double().eval()


def model_of(net: Any, **tokens: Any) -> Model:
    """The other way: the arguments of the reference for a model of impl/; tokens are source, target and masks."""
    names = ("order", "norm", "eps", "activation", "positions", "window", "softcap", "heads", "kv_heads")
    options = {name: getattr(net.config, name) for name in names}
    parameters = {name: one.numpy() for name, one in net.state_dict().items()}
    return Model(tokens.get("source"), tokens.get("target"), parameters, tokens.get("masks", {}), options, net.vocab_size)


def gradients(net: Any) -> dict[str, np.ndarray]:
    """Under the names of state_dict, which splits what is joined inside."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for mine, theirs in zip(twin.parameters(), net.parameters(), strict=True):
            mine.copy_(torch.zeros_like(theirs) if theirs.grad is None else theirs.grad)
    return {name: one.numpy() for name, one in twin.state_dict().items()}


def reference_steps(model: Model) -> tuple[Any, Any]:
    """step and state of the searches of the reference."""
    mask = model.masks.get("source_mask")
    memory = None if model.source is None else encode(model.source, model.parameters, mask, **model.options)

    def step(token: np.ndarray, cache: Any) -> Any:
        logits, cache = extend(token[:, None], cache, model.parameters, **model.options)
        return logits[:, -1], cache

    return step, empty_cache(len(model.target), memory, model.parameters, mask, **model.options)
