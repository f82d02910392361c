"""The recurrent encoder-decoder: one network reads the source into its last state, another writes from there."""

import numpy as np

from attnspec.reference.cell import Cell, State
from attnspec.reference.embedding import embedding
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names, part
from attnspec.reference.recurrent import layer_runs, recurrent
from attnspec.reference.recurrent_layer import directions
from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank

PARTS = ("source", "encoder", "target", "decoder", "output")


def encode(
    source: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Reads a source sentence; its last state is the context vector of the whole sentence.

        states[s] = recurrent(embedding(source))[s],  context = the state after the last real word     (1)

    Shapes:  source [B,S]  lengths [B], S each unless given -> states [B,S,N], each array of the context [L,B,N].
    Units:   context is (h, c) for lstm, (h,) for the others. A bidirectional layer of N/2 units joins the last states of
             its two runs, so the decoder's layers are as wide as the encoder's outputs.
    Empty:   a sentence of length zero has a context of zero.
    Errors:  those of embedding and recurrent; ShapeError if layers of the encoder differ in their number of directions.
    Source:  arXiv:1409.3215 sec. 2; arXiv:1406.1078 sec. 2.2.
    Differs: both papers read in one direction.
    """
    check_rank("source", np.asarray(source), "BS")
    encoder = part(parameters, "encoder")
    states, final = recurrent(embedding(source, part(parameters, "source.embedding")), encoder, cell, lengths)
    runs = [directions(layer) for layer, _ in layer_runs(encoder)]
    if len(set(runs)) > 1:
        rule = "the decoder's layers start from those of the encoder and have one width"
        raise ShapeError(f"directions={runs} of the encoder's layers: {rule}; make all of one kind")
    return states, tuple(np.concatenate([array[run :: runs[0]] for run in range(runs[0])], axis=-1) for array in final)


def encoder_decoder_start(
    source: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> State:
    """Starts the decoder from the context vector, all that it will ever know of the source.

        state[0] = context of encode                                                     (1)

    Shapes:  source [B,S]  lengths [B] -> each array of the state [L,B,N].
    Units:   as in encode.
    Empty:   as in encode.
    Errors:  those of encode; ValueError if a part of the model is missing or unknown, or the decoder reads backwards.
    Source:  arXiv:1409.3215 sec. 2.
    Differs: n/a.
    """
    check_parts(parameters, PARTS)
    return encode(source, parameters, cell, lengths)[1]


def encoder_decoder_step(
    tokens: IntArray, state: State, parameters: Parameters, cell: Cell = "lstm"
) -> tuple[FloatArray, State]:
    """Writes one word: takes in the previous one, and rates every word of the vocabulary as the next.

        s[t] = recurrent(embedding(token[t]), s[t-1]),  logits[t] = W s[t] + b           (1)

    Shapes:  tokens [B]  each array of the state [L,B,N] -> logits [B,V] and the next state.
    Units:   logits are natural-log weights; the first token is the sign for the start of a sentence.
    Empty:   B may be zero.
    Errors:  those of embedding, recurrent and linear.
    Source:  arXiv:1409.3215 sec. 2.
    Differs: n/a.
    """
    check_rank("tokens", np.asarray(tokens), "B")
    x = embedding(tokens, part(parameters, "target.embedding"))
    out, state = recurrent(x[:, None, :], part(parameters, "decoder"), cell, state=state)
    return linear(out[:, 0], part(parameters, "output")), state


def encoder_decoder_logits(
    source: IntArray, inputs: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> FloatArray:
    """Rates the next word at all steps at once, as training does: the right previous words are known.

        logits[t] = W recurrent(embedding(inputs), context)[t] + b                       (1)

    Shapes:  source [B,S]  inputs [B,T], which start with the sign for the start  lengths [B] -> [B,T,V].
    Units:   logits are natural-log weights; those of step t know inputs 0..t and no later one.
    Empty:   T = 0 gives no logits.
    Errors:  those of encoder_decoder_start and encoder_decoder_step.
    Source:  arXiv:1409.3215 sec. 2; doi:10.1162/neco.1989.1.2.270 for teacher forcing.
    Differs: n/a.
    """
    check_rank("inputs", np.asarray(inputs), "BT")
    state = encoder_decoder_start(source, parameters, cell, lengths)
    x = embedding(inputs, part(parameters, "target.embedding"))
    out, _ = recurrent(x, part(parameters, "decoder"), cell, state=state)
    return linear(out, part(parameters, "output"))


def check_parts(parameters: Parameters, parts: tuple[str, ...]) -> None:
    """Refuses a model that lacks a part, has one that nobody reads, or has a decoder that would see the future.

        {first word of each name} = parts                                                (1)

    Shapes:  any.
    Units:   n/a.
    Empty:   a part has at least one parameter.
    Errors:  ValueError that lists what is missing and unknown; ValueError if a name of the decoder has reverse in it.
    Source:  load_state_dict(strict=True) of torch.
    Differs: n/a.
    """
    check_names({name.partition(".")[0]: array for name, array in parameters.items()}, parts)
    backwards = [name for name in parameters if name.startswith("decoder.") and ".reverse." in name]
    if backwards:
        raise ValueError(f"parameters have {backwards[0]!r}: a decoder reads from left to right only; leave reverse out")
