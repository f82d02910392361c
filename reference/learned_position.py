"""Learned positions: one vector of parameters for each position, looked up. Forward and backward."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.dtypes import check_indices
from attnspec.reference.parameters import Gradients, Parameters, check_names
from attnspec.reference.shapes import FloatArray, IntArray, check_rank


def learned_position(positions: IntArray, parameters: Parameters) -> FloatArray:
    """Looks up the vector of each position.

        out[..., m] = weight[positions[...], m]                                          (1)

    Shapes:  positions [...], as [T]  weight [P,M], P the number of positions known -> [...,M].
    Units:   positions count tokens from 0.
    Empty:   no positions give no rows.
    Errors:  TypeError if positions are not integers; ValueError if one is not in 0..P-1, if weight is missing or a name
             unknown; ShapeError if weight has not two axes.
    Source:  arXiv:1706.03762 sec. 3.5; arXiv:1705.03122 sec. 3.1.
    Differs: n/a. A position out of range raises; it is neither wrapped nor cut.
    """
    weight, positions = _checked(positions, parameters)
    return np.take(weight, positions, axis=0)


def learned_position_backward(positions: IntArray, parameters: Parameters, cotangent: FloatArray) -> Gradients:
    """Adds up, for each position, the cotangents of the places that looked it up.

        dweight[p, m] = sum of do[..., m] over the places where positions[...] = p,  do = cotangent     (1)

    Shapes:  positions [...]  cotangent [...,M] -> the gradient of weight [P,M] under its name.
    Units:   those of the cotangent.
    Empty:   a position that nobody looked up has a gradient of zero.
    Errors:  those of learned_position; ShapeError if cotangent has not the shape of the output.
    Source:  the chain rule on (1) of learned_position.
    Differs: n/a.
    """
    (weight, positions), do = _checked(positions, parameters), np.asarray(cotangent, dtype=np.float64)
    P, M = weight.shape
    check_cotangent(do, (*positions.shape, M))
    looked_up = np.where(np.reshape(positions, (-1, 1)) == np.arange(P), 1.0, 0.0)
    return {"weight": np.einsum("np,nm->pm", looked_up, np.reshape(do, (positions.size, M)))}


def _checked(positions: IntArray, parameters: Parameters) -> tuple[FloatArray, IntArray]:
    """The weights and the positions, after the checks."""
    check_names(parameters, ("weight",))
    weight = np.asarray(parameters["weight"], dtype=np.float64)
    check_rank("weight", weight, "PM")
    fix = "shorten the text or learn more positions"
    return weight, check_indices("positions", positions, "positions", "P", weight.shape[0], fix)
