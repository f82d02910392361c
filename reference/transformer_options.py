"""The options of a Transformer: which variant of each of its parts it has, as keyword arguments that are passed through."""

from typing import TypedDict, Unpack

from attnspec.reference.residual import Norm, NormOptions, Order
from attnspec.reference.rotary_position import Pairs
from attnspec.reference.token_position import HeadOptions, Positions


class LayerOptions(NormOptions, total=False):
    """The keyword arguments of a layer, beside those of its attention."""

    activation: str


class SelfAttentionOptions(HeadOptions, total=False):
    """The keyword arguments of `self_attention_options`."""

    positions: Positions | None
    rotary_base: float
    rotary_pairs: Pairs
    rotary_width: int | None
    window: int | None


class StackOptions(LayerOptions, SelfAttentionOptions, total=False):
    """The keyword arguments of `encoder` and `decoder`."""


class EmbeddingOptions(TypedDict):
    """The keyword arguments of `embed_tokens`."""

    scale_embeddings: bool
    positions: Positions | None
    norm: Norm
    eps: float


class TransformerOptions(StackOptions, total=False):
    """The keyword arguments of `transformer`."""

    scale_embeddings: bool


def split_options(
    *, order: Order = "post", norm: Norm = "layer", eps: float = 1e-5, activation: str = "relu",
    **attention: Unpack[SelfAttentionOptions],
) -> tuple[LayerOptions, SelfAttentionOptions]:  # fmt: skip
    """Separates the options of a layer from those of its attention, with the defaults of the first paper.

        options = layer ∪ attention                                                      (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   an option that is not given has its default: order="post", norm="layer", eps=1e-5, activation="relu".
    Errors:  TypeError if heads is missing.
    Source:  arXiv:1706.03762 sec. 3.1 and 3.3.
    Differs: the paper does not say its eps; 1e-5 is that of torch.nn.LayerNorm.
    """
    return {"order": order, "norm": norm, "eps": eps, "activation": activation}, attention


def split_embedding_options(
    *, scale_embeddings: bool = True, **stack: Unpack[StackOptions]
) -> tuple[EmbeddingOptions, StackOptions]:
    """Separates the options of the embeddings from those of the encoder and the decoder, which share some.

        options = embedding ∪ stack                                                      (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   an option that is not given has its default: scale_embeddings=True, positions="sinusoidal".
    Errors:  none.
    Source:  arXiv:1706.03762 sec. 3.4 and 3.5.
    Differs: n/a.
    """
    norm, eps = stack.get("norm", "layer"), stack.get("eps", 1e-5)
    positions = stack.get("positions", "sinusoidal")
    return {"scale_embeddings": scale_embeddings, "positions": positions, "norm": norm, "eps": eps}, stack
