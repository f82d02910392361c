"""Weights that make a model alive: every output depends on every input that it may depend on."""

from __future__ import annotations

import re
from typing import Any

from attnspec.hugging_face.offline import data


def redraw(model: Any, seed: int) -> None:
    """Draws every trainable parameter anew, in place.

        matrix       N(0, (1.4 / sqrt(inputs))^2)
        embedding    N(0, 0.5^2), its row for padding 0 if it was
        vector       + N(0, 0.2^2) on top of what the library starts from: scales stay near 1, gates at 0 wake up
        recurrence   + N(0, 0.05^2) likewise (decays, steps), whatever its shape                             (1)

    The library draws with a standard deviation of 0.02, from which logits hardly depend on attention. Frozen parameters are
    left alone: tables of sinusoids are often parameters without a gradient.

    Numbers: calls.toml, `[weights]`.
    """
    import torch

    scales = data("calls")["weights"]
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            # Drawn in float64 and rounded, so that a model of another dtype has the nearest weights.
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            owner = modules[name.rpartition(".")[0]]
            if re.search(scales["recurrent"], name):
                parameter.copy_(parameter + scales["recurrences"] * noise)
            elif isinstance(owner, torch.nn.Embedding):
                parameter.copy_(scales["embeddings"] * noise)
                if owner.padding_idx is not None:
                    parameter[owner.padding_idx] = 0
            elif parameter.ndim < 2:
                parameter.copy_(parameter + scales["vectors"] * noise)
            else:
                inputs = parameter.shape[-1]
                if isinstance(owner, torch.nn.modules.conv._ConvNd):
                    inputs = parameter[0].numel()
                elif type(owner).__name__ in scales["inputs_first"]:
                    inputs = parameter.shape[0]
                parameter.copy_(scales["matrices"] / inputs**0.5 * noise)
