"""Cotangents: the gradients that arrive at an output, which every backward function starts from."""

import numpy as np

from attnspec.reference.shapes import FloatArray, ShapeError


def check_cotangent(cotangent: FloatArray, shape: tuple[int, ...], of: str = "the output") -> None:
    """Refuses a cotangent that does not belong to the output.

        shape(cotangent) = shape(output)                                                 (1)

    Shapes:  any.
    Units:   n/a.
    Empty:   axes of size zero are accepted.
    Errors:  ShapeError if the shapes differ.
    Source:  the chain rule: there is one derivative for each entry of the output.
    Differs: nothing is broadcast, as a scalar would be in torch.
    """
    if np.shape(cotangent) != shape:
        rule = f"it has the shape {shape} of {of}"
        raise ShapeError(f"cotangent.shape={np.shape(cotangent)}: {rule}; pass the gradient of {of}")
