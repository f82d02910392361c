"""How tokens enter a Transformer: their embeddings, scaled if asked, plus positions, and a norm if there is one."""

from typing import get_args

import numpy as np

from attnspec.reference.embedding import embedding, embedding_backward
from attnspec.reference.layers import check_parts
from attnspec.reference.learned_position import learned_position, learned_position_backward
from attnspec.reference.parameters import Gradients, Parameters, part, prefixed
from attnspec.reference.residual import Norm, normalise, normalise_backward
from attnspec.reference.shapes import FloatArray, IntArray, check_rank, check_size
from attnspec.reference.sinusoidal_position import sinusoidal_position
from attnspec.reference.token_position import Positions

OPTIONAL = ("position", "embedding_norm")


def embed_tokens(
    ids: IntArray, places: IntArray, parameters: Parameters, *, scale_embeddings: bool = True,
    positions: Positions | None = "sinusoidal", norm: Norm = "layer", eps: float = 1e-5,
) -> FloatArray:  # fmt: skip
    """Turns tokens into vectors that say which word stands where.

        out[b, t] = norm(c weight[ids[b, t]] + position(places[b, t])),  c = sqrt(M) if scaled, else 1     (1)

    Shapes:  ids, places [B,T]  embedding.weight [V,M]  position.weight [P,M] if learned -> [B,T,M].
    Units:   places count tokens from 0. Rotary and ALiBi positions add nothing here: they are the attention's.
    Empty:   B and T may be zero; without parameters embedding_norm.* there is no norm.
    Errors:  ValueError if parts are missing or unknown, or positions unknown; ShapeError if arrays do not fit; those of
             embedding, learned_position, sinusoidal_position and normalise.
    Source:  arXiv:1706.03762 sec. 3.4, 3.5; arXiv:1810.04805 sec. 3 for learned positions.
    Differs: the first paper has no norm here; BERT's token types are another table to add.
    """
    x = _summed(ids, places, parameters, scale_embeddings, positions)
    return normalise(x, part(parameters, "embedding_norm"), norm, eps)


def embed_tokens_backward(
    ids: IntArray, places: IntArray, parameters: Parameters, cotangent: FloatArray, *, scale_embeddings: bool = True,
    positions: Positions | None = "sinusoidal", norm: Norm = "layer", eps: float = 1e-5,
) -> Gradients:  # fmt: skip
    """Pulls a cotangent of the vectors back to the tables.

        dx = norm'(x)·cotangent,  dweight[v] = c sum of dx[b, t] over ids[b, t] = v      (1)
        dposition[p] = sum of dx[b, t] over places[b, t] = p                             (2)

    Shapes:  as in embed_tokens, cotangent [B,T,M] -> the gradients under the parameters' names and shapes.
    Units:   those of the cotangent.
    Empty:   a word or position that does not occur has a row of zeros.
    Errors:  those of embed_tokens and of the parts' backward functions.
    Source:  the chain rule on (1) of embed_tokens.
    Differs: n/a.
    """
    x = _summed(ids, places, parameters, scale_embeddings, positions)
    dx, gradients = normalise_backward(x, part(parameters, "embedding_norm"), cotangent, norm, eps)
    gradients = prefixed("embedding_norm", gradients)
    if positions == "learned":
        gradients |= prefixed("position", learned_position_backward(places, part(parameters, "position"), dx))
    words = embedding_backward(ids, part(parameters, "embedding"), dx * _factor(x, scale_embeddings))
    return {**prefixed("embedding", words), **gradients}


def _summed(
    ids: IntArray, places: IntArray, parameters: Parameters, scale_embeddings: bool, positions: Positions | None
) -> FloatArray:
    """What the norm sees: embeddings plus positions."""
    if positions is not None and positions not in get_args(Positions):
        raise ValueError(f"positions={positions!r}: it is one of {', '.join(get_args(Positions))} or None; pass one of these")
    check_rank("ids", np.asarray(ids), "BT")
    check_rank("places", np.asarray(places), "BT")
    for axis, letter in enumerate("BT"):
        check_size(letter, "ids", np.shape(ids)[axis], "places", np.shape(places)[axis])
    learned = ("position",) if positions == "learned" else ()
    check_parts(parameters, ("embedding", *learned), ("embedding_norm",))
    x = embedding(ids, part(parameters, "embedding"))
    x = x * _factor(x, scale_embeddings)
    if positions == "sinusoidal":
        return x + sinusoidal_position(places, x.shape[-1])
    if positions != "learned":
        return x
    added = learned_position(places, part(parameters, "position"))
    check_size("M", "embedding.weight", x.shape[-1], "position.weight", added.shape[-1])
    return x + added


def _factor(x: FloatArray, scaled: bool) -> float:
    """c of (1) in embed_tokens."""
    factor: float = np.sqrt(x.shape[-1]) if scaled else 1.0
    return factor
