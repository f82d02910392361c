"""The gradients of Luong's attention, derived by hand."""

import numpy as np

from attnspec.reference.additive_attention_backward import additive_energies_backward
from attnspec.reference.context_vector import context_vectors_backward
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.linear import linear, linear_backward
from attnspec.reference.luong_attention import Score, attentional_states, luong_scores
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import BoolArray, FloatArray


def luong_scores_backward(
    queries: FloatArray, states: FloatArray, parameters: Parameters, cotangent: FloatArray, score: Score = "dot"
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the scores back to queries, states and parameters.

        dq[t] = sum_s de[t, s] k[s],  dk[s] = sum_t de[t, s] q[t],  de = cotangent       (1)
        k = h, dh = dk (dot);  k = W h, dh = W^T dk, dW = sum_s dk[s] h[s]^T (general)   (2)
        as in additive_energies_backward (concat)                                        (3)

    Shapes:  queries [B,T,N]  states [B,S,N']  cotangent [B,T,S] -> dqueries, dstates and the gradients by name.
    Units:   those of the cotangent over those of the input.
    Empty:   T = 0 or S = 0 gives gradients of zero.
    Errors:  those of luong_scores; ShapeError if cotangent has not the shape of the scores.
    Source:  the chain rule on (1) to (3) of luong_scores.
    Differs: n/a.
    """
    shape, de = luong_scores(queries, states, parameters, score).shape, np.asarray(cotangent, dtype=np.float64)
    check_cotangent(de, shape, "the scores")
    if score == "concat":
        return additive_energies_backward(queries, states, parameters, de)
    queries, states = np.asarray(queries, dtype=np.float64), np.asarray(states, dtype=np.float64)
    dk: FloatArray = np.einsum("bts,btn->bsn", de, queries)
    dq: FloatArray = np.einsum("bts,bsn->btn", de, linear(states, parameters) if score == "general" else states)
    dh, gradients = linear_backward(states, parameters, dk) if score == "general" else (dk, {})
    return dq, dh, gradients


def luong_attention_backward(
    queries: FloatArray, states: FloatArray, parameters: Parameters, cotangent: FloatArray, score: Score = "dot",
    mask: BoolArray | None = None,
) -> tuple[FloatArray, FloatArray, Gradients]:  # fmt: skip
    """Pulls a cotangent of the contexts back to queries, states and parameters.

        de, dh = context_vectors_backward(scores, h, cotangent)                          (1)
        dq, dh + dh', gradients, where dq, dh', gradients = luong_scores_backward(q, h, de)            (2)

    Shapes:  queries [B,T,N]  states [B,S,N']  cotangent [B,T,N'] -> dqueries, dstates and the gradients by name.
    Units:   those of the cotangent times those of the states over those of the input.
    Empty:   hidden states and steps that see none receive exact zeros.
    Errors:  those of luong_attention; ShapeError if cotangent has not the shape of the contexts.
    Source:  the chain rule on (1) of luong_attention.
    Differs: a state receives gradient as what is averaged and as what is rated.
    """
    scores = luong_scores(queries, states, parameters, score)
    de, dh_averaged = context_vectors_backward(scores, states, cotangent, mask)
    dq, dh_rated, gradients = luong_scores_backward(queries, states, parameters, de, score)
    return dq, dh_averaged + dh_rated, gradients


def attentional_states_backward(
    contexts: FloatArray, queries: FloatArray, parameters: Parameters, cotangent: FloatArray
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the attentional states back to contexts, queries and parameters.

        dx[t] = (1 - out[t]^2) do[t],  do = cotangent                                    (1)
        [dcontext[t]; dq[t]] = W^T dx[t],  dW = sum_t dx[t] [context[t]; q[t]]^T         (2)

    Shapes:  contexts [B,T,N']  queries [B,T,N]  cotangent [B,T,N] -> dcontexts, dqueries and the gradients by name.
    Units:   those of the cotangent over those of the input.
    Empty:   T = 0 gives gradients of zero.
    Errors:  those of attentional_states; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1) of attentional_states.
    Differs: n/a.
    """
    contexts, queries = np.asarray(contexts, dtype=np.float64), np.asarray(queries, dtype=np.float64)
    out, do = attentional_states(contexts, queries, parameters), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, out.shape)
    dx = (1 - np.square(out)) * do
    djoined, gradients = linear_backward(np.concatenate([contexts, queries], axis=2), parameters, dx)
    width = contexts.shape[2]
    return djoined[..., :width], djoined[..., width:], gradients
