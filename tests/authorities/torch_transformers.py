"""torch's Transformers with drawn weights, and their parameters and gradients under the names of the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from tests.authorities.agreement import Draw

torch.set_num_threads(1)
Take = Callable[[torch.nn.Parameter], torch.Tensor]


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(x, requires_grad=np.asarray(x).dtype == np.float64)


def value(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach()


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def arrays(named: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: one.numpy().copy() for name, one in named.items()}


def under(prefix: str, named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": one for name, one in named.items()}


def plain(module: torch.nn.Module, take: Take) -> dict[str, torch.Tensor]:
    """A layer whose names are the reference's: Linear, LayerNorm, Embedding."""
    return {name: take(parameter) for name, parameter in module.named_parameters()}


def heads(module: torch.nn.MultiheadAttention, take: Take) -> dict[str, torch.Tensor]:
    if module.in_proj_weight is None:
        weights = [take(module.q_proj_weight), take(module.k_proj_weight), take(module.v_proj_weight)]
    else:
        weights = list(take(module.in_proj_weight).chunk(3))
    out = {f"{name}.weight": one for name, one in zip("qkv", weights, strict=True)}
    if module.in_proj_bias is not None:
        out |= {f"{name}.bias": one for name, one in zip("qkv", take(module.in_proj_bias).chunk(3), strict=True)}
    return out | under("o", plain(module.out_proj, take))


def layer(module: Any, take: Take) -> dict[str, torch.Tensor]:
    """TransformerEncoderLayer or TransformerDecoderLayer."""
    crosses = hasattr(module, "multihead_attn")
    out = under("attention", heads(module.self_attn, take)) | under("attention_norm", plain(module.norm1, take))
    if crosses:
        out |= under("cross", heads(module.multihead_attn, take)) | under("cross_norm", plain(module.norm2, take))
    out |= under("feed_forward_norm", plain(module.norm3 if crosses else module.norm2, take))
    return (
        out | under("feed_forward.up", plain(module.linear1, take)) | under("feed_forward.down", plain(module.linear2, take))
    )


def stack(module: Any, take: Take) -> dict[str, torch.Tensor]:
    """TransformerEncoder or TransformerDecoder."""
    out = {} if module.norm is None else under("norm", plain(module.norm, take))
    for i, one in enumerate(module.layers):
        out |= under(str(i), layer(one, take))
    return out


def randomised(module: Any, rng: np.random.Generator) -> Any:
    """The module with weights of order 1 / sqrt(4 width), which keep the bounds of deep models sharp.

    torch starts biases at zero, which would hide a wrong one.
    """
    for name, parameter in module.named_parameters():
        size = tuple(parameter.shape)
        drawn = rng.normal(size=size) / np.sqrt(4 * size[1]) if len(size) == 2 else 0.3 * rng.normal(size=size)
        scale = len(size) == 1 and name.endswith("weight")  # of a norm
        with torch.no_grad():
            parameter.copy_(torch.tensor(drawn + scale))
    return module.eval()


def sizes(draw: Draw) -> tuple[int, int, int, int, int, np.random.Generator]:
    """B, T, S, M, F, all different but M = 4, which two heads share; and the source of numbers."""
    T, S, F = draw(st.permutations([2, 3, 5]))[:3]
    return draw(st.integers(1, 2)), T, S, 4, F, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def layer_options(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a layer in the words of torch and of the reference."""
    # A small eps lets a norm of channels that are nearly alike multiply errors by thousands, several times over; the norms'
    # own authorities have small ones.
    before, heads = draw(st.booleans()), draw(st.sampled_from([1, 2]))
    activation, eps = draw(st.sampled_from(["relu", "gelu"])), draw(st.sampled_from([0.1, 0.3]))
    theirs = {"nhead": heads, "dropout": 0.0, "activation": activation, "layer_norm_eps": eps, "norm_first": before}
    ours = {"heads": heads, "activation": activation, "eps": eps, "order": "pre" if before else "post"}
    return theirs | {"batch_first": True, "dtype": torch.float64}, ours


def real_tokens(draw: Draw, rng: np.random.Generator, B: int, T: int) -> np.ndarray:
    """Padding on either side; the reference has no rule for torch's rows without any token, so each has one."""
    lengths = rng.integers(1, T + 1, size=B)[:, None]
    right = np.arange(T) < lengths
    return right[:, ::-1].copy() if draw(st.booleans()) else right


def causal(T: int) -> torch.Tensor:
    """torch's polarity: True hides."""
    return torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)


def projections(result: Any, like: Any) -> list[Any]:
    """The inner product of each array of a result with a fixed direction, given the shapes of all in `like`."""
    if isinstance(like, dict):
        return [one for name in sorted(like) for one in projections(result[name], like[name])]
    if isinstance(like, (tuple, list)):
        return [one for i, part in enumerate(like) for one in projections(result[i], part)]
    return [np.sum(result * np.cos(1 + np.arange(np.size(like)).reshape(np.shape(like))))]


def projected(got: Any, function: Callable[..., Any]) -> tuple[Any, Callable[..., Any]]:
    """One number for all gradients of a deep model, on both sides: the sharp bound of thousands would take minutes."""

    def projection(*args: Any, **options: Any) -> Any:
        return sum(projections(function(*args, **options), got))

    return np.asarray(sum(projections(got, got))), projection
