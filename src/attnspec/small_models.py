"""Small models of this project with weights from a fixed seed, one for each way of building them: targets of audits."""

from __future__ import annotations

from typing import Any

# By what they vary; each has two layers.
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
