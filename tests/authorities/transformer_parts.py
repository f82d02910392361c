"""The parts between the attentions of a Transformer, as torch computes them: norms, activations, feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch
from hypothesis import strategies as st
from torch.nn import functional

from attnspec.reference.activation import erf, gelu, gelu_tanh, relu, silu
from attnspec.reference.activation_backward import activate_backward
from attnspec.reference.feed_forward import feed_forward
from attnspec.reference.feed_forward_backward import feed_forward_backward
from attnspec.reference.layer_norm import layer_norm, layer_norm_backward
from attnspec.reference.rms_norm import rms_norm, rms_norm_backward
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)

IN_TORCH: dict[str, Callable[[Any], Any]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
IN_REFERENCE = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu}


def generator(draw: Draw) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def leaf(array: Any) -> Any:
    return torch.tensor(array, requires_grad=True)


def loaded(module: torch.nn.Module, parameters: dict[str, Any]) -> dict[str, Any]:
    """Gives a module these parameters, and returns its own, which collect gradients."""
    module.load_state_dict({name: torch.tensor(array) for name, array in parameters.items()})
    return dict(module.named_parameters())


def gradients(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.grad.numpy() for name, tensor in tensors.items()}


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Channels of order one that are never all alike: where they are, any norm loses all digits."""
    return rng.permuted(rng.normal(size=shape) / 4 + np.linspace(-1, 1, shape[-1]), axis=-1)


def norm_example(draw: Draw) -> tuple[Any, dict[str, Any], Any, float]:
    """x [B,T,M], weight and bias, a cotangent, and eps."""
    B, T, M = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    rng, eps = generator(draw), draw(st.sampled_from([1e-12, 1e-6, 1e-5, 0.1]))
    parameters = {"weight": rng.normal(size=M), "bias": rng.normal(size=M)}
    return spread(rng, (B, T, M)), parameters, rng.normal(size=(B, T, M)), eps


@authority("I28", "torch.nn.LayerNorm", of=(layer_norm, layer_norm_backward))
def torch_layer_norm(draw: Draw) -> None:
    """With and without bias, several eps: outputs, and the gradients of autograd."""
    x, parameters, do, eps = norm_example(draw)
    biased = draw(st.booleans())
    if not biased:
        del parameters["bias"]
    module = torch.nn.LayerNorm(x.shape[-1], eps=eps, bias=biased, dtype=torch.float64)
    tensors, input_ = loaded(module, parameters), leaf(x)
    out = module(input_)
    agrees(out.detach().numpy(), layer_norm, x, parameters, eps=eps)
    out.backward(torch.tensor(do))
    agrees((input_.grad.numpy(), gradients(tensors)), layer_norm_backward, x, parameters, do, eps=eps)


@authority("I28", "torch.nn.RMSNorm", of=(rms_norm, rms_norm_backward))
def torch_rms_norm(draw: Draw) -> None:
    """Several eps: outputs, and the gradients of autograd."""
    x, parameters, do, eps = norm_example(draw)
    del parameters["bias"]
    module = torch.nn.RMSNorm(x.shape[-1], eps=eps, dtype=torch.float64)
    tensors, input_ = loaded(module, parameters), leaf(x)
    out = module(input_)
    agrees(out.detach().numpy(), rms_norm, x, parameters, eps=eps)
    out.backward(torch.tensor(do))
    agrees((input_.grad.numpy(), gradients(tensors)), rms_norm_backward, x, parameters, do, eps=eps)


@authority("I28", "torch.nn.LayerNorm in float32", of=(layer_norm,))
def torch_layer_norm_in_float32(draw: Draw) -> None:
    """Outputs of the single-precision kernel, within what single precision allows."""
    x, parameters, _, eps = norm_example(draw)
    x, parameters = x.astype(np.float32), {name: array.astype(np.float32) for name, array in parameters.items()}
    module = torch.nn.LayerNorm(x.shape[-1], eps=eps)
    loaded(module, parameters)
    agrees(module(torch.tensor(x)).detach().numpy(), layer_norm, x, parameters, eps=eps, unit="float32")


@authority("I28", "scipy.special.erf", of=(erf,), examples=50)
def scipy_erf(draw: Draw) -> None:
    """The error function, which NumPy lacks, from 1e-12 to far out."""
    x = generator(draw).normal(size=7) * 10.0 ** draw(st.integers(-12, 2))
    agrees(scipy.special.erf(x), erf, x)


