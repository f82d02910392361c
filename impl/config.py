"""The configuration of a Transformer: its sizes, and which variant of each part it has."""

import dataclasses
import math
from dataclasses import dataclass

from attnspec.impl.errors import require

CHOICES = {
    "order": ("post", "pre"),
    "norm": ("layer", "rms"),
    "activation": ("relu", "gelu", "gelu_tanh", "silu"),
    "positions": ("sinusoidal", "learned", "rotary", "alibi", None),
    "rotary_pairs": ("half", "interleaved"),
}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and options; the defaults are those of the first paper, and of its base model.

        H = heads, G = kv_heads, D = head_width, F = hidden, V = vocab_size, L = encoder_layers, decoder_layers     (1)

    Shapes:  see docs/notation.md for the parameters that a configuration gives.
    Units:   max_length counts real tokens of a sequence; window counts them too, the current one included; dropout is
             the share of entries that training sets to zero, after the embeddings and after each sub-layer, attention_dropout
             that of attention weights, activation_dropout that of the hidden entries of feed-forward layers.
    Empty:   no encoder_layers: no encoder, so a language model; no decoder_layers: an encoder alone. None stands for
             kv_heads = heads, head_width = width / heads, source_vocab_size = vocab_size, rotary_width = head_width,
             scale = 1/sqrt(D), last_norm = (order is "pre"), positions: none.
    Errors:  ValueError if a value breaks its rule, or two do not fit.
    Source:  arXiv:1706.03762 sec. 3 and table 3; the options as in reference/transformer_options.py.
    Differs: the paper ties all three embeddings (tied and shared); it has no max_length.
    """

    vocab_size: int
    encoder_layers: int = 6
    decoder_layers: int = 6
    width: int = 512
    heads: int = 8
    kv_heads: int | None = None
    head_width: int | None = None
    hidden: int = 2048
    max_length: int = 1024
    source_vocab_size: int | None = None
    order: str = "post"
    norm: str = "layer"
    eps: float = 1e-5
    last_norm: bool | None = None
    activation: str = "relu"
    gated: bool = False
    bias: bool = True
    positions: str | None = "sinusoidal"
    rotary_base: float = 10000.0
    rotary_pairs: str = "half"
    rotary_width: int | None = None
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    scale_embeddings: bool = True
    embedding_norm: bool = False
    shared: bool = False
    tied: bool = True
    output_bias: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    @property
    def groups(self) -> int:
        """Key/value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def channels(self) -> int:
        """Width of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def ends_in_norm(self) -> bool:
        """Whether a stack has a norm after its last layer."""
        return self.order == "pre" if self.last_norm is None else self.last_norm

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"it is one of {', '.join(map(str, choices))}; choose one", **{name: value})
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, int | None) and value is not None:
                least = 0 if field.name.endswith("layers") else 1
                whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
                require(whole, f"it is a whole number; use {least} or more", **{field.name: value})
        self._check_heads()
        self._check_numbers()
        layers = {"encoder_layers": self.encoder_layers, "decoder_layers": self.decoder_layers}
        require(sum(layers.values()) > 0, "a model has an encoder, a decoder or both; give one of them layers", **layers)
        if self.shared:
            rule = "sharing takes an encoder, a decoder and one vocabulary; use shared=False"
            fits = min(layers.values()) > 0 and self.source_vocab_size in (None, self.vocab_size)
            got = {"vocab_size": self.vocab_size, "source_vocab_size": self.source_vocab_size}
            require(fits, rule, shared=self.shared, **layers, **got)

    def _check_heads(self) -> None:
        got = {"width": self.width, "heads": self.heads, "head_width": self.head_width}
        fits = self.head_width is not None or self.width % self.heads == 0
        require(fits, "heads divide the width; choose a divisor, or give head_width", **got)
        rule = "key/value heads divide the heads; choose a divisor of heads"
        require(self.heads % self.groups == 0, rule, heads=self.heads, kv_heads=self.groups)
        if self.positions == "sinusoidal":
            rule = "sines and cosines come in pairs; use an even width or other positions"
            require(self.width % 2 == 0, rule, width=self.width, positions=self.positions)
        if self.positions == "rotary":
            turned = self.channels if self.rotary_width is None else self.rotary_width
            rule = "channels turn in pairs, so their number is even and at most D; choose such a rotary_width"
            require(turned % 2 == 0 and turned <= self.channels, rule, rotary_width=turned, D=self.channels)

    def _check_numbers(self) -> None:
        require(0 <= self.eps < math.inf, "it is added to a variance; use 1e-5", eps=self.eps)
        require(0 < self.rotary_base < math.inf, "frequencies are its powers; use 10000.0", rotary_base=self.rotary_base)
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            share = getattr(self, name)
            require(0 <= share < 1, "it is a share of entries below one; use 0.1, or 0.0 for none", **{name: share})
        require(self.scale is None or math.isfinite(self.scale), "it is finite; use None for 1/sqrt(D)", scale=self.scale)
        capped = self.softcap is None or 0 < self.softcap < math.inf
        require(capped, "a cap is positive and finite; use None for none", softcap=self.softcap)
