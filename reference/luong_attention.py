"""Multiplicative (Luong) attention: dot products rate the states; the context joins after the decoder step."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from attnspec.reference.additive_attention import additive_energies
from attnspec.reference.context_vector import context_vectors
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names
from attnspec.reference.shapes import BoolArray, FloatArray, check_rank, check_size

Score: TypeAlias = Literal["dot", "general", "concat"]


def luong_scores(queries: FloatArray, states: FloatArray, parameters: Parameters, score: Score = "dot") -> FloatArray:
    """Rates how well each encoder state fits each decoder state.

        score[t, s] = q[t]·h[s]                     (dot)                                (1)
                    = q[t]·(W h[s])                 (general)                            (2)
                    = v·tanh(Wq q[t] + Wk h[s])     (concat)                             (3)

    Shapes:  queries q [B,T,N]  states h [B,S,N'], N' = N for dot; weight W [N,N'] for general; query.weight Wq [A,N],
             key.weight Wk [A,N'], score.weight v [A] for concat; none for dot -> [B,T,S].
    Units:   natural-log weights, without a scale.
    Empty:   N = 0 gives scores of zero.
    Errors:  ValueError if score is not one of the three or a name is missing or unknown; ShapeError if arrays do not fit.
    Source:  arXiv:1508.04025 sec. 3.1.
    Differs: the paper writes W_a [q; h] for concat; [Wq Wk] is W_a. (1) is (2) with W = I.
    """
    if score not in get_args(Score):
        raise ValueError(f"score={score!r}: it is one of {', '.join(get_args(Score))}; pass one of these")
    if score == "concat":
        check_names(parameters, ("query.weight", "key.weight", "score.weight"))
        return additive_energies(queries, states, parameters)
    check_names(parameters, ("weight",) if score == "general" else ())
    queries, states = np.asarray(queries, dtype=np.float64), np.asarray(states, dtype=np.float64)
    check_rank("queries", queries, "BTN")
    check_rank("states", states, "BSN")
    check_size("B", "queries", queries.shape[0], "states", states.shape[0])
    keys = linear(states, parameters) if score == "general" else states
    check_size("N", "queries", queries.shape[2], "weight" if score == "general" else "states", keys.shape[2])
    out: FloatArray = np.einsum("btn,bsn->bts", queries, keys)
    return out


def luong_attention(
    queries: FloatArray, states: FloatArray, parameters: Parameters, score: Score = "dot", mask: BoolArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Averages the encoder states by how well they fit each decoder state.

        weights[t] = softmax_s(score[t, s]),  context[t] = sum_s weights[t, s] h[s],  score as in luong_scores  (1)

    Shapes:  queries [B,T,N]  states [B,S,N']  mask broadcasts to [B,T,S] -> context [B,T,N'], weights [B,T,S].
    Units:   those of the states.
    Empty:   a step that sees no state has weights and context of zero.
    Errors:  those of luong_scores and context_vectors.
    Source:  arXiv:1508.04025 sec. 3.1, global attention.
    Differs: a mask that is mask.window_mask(T, S, D + 1, side="both") makes it the paper's local-m of sec. 3.2.
    """
    return context_vectors(luong_scores(queries, states, parameters, score), states, mask)


def attentional_states(contexts: FloatArray, queries: FloatArray, parameters: Parameters) -> FloatArray:
    """Joins what a decoder step has read with what it knew.

        out[t] = tanh(W [context[t]; q[t]])                                              (1)

    Shapes:  contexts [B,T,N']  queries q [B,T,N]  weight W [N,N'+N], bias [N] optional -> [B,T,N].
    Units:   each entry lies in (-1, 1).
    Empty:   a context of zero leaves tanh(W [0; q]).
    Errors:  ValueError if weight is missing or a name unknown; ShapeError if arrays do not fit.
    Source:  arXiv:1508.04025 sec. 3, the attentional hidden state.
    Differs: the paper has no bias.
    """
    contexts, queries = np.asarray(contexts, dtype=np.float64), np.asarray(queries, dtype=np.float64)
    check_rank("contexts", contexts, "BTN")
    check_rank("queries", queries, "BTN")
    for axis, letter in enumerate("BT"):
        check_size(letter, "contexts", contexts.shape[axis], "queries", queries.shape[axis])
    return np.tanh(linear(np.concatenate([contexts, queries], axis=2), parameters))
