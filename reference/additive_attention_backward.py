"""The gradients of additive attention, derived by hand."""

import numpy as np

from attnspec.reference.additive_attention import additive_energies, additive_hidden
from attnspec.reference.context_vector import context_vectors_backward
from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.linear import linear_backward
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import BoolArray, FloatArray


def additive_energies_backward(
    queries: FloatArray, states: FloatArray, parameters: Parameters, cotangent: FloatArray
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the energies back to queries, states and parameters.

        dv = sum_{t,s} de[t, s] y[t, s],  y = additive_hidden,  de = cotangent           (1)
        dx[t, s] = de[t, s] v (1 - y[t, s]^2),  db = sum_{t,s} dx[t, s]                  (2)
        dq[t] = Wq^T sum_s dx[t, s],  dWq = sum_t (sum_s dx[t, s]) q[t]^T                (3)
        dh[s] = Wk^T sum_t dx[t, s],  dWk = sum_s (sum_t dx[t, s]) h[s]^T                (4)

    Shapes:  queries [B,T,N]  states [B,S,N']  cotangent [B,T,S] -> dqueries, dstates and the gradients by name.
    Units:   those of the cotangent over those of the input.
    Empty:   T = 0 or S = 0 gives gradients of zero.
    Errors:  those of additive_energies; ShapeError if cotangent has not the shape of the energies.
    Source:  the chain rule on (1) of additive_energies.
    Differs: n/a.
    """
    y, de = additive_hidden(queries, states, parameters), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(de, y.shape[:3], "the energies")
    dx = de[..., None] * np.asarray(parameters["score.weight"], dtype=np.float64) * (1 - np.square(y))
    dq, from_queries = linear_backward(queries, {"weight": parameters["query.weight"]}, np.sum(dx, axis=2))
    dh, from_states = linear_backward(states, {"weight": parameters["key.weight"]}, np.sum(dx, axis=1))
    gradients: Gradients = {
        "query.weight": from_queries["weight"],
        "key.weight": from_states["weight"],
        "score.weight": np.einsum("bts,btsa->a", de, y),
    }
    if "bias" in parameters:
        gradients["bias"] = np.sum(dx, axis=(0, 1, 2))
    return dq, dh, gradients


def additive_attention_backward(
    queries: FloatArray, states: FloatArray, parameters: Parameters, cotangent: FloatArray, mask: BoolArray | None = None
) -> tuple[FloatArray, FloatArray, Gradients]:
    """Pulls a cotangent of the contexts back to queries, states and parameters.

        de, dh = context_vectors_backward(e, h, cotangent)                               (1)
        dq, dh + dh', gradients, where dq, dh', gradients = additive_energies_backward(q, h, de)       (2)

    Shapes:  queries [B,T,N]  states [B,S,N']  cotangent [B,T,N'] -> dqueries, dstates and the gradients by name.
    Units:   those of the cotangent times those of the states over those of the input.
    Empty:   hidden states and steps that see none receive exact zeros.
    Errors:  those of additive_attention; ShapeError if cotangent has not the shape of the contexts.
    Source:  the chain rule on (1) of additive_attention.
    Differs: a state receives gradient as what is averaged and as what is rated.
    """
    energies = additive_energies(queries, states, parameters)
    de, dh_averaged = context_vectors_backward(energies, states, cotangent, mask)
    dq, dh_rated, gradients = additive_energies_backward(queries, states, parameters, de)
    return dq, dh_averaged + dh_rated, gradients
