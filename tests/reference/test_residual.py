"""A sub-layer is added to its input as it is: nothing is broadcast, and no option is guessed."""

import numpy as np
import pytest

from attnspec.reference.residual import add_and_norm, add_and_norm_backward, normalise, normalise_backward
from attnspec.reference.shapes import ShapeError

X = np.arange(12.0).reshape(2, 3, 2)
WEIGHT = {"weight": np.ones(2)}


def identity_backward(x, cotangent):
    return cotangent, None


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_sublayer_keeps_the_shape(order):
    message = r"^sublayer\(x\).shape=\(2, 3, 1\): it is added to x, of shape \(2, 3, 2\); let it keep the shape"
    with pytest.raises(ShapeError, match=message):
        add_and_norm(X, lambda x: x[..., :1], WEIGHT, order=order)
    with pytest.raises(ShapeError, match=message):
        add_and_norm_backward(X, lambda x: x[..., :1], identity_backward, WEIGHT, X, order=order)


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("parameters", [WEIGHT, {}])
def test_the_cotangent_has_the_shape_of_the_output(order, parameters):
    with pytest.raises(ShapeError, match=r"^cotangent.shape=\(2, 3, 1\): it has the shape \(2, 3, 2\) of the output"):
        add_and_norm_backward(X, np.tanh, identity_backward, parameters, X[..., :1], order=order)
    with pytest.raises(ShapeError, match=r"^cotangent.shape=\(1, 3, 2\): it has the shape \(2, 3, 2\) of the output"):
        normalise_backward(X, parameters, X[:1])


def test_unknown_options_are_refused_in_both_directions():
    for call in (normalise, lambda x, p, norm: normalise_backward(x, p, x, norm)):
        with pytest.raises(ValueError, match=r"^norm='batch': it is one of layer, rms; pass one of these"):
            call(X, WEIGHT, "batch")
    with pytest.raises(ValueError, match=r"^order='last': it is one of post, pre; pass one of these"):
        add_and_norm_backward(X, np.tanh, identity_backward, WEIGHT, X, order="last")
