"""The operators of ONNX without attention or state, translated to the reference: norms, softmax, GELU, loss, one-hot vectors.

ONNX' norms run over all axes from `axis` on; the reference's over the last one, so these axes are joined first. Their outputs
Mean and InvStdDev are intermediate results and are not compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attnspec.reference.activation import gelu, gelu_tanh
from attnspec.reference.cross_entropy import cross_entropy, token_losses
from attnspec.reference.layer_norm import layer_norm
from attnspec.reference.one_hot import one_hot
from attnspec.reference.rms_norm import rms_norm
from attnspec.reference.softmax import log_sum_exp, softmax
from tests.authorities.agreement import Draw, authority
from tests.authorities.onnx_vectors import Call, NotInReference, Vector, check_all, translates


@translates("LayerNormalization")
@translates("RMSNormalization")
def norm_calls(vector: Vector) -> list[Call]:
    """The normalised output."""
    x, attributes = vector.inputs["X"], vector.attributes
    lead = x.shape[: attributes.get("axis", -1) % x.ndim]
    names = {"W": "weight", "B": "bias"}
    parameters = {names[name]: array.reshape(-1) for name, array in vector.inputs.items() if name in names}
    function = layer_norm if vector.operator == "LayerNormalization" else rms_norm
    eps = attributes.get("epsilon", 1e-5)
    return [Call(vector.outputs["Y"].reshape(*lead, -1), function, (x.reshape(*lead, -1), parameters, eps))]


@translates("Softmax")
@translates("LogSoftmax")
def softmax_calls(vector: Vector) -> list[Call]:
    """Weights, or their logarithms."""
    function = softmax if vector.operator == "Softmax" else log_softmax
    return [Call(vector.outputs["y"], function, (vector.inputs["x"], vector.attributes.get("axis", -1)))]


def log_softmax(x: Any, axis: int) -> Any:
    """The logarithm of softmax, with the normaliser of the reference."""
    return x - np.expand_dims(log_sum_exp(x, axis), axis)


@translates("Gelu")
def gelu_calls(vector: Vector) -> list[Call]:
    """Both forms."""
    function = gelu_tanh if vector.attributes.get("approximate") == b"tanh" else gelu
    return [Call(vector.outputs["y"], function, (vector.inputs["x"],))]


@translates("SoftmaxCrossEntropyLoss")
def loss_calls(vector: Vector) -> list[Call]:
    """The loss, and the logarithms of all probabilities where they are an output too; ONNX has the classes in axis 1."""
    given, attributes = vector.inputs, vector.attributes
    logits = np.moveaxis(given["x"], 1, -1)
    options = {"padding_id": attributes.get("ignore_index")}
    reduction = attributes.get("reduction", b"mean")
    if reduction == b"mean" and "w" not in given:
        calls = [Call(vector.outputs["z"], cross_entropy, (logits, given["y"]), options)]
    else:
        arguments = (logits, given["y"], given.get("w"), reduction)
        calls = [Call(vector.outputs["z"], weighted_loss, arguments, options)]
    if "log_prob" in vector.outputs:
        calls.append(Call(np.moveaxis(vector.outputs["log_prob"], 1, -1), log_probabilities, (logits,)))
    return calls


def weighted_loss(logits: Any, targets: Any, class_weights: Any, reduction: bytes, padding_id: int | None) -> Any:
    """token_losses, each with the weight of its class, and their sum or weighted mean."""
    losses = token_losses(logits, targets, padding_id)
    if class_weights is not None:
        real = targets != padding_id
        weights = np.where(real, class_weights[np.where(real, targets, 0)], 0.0)
        losses = losses * weights
        if reduction == b"mean":
            return np.sum(losses) / np.sum(weights)
    return losses if reduction == b"none" else np.sum(losses)


def log_probabilities(logits: Any) -> Any:
    """token_losses of every class in turn, as if it were the target."""
    return np.stack([-token_losses(logits, np.full(logits.shape[:-1], v)) for v in range(logits.shape[-1])], axis=-1)


@translates("OneHot")
def one_hot_calls(vector: Vector) -> list[Call]:
    """Where the on-value stands."""
    given, V = vector.inputs, int(vector.inputs["depth"])
    ids = given["indices"].astype(np.int64)
    if np.any((ids < -V) | (ids >= V)):
        raise NotInReference("ids outside the vocabulary: an error in the reference, a row without a one in ONNX")
    hot = np.moveaxis(vector.outputs["y"], vector.attributes.get("axis", -1), -1) == given["values"][1]
    return [Call(hot.astype(np.float64), one_hot, (ids % V, V))]  # ONNX counts negative ids from the end


@authority("I28", "ONNX LayerNormalization, node vectors", of=(layer_norm,), examples=1)
def onnx_layer_norm(_: Draw) -> None:
    """One to four axes joined, epsilon 1e-5 and 0.1."""
    check_all("LayerNormalization")


@authority("I28", "ONNX RMSNormalization, node vectors", of=(rms_norm,), examples=1)
def onnx_rms_norm(_: Draw) -> None:
    """One to four axes joined, epsilon 1e-5 and 0.1."""
    check_all("RMSNormalization")


@authority("I28", "ONNX Gelu, node vectors", of=(gelu, gelu_tanh), examples=1)
def onnx_gelu(_: Draw) -> None:
    """Both forms."""
    check_all("Gelu")


@authority("I18", "ONNX Softmax and LogSoftmax, node vectors", of=(softmax, log_sum_exp), examples=1)
def onnx_softmax(_: Draw) -> None:
    """Each axis, and scores of 10,000."""
    check_all("Softmax")
    check_all("LogSoftmax")


@authority("I07", "ONNX SoftmaxCrossEntropyLoss, node vectors", of=(cross_entropy, token_losses), examples=1)
def onnx_cross_entropy(_: Draw) -> None:
    """Each token, sum and mean; ignored tokens, weights of classes; the logarithms of all probabilities."""
    check_all("SoftmaxCrossEntropyLoss")
