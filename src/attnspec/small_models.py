"""Small models of this project with weights from a fixed seed, one for each way of building them: targets of audits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

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
RECURRENT: dict[str, dict[str, Any]] = {
    "seq2seq-lstm": {"cell": "lstm", "attention": "none", "layers": 2, "reverse_source": True},
    "seq2seq-additive": {"cell": "gru", "attention": "additive", "bidirectional": True},
    "seq2seq-luong": {"cell": "lstm", "attention": "general", "layers": 2, "input_feeding": True},
}
TINY: dict[str, Any] = {
    "vocab_size": 29,
    "encoder_layers": 0,
    "decoder_layers": 2,
    "width": 24,
    "heads": 4,
    "hidden": 40,
    "max_length": 40,
}
NAMES = (*MODELS, *RECURRENT)


def model(name: str) -> Any:
    """One of NAMES in float64, weights drawn so that every token matters; the global random state is left as it is."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        made = _recurrent(RECURRENT[name]) if name in RECURRENT else _transformer(MODELS[name])
        made = made.double().eval()
        for weight in made.parameters():
            std = 0.2 if weight.ndim == 1 else 1.4 * weight.shape[-1] ** -0.5
            weight.data.add_(std * torch.randn_like(weight)) if weight.ndim == 1 else weight.data.normal_(std=std)
    return made


def _transformer(options: Mapping[str, Any]) -> nn.Module:
    """A Transformer that says what else it offers: its loss, the weights of its attention, gradients in less memory."""
    from attnspec import torch_models
    from attnspec.impl.config import TransformerConfig
    from attnspec.impl.layers import Stack, recorded_weights
    from attnspec.impl.loss import cross_entropy
    from attnspec.impl.transformer import CausalLM, Seq2Seq

    config = TransformerConfig(**TINY | dict(options))
    base: type[Any] = Seq2Seq if config.encoder_layers else CausalLM

    class Offering(base):  # type: ignore[misc]
        def loss(self, *given: Tensor | None) -> Tensor:
            """(source,) ids, masks -> the mean of -log p over real words but the first."""
            ids, mask = _last_ids(given, sources=base is Seq2Seq)
            scored = None if mask is None else (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
            total, count = cross_entropy(self.logits(*given)[:, :-1], ids[:, 1:], scored)
            return total / count

        def attentions(self, *given: Tensor | None) -> list[Tensor]:
            """The weights of self-attention of each layer of the decoder."""
            with recorded_weights(self) as weights:
                self.logits(*given)
            own = (found for name, found in weights.items() if name.startswith("decoder") and not name.endswith("cross"))
            return [each[0] for each in own]

        def gradients(self, *given: Any) -> dict[str, Tensor]:
            """The gradients of summed -log p; True behind the ids computes each layer again in the backward pass."""
            recompute, given = (True, given[:-1]) if given[-1] is True else (False, given)
            stacks = [m for m in self.modules() if isinstance(m, Stack)]
            try:
                for stack in stacks:
                    stack.recompute = recompute
                return torch_models.gradients(self, *given)
            finally:
                for stack in stacks:
                    stack.recompute = False

    return Offering(config)


def _last_ids(given: tuple[Any, ...], *, sources: bool) -> tuple[Tensor, Tensor | None]:
    """The ids that are read on, and their mask."""
    whole = (*given, None, None)
    return (whole[1], whole[3] if len(given) > 3 else None) if sources else (whole[0], whole[1])


def _recurrent(options: Mapping[str, Any]) -> nn.Module:
    from attnspec.impl.recurrent_translator import RecurrentTranslator

    class Sized(RecurrentTranslator):
        vocab_size = TINY["vocab_size"]

    return Sized(V=Sized.vocab_size, M=12, N=16, **options)
