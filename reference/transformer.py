"""The Transformer: embeddings, positions, encoder, decoder and output; without a source or a target, one half of it."""

from typing import Unpack

import numpy as np

from attnspec.reference.decoder import decoder
from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.encoder import encoder
from attnspec.reference.layers import check_parts
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, check_rank
from attnspec.reference.tied_weights import tied_part
from attnspec.reference.token_position import real_tokens, token_positions
from attnspec.reference.transformer_options import TransformerOptions, split_embedding_options

SOURCE, TARGET = ("source", "encoder"), ("target", "decoder")


def transformer(
    source: IntArray | None, target: IntArray | None, parameters: Parameters, *,
    source_mask: BoolArray | None = None, target_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> FloatArray:  # fmt: skip
    """Scores each word of the vocabulary as the one that follows each token of the target.

        logits = decode(target, encode(source)) W^T + b                                  (1)
        logits = decode(target) W^T + b without a source, encode(source) W^T + b without a target     (2)

    Shapes:  source, source_mask [B,S]  target, target_mask [B,T]  W = output.weight [V,M]  b = output.bias [V]
             -> [B,T,V], or [B,S,V] without a target. W may be tied (tied_name), b may be absent.
    Units:   natural-log weights, not normalised; masks are True at real tokens. Logits at t read the target up to t.
    Empty:   B, S and T may be zero; what comes out at padding means nothing.
    Errors:  ValueError if source and target are None, or if a part is unknown; those of encode, decode and score_words.
    Source:  arXiv:1706.03762 sec. 3; without a source arXiv:1801.10198 sec. 4.2.3, without a target arXiv:1810.04805 sec. 3.
    Differs: the first paper has probabilities: the softmax of the logits.
    """
    _, state = read(source, target, parameters, source_mask=source_mask, target_mask=target_mask, **options)
    return score_words(state, parameters)


def read(
    source: IntArray | None, target: IntArray | None, parameters: Parameters, *,
    source_mask: BoolArray | None = None, target_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> tuple[FloatArray | None, FloatArray]:  # fmt: skip
    """Reads a source, and a target in view of it.

        memory = encode(source),  state = decode(target, memory), or memory without a target     (1)

    Shapes:  as in transformer -> memory [B,S,M], None without a source, and state [B,T,M] or [B,S,M].
    Units:   as in transformer.
    Empty:   as in transformer.
    Errors:  those of transformer.
    Source:  arXiv:1706.03762 sec. 3.
    Differs: n/a.
    """
    memory = None if source is None else encode(source, parameters, source_mask, **options)
    state = memory if target is None else decode(target, memory, parameters, target_mask, source_mask, **options)
    if state is None:
        raise ValueError("source=None, target=None: a model reads a source, a target or both; pass one")
    check_parts(parameters, (), ("output", *SOURCE * (source is not None), *TARGET * (target is not None)))
    return memory, state


def encode(
    source: IntArray, parameters: Parameters, mask: BoolArray | None = None, **options: Unpack[TransformerOptions]
) -> FloatArray:
    """Reads a source.

        memory = encoder(embed_tokens(source))                                           (1)

    Shapes:  source, mask [B,S] -> [B,S,M].
    Units:   mask is True at real tokens, whose positions count from 0: padding may stand on either side.
    Empty:   B and S may be zero.
    Errors:  those of embed_tokens, real_tokens and encoder.
    Source:  arXiv:1706.03762 sec. 3.1.
    Differs: as in encoder.
    """
    check_rank("source", np.asarray(source), "BS")
    real = real_tokens(mask, "source_mask", np.shape(source))
    of_embedding, of_stack = split_embedding_options(**options)
    x = embed_tokens(source, token_positions(real), tied_part(parameters, "source", "embedding.weight"), **of_embedding)
    return encoder(x, part(parameters, "encoder"), real, **of_stack)


def decode(
    target: IntArray, memory: FloatArray | None, parameters: Parameters, mask: BoolArray | None = None,
    memory_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> FloatArray:  # fmt: skip
    """Reads a target so far, and the memory of a source if there is one.

        state = decoder(embed_tokens(target), memory)                                    (1)

    Shapes:  target, mask [B,T]  memory [B,S,M]  memory_mask [B,S] -> [B,T,M].
    Units:   as in encode.
    Empty:   B, S and T may be zero.
    Errors:  those of embed_tokens, real_tokens and decoder.
    Source:  arXiv:1706.03762 sec. 3.1.
    Differs: as in decoder.
    """
    check_rank("target", np.asarray(target), "BT")
    real = real_tokens(mask, "target_mask", np.shape(target))
    of_embedding, of_stack = split_embedding_options(**options)
    x = embed_tokens(target, token_positions(real), tied_part(parameters, "target", "embedding.weight"), **of_embedding)
    return decoder(x, memory, part(parameters, "decoder"), real, memory_mask, **of_stack)


def score_words(state: FloatArray, parameters: Parameters) -> FloatArray:
    """Scores each word of the vocabulary by what the last layer says.

        logits[b, t, v] = state[b, t]·W[v] + b[v]                                        (1)

    Shapes:  state [B,T,M]  W = output.weight [V,M], or the embedding that it is tied to  b = output.bias [V] -> [B,T,V].
    Units:   natural-log weights, not normalised.
    Empty:   without output.bias b is zero.
    Errors:  those of linear.
    Source:  arXiv:1706.03762 sec. 3.4; arXiv:1608.05859 for tied weights.
    Differs: n/a.
    """
    return linear(state, tied_part(parameters, "output", "weight"))
