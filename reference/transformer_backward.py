"""The gradients of the Transformer: a cotangent of the logits goes back through everything to every parameter."""

from typing import Unpack

import numpy as np

from attnspec.reference.decoder_backward import decoder_backward
from attnspec.reference.embed_tokens import embed_tokens, embed_tokens_backward
from attnspec.reference.encoder_backward import encoder_backward
from attnspec.reference.linear import linear_backward
from attnspec.reference.parameters import Gradients, Parameters, added, part, prefixed
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray
from attnspec.reference.tied_weights import tied_gradients, tied_part
from attnspec.reference.token_position import real_tokens, token_positions
from attnspec.reference.transformer import read
from attnspec.reference.transformer_options import TransformerOptions, split_embedding_options


def transformer_backward(
    source: IntArray | None, target: IntArray | None, parameters: Parameters, cotangent: FloatArray, *,
    source_mask: BoolArray | None = None, target_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> Gradients:  # fmt: skip
    """Pulls a cotangent of the logits back to every parameter.

        dstate = cotangent W,  dW = cotangent^T state,  db = sum of cotangent over tokens     (1)
        dmemory = decode'(target, memory)·dstate, or dstate without a target,  then encode'(source)·dmemory     (2)

    Shapes:  source, target and masks as in transformer, cotangent [B,T,V] -> the gradients under the parameters' names
             and shapes.
    Units:   those of the cotangent; a weight that is used twice has the sum of the gradients of both uses.
    Empty:   a word that neither occurs nor is scored has a row of zeros.
    Errors:  those of transformer; ShapeError if cotangent has not the shape of the logits.
    Source:  the chain rule on (1), (2) of transformer; arXiv:1608.05859 sec. 3 for tied weights.
    Differs: n/a.
    """
    memory, state = read(source, target, parameters, source_mask=source_mask, target_mask=target_mask, **options)
    d, of_output = linear_backward(state, tied_part(parameters, "output", "weight"), cotangent)
    gradients = tied_gradients(parameters, "output", "weight", of_output)
    dmemory: FloatArray | None = d
    if target is not None:
        dmemory, of_target = decode_backward(target, memory, parameters, d, target_mask, source_mask, **options)
        gradients = added(gradients, of_target)
    if source is not None and dmemory is not None:
        gradients = added(gradients, encode_backward(source, parameters, dmemory, source_mask, **options))
    return gradients


def encode_backward(
    source: IntArray, parameters: Parameters, cotangent: FloatArray, mask: BoolArray | None = None,
    **options: Unpack[TransformerOptions],
) -> Gradients:  # fmt: skip
    """Pulls a cotangent of the memory back to the parameters of the source and the encoder.

        dx = encoder'(x)·cotangent,  then embed_tokens_backward(source, dx),  x = embed_tokens(source)     (1)

    Shapes:  source, mask [B,S]  cotangent [B,S,M] -> the gradients under the model's names.
    Units:   those of the cotangent times those of the other factor.
    Empty:   as in encode.
    Errors:  those of encode; ShapeError if cotangent has not the shape of the memory.
    Source:  the chain rule on (1) of encode.
    Differs: n/a.
    """
    of_embedding, of_stack = split_embedding_options(**options)
    real, p = real_tokens(mask, "source_mask", np.shape(source)), tied_part(parameters, "source", "embedding.weight")
    x = embed_tokens(source, token_positions(real), p, **of_embedding)
    dx, of_encoder = encoder_backward(x, part(parameters, "encoder"), cotangent, real, **of_stack)
    of_source = embed_tokens_backward(source, token_positions(real), p, dx, **of_embedding)
    return {**tied_gradients(parameters, "source", "embedding.weight", of_source), **prefixed("encoder", of_encoder)}


def decode_backward(
    target: IntArray, memory: FloatArray | None, parameters: Parameters, cotangent: FloatArray,
    mask: BoolArray | None = None, memory_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> tuple[FloatArray | None, Gradients]:  # fmt: skip
    """Pulls a cotangent of the state back to the memory and to the parameters of the target and the decoder.

        (dx, dmemory) = decoder'(x, memory)·cotangent,  x = embed_tokens(target)         (1)
        then embed_tokens_backward(target, dx)                                           (2)

    Shapes:  target, mask [B,T]  memory [B,S,M]  memory_mask [B,S]  cotangent [B,T,M] -> dmemory (None without a memory)
             and the gradients under the model's names.
    Units:   those of the cotangent times those of the other factor.
    Empty:   as in decode.
    Errors:  those of decode; ShapeError if cotangent has not the shape of the state.
    Source:  the chain rule on (1) of decode.
    Differs: n/a.
    """
    of_embedding, of_stack = split_embedding_options(**options)
    real, p = real_tokens(mask, "target_mask", np.shape(target)), tied_part(parameters, "target", "embedding.weight")
    x = embed_tokens(target, token_positions(real), p, **of_embedding)
    dx, dmemory, of_decoder = decoder_backward(
        x, memory, part(parameters, "decoder"), cotangent, real, memory_mask, **of_stack
    )
    of_target = embed_tokens_backward(target, token_positions(real), p, dx, **of_embedding)
    named = tied_gradients(parameters, "target", "embedding.weight", of_target)
    return dmemory, {**named, **prefixed("decoder", of_decoder)}
