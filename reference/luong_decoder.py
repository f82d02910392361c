"""Luong's decoder: it takes the next step, looks at the source with its new state, and joins what it found."""

import numpy as np

from attnspec.reference.cell import Cell, State
from attnspec.reference.context_vector import state_mask
from attnspec.reference.embedding import embedding
from attnspec.reference.encoder_decoder import PARTS, check_parts, encode
from attnspec.reference.linear import linear
from attnspec.reference.luong_attention import Score, attentional_states, luong_attention
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.recurrent import initial_state, recurrent
from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank


def luong_start(
    source: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Reads the source, keeps every state of the encoder, and starts the decoder from the last one.

        states = h[0], ..., h[S-1],  s[-1] = context,  both of encode,  s~[-1] = 0       (1)

    Shapes:  source [B,S]  lengths [B], S each unless given -> states [B,S,N'], and the state: that of the decoder's
             layers, each array [L,B,N], and at its end s~ as [1,B,N].
    Units:   as in encode.
    Empty:   as in encode.
    Errors:  those of encode and check_parts.
    Source:  arXiv:1508.04025 sec. 3.
    Differs: the paper does not say what is fed at the first step; here zeros.
    """
    check_parts(parameters, (*PARTS, "attention"))
    states, context = encode(source, parameters, cell, lengths)
    return states, (*context, np.zeros_like(context[0][:1]))


def luong_step(
    tokens: IntArray, state: State, states: FloatArray, parameters: Parameters, cell: Cell = "lstm",
    score: Score = "general", lengths: IntArray | None = None, input_feeding: bool = True,
) -> tuple[FloatArray, State, FloatArray]:  # fmt: skip
    """Writes one word: takes in the previous one, reads the source with the new state, and joins both.

        s[t] = recurrent([embedding(token[t]); s~[t-1]], s[t-1]), without s~[t-1] if not input_feeding  (1)
        c[t], alpha[t] = luong_attention(s[t], h),  s~[t] = attentional_states(c[t], s[t])              (2)
        logits[t] = W s~[t] + b                                                                         (3)

    Shapes:  tokens [B]  state as in luong_start  states h [B,S,N']  lengths [B] of the source
             -> logits [B,V], the next state, and alpha [B,S].
    Units:   logits are natural-log weights, alpha are shares. In a stack, s[t] in (2) is h of the last layer.
    Empty:   a source of length zero gives c and alpha of zero.
    Errors:  those of embedding, recurrent, luong_attention, attentional_states, linear and state_mask; ShapeError if the
             state is not that of luong_start.
    Source:  arXiv:1508.04025 sec. 3.1 and, for input feeding, sec. 3.3.
    Differs: the paper has no b; its first model does not feed s~.
    """
    check_rank("tokens", np.asarray(tokens), "B")
    layers = initial_state(part(parameters, "decoder"), np.shape(tokens)[0], cell, state[:-1])
    if np.shape(state[-1]) != layers[0][:1].shape:
        rule = f"the last of the state is s~, [1,B,N] = {layers[0][:1].shape}"
        raise ShapeError(f"state[-1].shape={np.shape(state[-1])}: {rule}; pass the state of luong_start")
    x = embedding(tokens, part(parameters, "target.embedding"))[:, None, :]
    x = np.concatenate([x, np.swapaxes(state[-1], 0, 1)], axis=2) if input_feeding else x
    out, layers = recurrent(x, part(parameters, "decoder"), cell, state=layers)
    joined, alpha = _read(out, states, parameters, score, lengths)
    return linear(joined[:, 0], part(parameters, "output")), (*layers, np.swapaxes(joined, 0, 1)), alpha[:, 0]


def luong_logits(
    source: IntArray, inputs: IntArray, parameters: Parameters, cell: Cell = "lstm", score: Score = "general",
    lengths: IntArray | None = None, input_feeding: bool = True,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Rates the next word at every step, given the right previous words, and shows where each step looked.

        logits[t], alpha[t] = luong_step(inputs[t]),  t = 0, ..., T-1                    (1)

    Shapes:  source [B,S]  inputs [B,T], which start with the sign for the start  lengths [B] of the source
             -> logits [B,T,V] and the table of alignments alpha [B,T,S].
    Units:   as in luong_step. Without input_feeding all steps are read at once.
    Empty:   T = 0 gives no logits.
    Errors:  those of luong_start and luong_step.
    Source:  arXiv:1508.04025 sec. 3.
    Differs: n/a.
    """
    inputs = np.asarray(inputs)
    check_rank("inputs", inputs, "BT")
    states, state = luong_start(source, parameters, cell, lengths)
    if not input_feeding:
        x = embedding(inputs, part(parameters, "target.embedding"))
        out, _ = recurrent(x, part(parameters, "decoder"), cell, state=state[:-1])
        joined, alpha = _read(out, states, parameters, score, lengths)
        return linear(joined, part(parameters, "output")), alpha
    logits = [linear(np.zeros((inputs.shape[0], 0, state[0].shape[2])), part(parameters, "output"))]  # T = 0 joins nothing
    alphas = [np.zeros((inputs.shape[0], 0, states.shape[1]))]
    for t in range(inputs.shape[1]):
        logit, state, alpha = luong_step(inputs[:, t], state, states, parameters, cell, score, lengths)
        logits, alphas = [*logits, logit[:, None, :]], [*alphas, alpha[:, None, :]]
    return np.concatenate(logits, axis=1), np.concatenate(alphas, axis=1)


def _read(
    out: FloatArray, states: FloatArray, parameters: Parameters, score: Score, lengths: IntArray | None
) -> tuple[FloatArray, FloatArray]:
    """(2) for any number of steps."""
    attention = part(parameters, "attention")
    rating = {name: array for name, array in attention.items() if not name.startswith("combine.")}
    context, alpha = luong_attention(out, states, rating, score, state_mask(lengths, states))
    return attentional_states(context, out, part(attention, "combine")), alpha
