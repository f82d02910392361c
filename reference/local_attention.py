"""Luong's local attention: guess where to look, and read only the states around that place."""

import numpy as np

from attnspec.reference.context_vector import context_vectors
from attnspec.reference.linear import linear
from attnspec.reference.luong_attention import Score, luong_scores
from attnspec.reference.mask import padding_mask
from attnspec.reference.parameters import Parameters, check_names
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, ShapeError, check_rank, check_size
from attnspec.reference.sigmoid import sigmoid


def predicted_positions(queries: FloatArray, lengths: IntArray, S: int, parameters: Parameters) -> FloatArray:
    """Predicts which place of the source each decoder state is about.

        position[t] = length sigmoid(v·tanh(W q[t]))                                     (1)

    Shapes:  queries q [B,T,N]  lengths [B] of the sources  hidden.weight W [A,N]  score.weight v [A] -> [B,T].
    Units:   positions are real numbers from 0 to length; S is the number of states, padding included.
    Empty:   a source of length zero has position 0.
    Errors:  ValueError if a name is missing or unknown, or a length is not in 0..S; ShapeError if arrays do not fit.
    Source:  arXiv:1508.04025 sec. 3.2, local-p, where W is W_p and v is v_p.
    Differs: the paper takes one sentence at a time, whose length is S.
    """
    check_names(parameters, ("hidden.weight", "score.weight"))
    check_rank("queries", np.asarray(queries), "BTN")
    padding_mask(lengths, S)  # checks the lengths
    check_size("B", "queries", np.shape(queries)[0], "lengths", np.shape(lengths)[0])
    v = np.asarray(parameters["score.weight"], dtype=np.float64)
    hidden = np.tanh(linear(queries, {"weight": parameters["hidden.weight"]}))
    check_rank("score.weight", v, "A")
    check_size("A", "hidden.weight", hidden.shape[2], "score.weight", v.shape[0])
    return np.asarray(lengths)[:, None] * sigmoid(np.einsum("bta,a->bt", hidden, v))


def local_attention(
    queries: FloatArray, states: FloatArray, positions: FloatArray, radius: int, parameters: Parameters,
    score: Score = "general", mask: BoolArray | None = None,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Averages the states around a position, the nearer the heavier.

        align[t] = softmax_s(score[t, s] if |s - p[t]| <= r, else -inf),  p = positions  (1)
        weights[t, s] = align[t, s] exp(-(s - p[t])^2 / (2 sigma^2)),  sigma = r / 2     (2)
        context[t] = sum_s weights[t, s] h[s]                                            (3)

    Shapes:  queries [B,T,N]  states h [B,S,N']  positions [B,T]  mask broadcasts to [B,T,S]; parameters and score are those
             of luong_scores -> context [B,T,N'], weights [B,T,S].
    Units:   positions count states from 0; r is radius. The weights of a step sum to at most one, not to one.
    Empty:   a step whose window has no visible state has weights and context of zero.
    Errors:  those of luong_scores and context_vectors; ValueError if radius < 1; ShapeError if positions
             are not [B,T].
    Source:  arXiv:1508.04025 sec. 3.2, local-p.
    Differs: the paper writes D for r, and not whether s counts from 0. For its local-m pass a window_mask to luong_attention.
    """
    if radius < 1:
        raise ValueError(f"radius={radius}: sigma is half of it, and positive; pass radius >= 1")
    positions = np.asarray(positions, dtype=np.float64)
    if positions.shape != np.shape(queries)[:2]:
        rule = f"there is one for each query, [B,T] = {np.shape(queries)[:2]}"
        raise ShapeError(f"positions.shape={positions.shape}: {rule}; pass those of predicted_positions")
    rated = luong_scores(queries, states, parameters, score)
    distance = np.arange(rated.shape[2]) - positions[..., None]
    energies = np.where(np.abs(distance) <= radius, rated, -np.inf)
    _, align = context_vectors(energies, states, mask)
    weights = align * np.exp(-2 * np.square(distance / radius))
    context: FloatArray = np.einsum("bts,bsn->btn", weights, np.asarray(states, dtype=np.float64))
    return context, weights
