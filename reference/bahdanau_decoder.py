"""Bahdanau's decoder: it looks at the source with its previous state, then takes the next step."""

import numpy as np

from attnspec.reference.additive_attention import additive_attention
from attnspec.reference.cell import Cell, State
from attnspec.reference.context_vector import state_mask
from attnspec.reference.embedding import embedding
from attnspec.reference.encoder_decoder import PARTS, check_parts, encode
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, part
from attnspec.reference.recurrent import initial_state, recurrent
from attnspec.reference.shapes import FloatArray, IntArray, check_rank


def bahdanau_start(
    source: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, State]:
    """Reads the source, keeps every state of the encoder, and starts the decoder from the last one.

        states = h[0], ..., h[S-1],  s[-1] = context,  both of encode                    (1)

    Shapes:  source [B,S]  lengths [B], S each unless given -> states [B,S,N'], each array of the state [L,B,N].
    Units:   as in encode.
    Empty:   as in encode.
    Errors:  those of encode and check_parts.
    Source:  arXiv:1409.0473 sec. 3.2 and appendix A.2.2.
    Differs: the paper starts from tanh(W_s h) with h of the run from the right; here from the last state, as it is.
    """
    check_parts(parameters, (*PARTS, "attention"))
    return encode(source, parameters, cell, lengths)


def bahdanau_step(
    tokens: IntArray, state: State, states: FloatArray, parameters: Parameters, cell: Cell = "lstm",
    lengths: IntArray | None = None,
) -> tuple[FloatArray, State, FloatArray]:  # fmt: skip
    """Writes one word: reads the source with the previous state, and takes in what it found with the previous word.

        c[t], alpha[t] = additive_attention(s[t-1], h)                                   (1)
        s[t] = recurrent([embedding(token[t]); c[t]], s[t-1]),  logits[t] = W s[t] + b   (2)

    Shapes:  tokens [B]  each array of the state [L,B,N]  states h [B,S,N']  lengths [B] of the source
             -> logits [B,V], the next state, and alpha [B,S].
    Units:   logits are natural-log weights, alpha are shares. In a stack, s[t-1] in (1) is h of the last layer.
    Empty:   a source of length zero gives c and alpha of zero.
    Errors:  those of embedding, additive_attention, recurrent, linear and state_mask.
    Source:  arXiv:1409.0473 sec. 3.1 and appendix A.2.2.
    Differs: the paper's cell is a GRU that resets before, and its logits also see the token and c, through maxout.
    """
    check_rank("tokens", np.asarray(tokens), "B")
    state = initial_state(part(parameters, "decoder"), np.shape(tokens)[0], cell, state)
    mask, p = state_mask(lengths, states), part(parameters, "attention")
    context, alpha = additive_attention(state[0][-1][:, None, :], states, p, mask)
    x = np.concatenate([embedding(tokens, part(parameters, "target.embedding"))[:, None, :], context], axis=2)
    out, state = recurrent(x, part(parameters, "decoder"), cell, state=state)
    return linear(out[:, 0], part(parameters, "output")), state, alpha[:, 0]


def bahdanau_logits(
    source: IntArray, inputs: IntArray, parameters: Parameters, cell: Cell = "lstm", lengths: IntArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Rates the next word at every step, given the right previous words, and shows where each step looked.

        logits[t], alpha[t] = bahdanau_step(inputs[t]),  t = 0, ..., T-1                 (1)

    Shapes:  source [B,S]  inputs [B,T], which start with the sign for the start  lengths [B] of the source
             -> logits [B,T,V] and the table of alignments alpha [B,T,S].
    Units:   as in bahdanau_step. alpha[t] looks with s[t-1], so it knows inputs before t only.
    Empty:   T = 0 gives no logits.
    Errors:  those of bahdanau_start and bahdanau_step.
    Source:  arXiv:1409.0473 sec. 3; alpha is what its figure 3 shows.
    Differs: n/a.
    """
    inputs = np.asarray(inputs)
    check_rank("inputs", inputs, "BT")
    states, state = bahdanau_start(source, parameters, cell, lengths)
    logits = [linear(np.zeros((inputs.shape[0], 0, state[0].shape[2])), part(parameters, "output"))]  # T = 0 joins nothing
    alphas = [np.zeros((inputs.shape[0], 0, states.shape[1]))]
    for t in range(inputs.shape[1]):
        logit, state, alpha = bahdanau_step(inputs[:, t], state, states, parameters, cell, lengths)
        logits, alphas = [*logits, logit[:, None, :]], [*alphas, alpha[:, None, :]]
    return np.concatenate(logits, axis=1), np.concatenate(alphas, axis=1)