@authority("I28", "torch.nn.functional.relu, gelu (both forms), silu", of=(relu, gelu, gelu_tanh, silu, activate_backward))
def torch_activations(draw: Draw) -> None:
    """Each activation, and its slope by autograd."""
    name, rng = draw(st.sampled_from(sorted(IN_TORCH))), generator(draw)
    x, do = rng.normal(size=(3, 4)) * draw(st.sampled_from([0.1, 1.0, 4.0])), rng.normal(size=(3, 4))
    input_ = leaf(x)
    out = IN_TORCH[name](input_)
    agrees(out.detach().numpy(), IN_REFERENCE[name], x)
    out.backward(torch.tensor(do))
    agrees(input_.grad.numpy(), activate_backward, x, do, name)


def feed_forward_example(draw: Draw, gated: bool) -> tuple[Any, dict[str, Any], Any]:
    """x [B,T,M], parameters with or without biases, and a cotangent."""
    B, T, M, F = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 5)), draw(st.integers(2, 6))
    rng, biased = generator(draw), draw(st.booleans())
    sizes = {"up": (F, M), **({"gate": (F, M)} if gated else {}), "down": (M, F)}
    parameters = {f"{name}.weight": rng.normal(size=size) / np.sqrt(size[1]) for name, size in sizes.items()}
    if biased:
        parameters |= {f"{name}.bias": rng.normal(size=size[0]) for name, size in sizes.items()}
    return rng.normal(size=(B, T, M)), parameters, rng.normal(size=(B, T, M))


@authority("I28", "torch.nn.Linear around torch's activations", of=(feed_forward, feed_forward_backward))
def torch_feed_forward(draw: Draw) -> None:
    """Plain layers with each activation, with and without biases: outputs, and the gradients of autograd."""
    check_feed_forward(draw, gated=False, activation=draw(st.sampled_from(sorted(IN_TORCH))))


@authority("I28", "torch.nn.Linear around torch's activations", of=(feed_forward, feed_forward_backward))
def torch_gated_feed_forward(draw: Draw) -> None:
    """ReGLU, GEGLU in both forms, SwiGLU, with and without biases: outputs, and the gradients of autograd."""
    check_feed_forward(draw, gated=True, activation=draw(st.sampled_from(sorted(IN_TORCH))))


def check_feed_forward(draw: Draw, gated: bool, activation: str) -> None:
    x, parameters, do = feed_forward_example(draw, gated)
    (F, M), biased = parameters["up.weight"].shape, "up.bias" in parameters
    sizes = {"up": (M, F), **({"gate": (M, F)} if gated else {}), "down": (F, M)}
    maps = torch.nn.ModuleDict(
        {name: torch.nn.Linear(*size, bias=biased, dtype=torch.float64) for name, size in sizes.items()}
    )
    tensors, input_ = loaded(maps, parameters), leaf(x)
    hidden = maps["up"](input_)
    hidden = IN_TORCH[activation](maps["gate"](input_)) * hidden if gated else IN_TORCH[activation](hidden)
    out = maps["down"](hidden)
    agrees(out.detach().numpy(), feed_forward, x, parameters, activation)
    out.backward(torch.tensor(do))
    agrees((input_.grad.numpy(), gradients(tensors)), feed_forward_backward, x, parameters, do, activation)


@authority("I28", "transformers.models.llama.modeling_llama.LlamaMLP", of=(feed_forward,))
def llama_feed_forward(draw: Draw) -> None:
    """The gated layer of Llama, SwiGLU: which matrix is the gate."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    x, parameters, _ = feed_forward_example(draw, gated=True)
    F, M = parameters["up.weight"].shape
    sizes = {"hidden_size": M, "intermediate_size": F, "num_attention_heads": 1, "head_dim": 2}
    config = LlamaConfig(**sizes, mlp_bias="up.bias" in parameters, hidden_act="silu")
    module = LlamaMLP(config).double()
    loaded(module, {name.replace(".", "_proj."): array for name, array in parameters.items()})
    agrees(module(torch.tensor(x)).detach().numpy(), feed_forward, x, parameters, "silu")
