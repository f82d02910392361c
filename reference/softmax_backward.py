"""The gradient of softmax, and its whole Jacobian: why large scores stop learning."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.shapes import FloatArray, ShapeError
from attnspec.reference.softmax import softmax


def softmax_backward(x: FloatArray, cotangent: FloatArray, axis: int = -1) -> FloatArray:
    """Pulls a cotangent of the weights back to the scores.

        dx[s] = p[s] (do[s] - sum_r p[r] do[r]),  p = softmax(x),  do = cotangent        (1)

    Shapes:  x [...]  cotangent [...] -> the same shape.
    Units:   those of the cotangent: scores are natural-log weights.
    Empty:   a row of nothing but -inf sends zeros, as its weights are zero wherever the scores go.
    Errors:  ShapeError if cotangent has not the shape of x; numpy.exceptions.AxisError if x has no such axis.
    Source:  arXiv:2205.14135 appendix B.2.
    Differs: the paper has no -inf; an entry of -inf receives zero.
    """
    p, do = softmax(x, axis), np.asarray(cotangent, dtype=np.float64)
    check_cotangent(do, p.shape, "the weights")
    dx: FloatArray = p * (do - np.sum(p * do, axis=axis, keepdims=True))
    return dx


def softmax_jacobian(p: FloatArray) -> FloatArray:
    """Writes down how each weight answers to each score.

        J[s, r] = p[s] (1 if s = r else 0) - p[s] p[r],  that is diag(p) - p p^T         (1)

    Shapes:  p [...,S], the weights, not the scores -> [...,S,S].
    Units:   weight per score. Rows and columns sum to zero: a common shift of the scores changes nothing.
    Empty:   zero weights have a zero Jacobian; so has a row whose one weight is 1, which is saturation.
    Errors:  ShapeError if p has no axis.
    Source:  arXiv:1706.03762 sec. 3.2.1 and its footnote 4, on extremely small gradients.
    Differs: the paper has the effect in words. With m = max_s p[s] the norm of J is at most 2 m (1 - m).
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim == 0:
        raise ShapeError(f"p.shape={p.shape}: weights have an axis of keys; pass p[None]")
    return np.eye(p.shape[-1]) * p[..., None] - p[..., :, None] * p[..., None, :]
