"""The context vector: what a decoder step reads from the encoder's states, one weight for each of them."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.mask import padding_mask, visible_keys
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, check_broadcasts, check_rank, check_size
from attnspec.reference.softmax import softmax
from attnspec.reference.softmax_backward import softmax_backward


def context_vectors(energies: FloatArray, states: FloatArray, mask: BoolArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Averages the encoder's states, each weighted by the softmax of its energy.

        weights[t, s] = softmax_s(energies[t, s] if visible, else -inf)                  (1)
        context[t] = sum_s weights[t, s] states[s]                                       (2)

    Shapes:  energies [B,T,S]  states [B,S,N]  mask broadcasts to [B,T,S] -> context [B,T,N], weights [B,T,S].
    Units:   energies are natural-log weights; a context has the units of the states and lies in their convex hull.
    Empty:   a step that sees no state has weights and context of zero.
    Errors:  ShapeError if arrays do not fit; TypeError if mask is not boolean.
    Source:  arXiv:1409.0473 eq. 5 and 6, where weights is alpha and context is c.
    Differs: the paper has no mask, as it has no padding; docs/notation.md, True = real token.
    """
    energies, states = np.asarray(energies, dtype=np.float64), np.asarray(states, dtype=np.float64)
    weights = softmax(_visible(energies, states, mask))
    context: FloatArray = np.einsum("bts,bsn->btn", weights, states)
    return context, weights


def context_vectors_backward(
    energies: FloatArray, states: FloatArray, cotangent: FloatArray, mask: BoolArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Pulls a cotangent of the contexts back to energies and states.

        dstates[s] = sum_t weights[t, s] do[t],  do = cotangent                          (1)
        denergies[t] = softmax_backward(energies[t], (do[t]·states[s])_s)                (2)

    Shapes:  energies [B,T,S]  states [B,S,N]  cotangent [B,T,N] -> denergies [B,T,S], dstates [B,S,N].
    Units:   those of the cotangent times those of the states over those of the input.
    Empty:   hidden states and steps that see none receive exact zeros.
    Errors:  those of context_vectors; ShapeError if cotangent has not the shape of the contexts.
    Source:  the chain rule on (1) and (2) of context_vectors.
    Differs: n/a.
    """
    energies, states = np.asarray(energies, dtype=np.float64), np.asarray(states, dtype=np.float64)
    do = np.asarray(cotangent, dtype=np.float64)
    context, weights = context_vectors(energies, states, mask)
    check_cotangent(do, context.shape, "the contexts")
    dstates: FloatArray = np.einsum("bts,btn->bsn", weights, do)
    dweights = np.einsum("btn,bsn->bts", do, states)
    return softmax_backward(_visible(energies, states, mask), dweights), dstates


def state_mask(lengths: IntArray | None, states: FloatArray) -> BoolArray | None:
    """Hides the padding of the encoder's states from every step.

        mask[b, 0, s] = s < lengths[b], or no mask without lengths                       (1)

    Shapes:  lengths [B]  states [B,S,N] -> [B,1,S].
    Units:   lengths count states; booleans, True = may attend.
    Empty:   a source of length zero has a row of False.
    Errors:  ShapeError if states has not three axes or B differs; those of padding_mask.
    Source:  docs/notation.md, arrays.
    Differs: n/a.
    """
    check_rank("states", np.asarray(states), "BSN")
    if lengths is None:
        return None
    mask = padding_mask(lengths, np.shape(states)[1])[:, 0]
    check_size("B", "states", np.shape(states)[0], "lengths", mask.shape[0])
    return mask


def _visible(energies: FloatArray, states: FloatArray, mask: BoolArray | None) -> FloatArray:
    """The energies, -inf where hidden, after the checks of all shapes."""
    check_rank("energies", energies, "BTS")
    check_rank("states", states, "BSN")
    (B, T, S) = energies.shape
    check_size("B", "energies", B, "states", states.shape[0])
    check_size("S", "energies", S, "states", states.shape[1])
    if mask is not None:
        check_broadcasts("mask", np.shape(mask), "BTS", (B, T, S))
    return np.where(visible_keys(T, S, mask=mask), energies, -np.inf)
