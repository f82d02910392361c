"""torch and transformers on the loss, the optimizers and the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from hypothesis import strategies as st

from attnspec.reference.adam import adam, adamw
from attnspec.reference.cross_entropy import cross_entropy, cross_entropy_backward, perplexity, token_losses
from attnspec.reference.sgd import sgd
from attnspec.reference.warmup import warmup
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)
STEPS = 4
SHAPES = {"a": (3,), "b": (2, 4)}


@authority("I07", "torch.nn.CrossEntropyLoss", of=(token_losses, cross_entropy, cross_entropy_backward, perplexity))
def torch_cross_entropy(draw: Draw) -> None:
    """Loss per token, mean and gradient, with ignore_index inside and outside the vocabulary and label smoothing."""
    B, T, V = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    padding_id = draw(st.sampled_from([None, -100, 0, V]))
    smoothing = draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits, targets = rng.normal(size=(B, T, V)), rng.integers(0, V, (B, T))
    if padding_id is not None:
        targets = np.where(rng.random((B, T)) < 0.4, padding_id, targets)
        targets[0, 0] = V - 1  # one real token at least, or torch gives NaN
        padding_id = None if padding_id == V - 1 else padding_id
    options: dict[str, Any] = {"ignore_index": -100 if padding_id is None else padding_id, "label_smoothing": smoothing}
    x, y = torch.tensor(logits).movedim(-1, 1).requires_grad_(), torch.tensor(targets)  # torch has classes second
    loss = torch.nn.CrossEntropyLoss(**options)(x, y)
    loss.backward()
    assert x.grad is not None
    args = (logits, targets, padding_id, smoothing)
    agrees(torch.nn.CrossEntropyLoss(reduction="none", **options)(x, y).detach().numpy(), token_losses, *args)
    agrees(loss.detach().numpy(), cross_entropy, *args)
    agrees(x.grad.movedim(1, -1).numpy(), cross_entropy_backward, *args)
    options["label_smoothing"] = 0.0
    agrees(torch.nn.CrossEntropyLoss(**options)(x, y).exp().detach().numpy(), perplexity, *args[:3])


def drawn_training(draw: Draw) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parameters, and gradients of some steps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = [{name: rng.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(1 + STEPS)]
    return drawn[0], drawn[1:]


def trained(optimizer: Any, parameters: dict[str, Any], gradients: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The parameters after all steps of a torch optimizer, fed with the gradients."""
    tensors = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in parameters.items()}
    steps = optimizer(tensors.values(), **options)
    for gradient in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradient[name])
        steps.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@authority("I08", "torch.optim.SGD", of=(sgd,))
def torch_sgd(draw: Draw) -> None:
    """Four steps with momentum, Nesterov's momentum and weight decay."""
    parameters, gradients = drawn_training(draw)
    momentum = draw(st.sampled_from([0.0, 0.9, 0.5]))
    nesterov = draw(st.booleans()) and momentum > 0
    rate, decay = draw(st.sampled_from([0.1, 1.0, 1e-3])), draw(st.sampled_from([0.0, 0.1]))
    options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}

    def steps(w: Any, gradients: Any) -> Any:
        u: Any = {}
        for g in gradients:
            w, u = sgd(w, g, u, rate=rate, **options)
        return w

    agrees(trained(torch.optim.SGD, parameters, gradients, lr=rate, **options), steps, parameters, gradients)


def torch_moments(draw: Draw, optimizer: Any, step: Any) -> None:
    parameters, gradients = drawn_training(draw)
    beta1, beta2 = draw(st.sampled_from([0.9, 0.0, 0.5])), draw(st.sampled_from([0.999, 0.98, 0.9]))
    rate, decay = draw(st.sampled_from([0.1, 1e-3])), draw(st.sampled_from([0.0, 0.01, 0.5]))
    eps = draw(st.sampled_from([1e-8, 1e-9, 0.1]))

    def steps(w: Any, gradients: Any) -> Any:
        m: Any = {}
        v: Any = {}
        for n, g in enumerate(gradients, start=1):
            w, m, v = step(w, g, m, v, n, rate=rate, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
        return w

    options = {"lr": rate, "betas": (beta1, beta2), "eps": eps, "weight_decay": decay}
    agrees(trained(optimizer, parameters, gradients, **options), steps, parameters, gradients)


@authority("I08", "torch.optim.Adam", of=(adam,))
def torch_adam(draw: Draw) -> None:
    """Four steps with all of betas, eps and L2 weight decay."""
    torch_moments(draw, torch.optim.Adam, adam)


@authority("I08", "torch.optim.AdamW", of=(adamw,))
def torch_adamw(draw: Draw) -> None:
    """Four steps with all of betas, eps and decoupled weight decay."""
    torch_moments(draw, torch.optim.AdamW, adamw)


@authority("I08", "transformers.get_inverse_sqrt_schedule (torch LambdaLR)", of=(warmup,))
def transformers_inverse_sqrt(draw: Draw) -> None:
    """The rates of the first 20 steps, before and after the peak, from a schedule whose peak is (M warmup_steps)^-0.5."""
    M, warmup_steps = draw(st.integers(1, 1024)), draw(st.integers(1, 25))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=(M * warmup_steps) ** -0.5)
    schedule = transformers.get_inverse_sqrt_schedule(optimizer, warmup_steps)
    rates = []
    for _ in range(20):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    agrees(np.array(rates), warmup, np.arange(1, 21), M, warmup_steps)
