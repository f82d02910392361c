"""Learned positions: one vector of parameters for each position, looked up. Forward and backward."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
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
    weight = _checked(positions, parameters)
    return np.take(weight, np.asarray(positions), axis=0)


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
    positions, do = np.asarray(positions), np.asarray(cotangent, dtype=np.float64)
    P, M = _checked(positions, parameters).shape
    check_cotangent(do, (*positions.shape, M))
    looked_up = np.where(np.reshape(positions, (-1, 1)) == np.arange(P), 1.0, 0.0)
    return {"weight": np.einsum("np,nm->pm", looked_up, np.reshape(do, (positions.size, M)))}


def _checked(positions: IntArray, parameters: Parameters) -> FloatArray:
    """The weights, after positions and names were checked."""
    check_names(parameters, ("weight",))
    weight, positions = np.asarray(parameters["weight"], dtype=np.float64), np.asarray(positions)
    check_rank("weight", weight, "PM")
    if not np.issubdtype(positions.dtype, np.integer):
        raise TypeError(f"positions.dtype={positions.dtype}: positions count tokens; pass integers")
    outside = (positions < 0) | (positions >= weight.shape[0])
    if np.any(outside):
        place = tuple(int(index) for index in np.argwhere(outside)[0])
        rule = f"it lies in 0..P-1 with P={weight.shape[0]}"
        raise ValueError(f"positions{list(place)}={positions[place]}: {rule}; shorten the text or learn more positions")
    return weight
