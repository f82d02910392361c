"""Additive (Bahdanau) attention: a small network rates each encoder state for each decoder state."""

import numpy as np

from attnspec.reference.context_vector import context_vectors
from attnspec.reference.linear import linear
from attnspec.reference.parameters import Parameters, check_names
from attnspec.reference.shapes import BoolArray, FloatArray, check_rank, check_size


def additive_hidden(queries: FloatArray, states: FloatArray, parameters: Parameters) -> FloatArray:
    """Computes the hidden layer of the alignment network for every pair of decoder and encoder state.

        hidden[t, s] = tanh(Wq q[t] + Wk h[s] + b) = tanh(W [q[t]; h[s]] + b),  W = [Wq Wk]       (1)

    Shapes:  queries q [B,T,N]  states h [B,S,N']  query.weight Wq [A,N]  key.weight Wk [A,N']  score.weight [A]
             bias b [A], optional -> [B,T,S,A].
    Units:   any; the same weights serve every step and every state.
    Empty:   N = 0 or N' = 0 leaves the other summand.
    Errors:  ValueError if a name is missing or unknown; ShapeError if arrays do not fit.
    Source:  arXiv:1409.0473 appendix A.1.2.
    Differs: the paper writes no bias; its W_a is Wq, its U_a is Wk. Split like this, Wk h[s] is computed once, not per step.
    """
    check_names(parameters, ("query.weight", "key.weight", "score.weight"), ("bias",))
    check_rank("queries", np.asarray(queries), "BTN")
    check_rank("states", np.asarray(states), "BSN")
    for name, axes in (("query.weight", "AN"), ("key.weight", "AN"), ("score.weight", "A")):
        check_rank(name, np.asarray(parameters[name]), axes)
    check_size("B", "queries", np.shape(queries)[0], "states", np.shape(states)[0])
    for name in ("key.weight", "score.weight"):
        check_size("A", "query.weight", np.shape(parameters["query.weight"])[0], name, np.shape(parameters[name])[0])
    bias = {"bias": parameters["bias"]} if "bias" in parameters else {}
    from_queries = linear(queries, {"weight": parameters["query.weight"], **bias})
    from_states = linear(states, {"weight": parameters["key.weight"]})
    return np.tanh(from_queries[:, :, None, :] + from_states[:, None, :, :])


def additive_energies(queries: FloatArray, states: FloatArray, parameters: Parameters) -> FloatArray:
    """Rates how well each encoder state fits each decoder state.

        e[t, s] = v·tanh(Wq q[t] + Wk h[s] + b)                                          (1)

    Shapes:  queries [B,T,N]  states [B,S,N']  score.weight v [A], the others as in additive_hidden -> [B,T,S].
    Units:   natural-log weights; |e| <= sum_a |v[a]|, so no scale is needed.
    Empty:   A = 0 gives energies of zero.
    Errors:  those of additive_hidden.
    Source:  arXiv:1409.0473 appendix A.1.2, where e_ij = a(s_{i-1}, h_j).
    Differs: the paper writes no bias. A bias outside tanh would change nothing: softmax ignores it.
    """
    v = np.asarray(parameters.get("score.weight", ()), dtype=np.float64)
    e: FloatArray = np.einsum("btsa,a->bts", additive_hidden(queries, states, parameters), v)
    return e


def additive_attention(
    queries: FloatArray, states: FloatArray, parameters: Parameters, mask: BoolArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Averages the encoder states by how well they fit each decoder state.

        weights[t] = softmax_s(e[t, s]),  context[t] = sum_s weights[t, s] h[s],  e as in additive_energies     (1)

    Shapes:  queries [B,T,N]  states [B,S,N']  mask broadcasts to [B,T,S] -> context [B,T,N'], weights [B,T,S].
    Units:   those of the states.
    Empty:   a step that sees no state has weights and context of zero.
    Errors:  those of additive_hidden and context_vectors.
    Source:  arXiv:1409.0473 sec. 3.1 and appendix A.1.2.
    Differs: any queries will do; the paper's are the decoder's previous states s_{i-1}.
    """
    return context_vectors(additive_energies(queries, states, parameters), states, mask)
