"""Categorical cross-entropy: how surprising the right tokens are to the model, step by step and on average."""

import numpy as np

from attnspec.reference.one_hot import one_hot
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, ShapeError
from attnspec.reference.softmax import log_sum_exp, softmax
from attnspec.reference.vocabulary import check_ids


def token_losses(logits: FloatArray, targets: IntArray, padding_id: int | None = None, smoothing: float = 0.0) -> FloatArray:
    """Measures how surprising each token is.

        loss[b, t] = -sum_v q[b, t, v] log p[b, t, v],  p = softmax(logits)              (1)
        q[b, t, v] = (1 - smoothing) [v = targets[b, t]] + smoothing / V                 (2)
        loss[b, t] = 0 where targets[b, t] = padding_id                                  (3)

    Shapes:  logits [...,V], as [B,T,V]  targets [...] -> [...].
    Units:   natural-log units. Logits are finite; -inf, a word ruled out, is allowed where smoothing is 0.
    Empty:   no tokens give an empty array.
    Errors:  ShapeError if targets do not fit logits or V = 0; ValueError if a target other than padding_id is out of
             range or smoothing outside [0, 1]; TypeError if targets are not integers.
    Source:  arXiv:1512.00567 sec. 7 with u(v) = 1/V for (2); arXiv:1706.03762 sec. 5.4.
    Differs: the papers have no padding. padding_id may lie outside 0..V-1, as torch's -100 does.
    """
    logits = np.asarray(logits, dtype=np.float64)
    words, real = _checked(logits, targets, padding_id, smoothing)
    lse = log_sum_exp(logits)
    loss = lse - np.take_along_axis(logits, words[..., None], axis=-1)[..., 0]
    if smoothing != 0:  # else a logit of -inf would make 0 * inf
        loss = (1 - smoothing) * loss + smoothing * np.mean(lse[..., None] - logits, axis=-1)
    return np.where(real, loss, 0.0)


def cross_entropy(logits: FloatArray, targets: IntArray, padding_id: int | None = None, smoothing: float = 0.0) -> FloatArray:
    """Averages the losses of the real tokens.

        out = 1/n sum_{b, t} loss[b, t],  n = number of real tokens                      (1)

    Shapes:  logits [...,V], as [B,T,V]  targets [...] -> a number, an array without axes.
    Units:   natural-log units per token.
    Empty:   no real token gives 0.
    Errors:  those of token_losses.
    Source:  the lecture notes, total and average loss; torch.nn.CrossEntropyLoss for padding (ignore_index).
    Differs: torch returns NaN without a real token.
    """
    _, real = _checked(logits, targets, padding_id, smoothing)
    return np.asarray(np.sum(token_losses(logits, targets, padding_id, smoothing)) / max(int(np.sum(real)), 1))


def cross_entropy_backward(
    logits: FloatArray, targets: IntArray, padding_id: int | None = None, smoothing: float = 0.0
) -> FloatArray:
    """Derives the mean loss by the logits.

        dlogits[b, t, v] = (p[b, t, v] - q[b, t, v]) / n,  p, q, n as above              (1)
        dlogits[b, t, v] = 0 where targets[b, t] = padding_id                            (2)

    Shapes:  logits [...,V], as [B,T,V]  targets [...] -> as logits.
    Units:   per unit of a logit. A loss with another factor before it has this gradient times the factor.
    Empty:   no real token gives zeros.
    Errors:  those of token_losses.
    Source:  arXiv:1512.00567 sec. 7: the gradient of (1) of token_losses is p - q.
    Differs: n/a.
    """
    logits = np.asarray(logits, dtype=np.float64)
    words, real = _checked(logits, targets, padding_id, smoothing)
    V = logits.shape[-1]
    q = (1 - smoothing) * one_hot(words, V) + smoothing / V
    return np.where(real[..., None], (softmax(logits) - q) / max(int(np.sum(real)), 1), 0.0)


def perplexity(logits: FloatArray, targets: IntArray, padding_id: int | None = None) -> FloatArray:
    """Says among how many equally likely words the model would be as unsure.

        perplexity = exp(cross_entropy)                                                  (1)

    Shapes:  logits [...,V], as [B,T,V]  targets [...] -> a number, an array without axes.
    Units:   words; V for a model that knows nothing, 1 for one that is always right and certain.
    Empty:   no real token gives 1.
    Errors:  those of token_losses.
    Source:  arXiv:1409.2329 sec. 4.1 reports it for words; the formula is the definition.
    Differs: n/a.
    """
    return np.asarray(np.exp(cross_entropy(logits, targets, padding_id)))


def _checked(logits: FloatArray, targets: IntArray, padding_id: int | None, smoothing: float) -> tuple[IntArray, BoolArray]:
    """The targets, with 0 in place of padding, and which of them are real."""
    shape, targets = np.asarray(logits).shape, np.asarray(targets)
    if shape[:-1] != targets.shape or shape[-1:] in ((), (0,)):
        rule = f"logits have a last axis of V > 0 words for each of the targets {targets.shape}"
        raise ShapeError(f"logits.shape={shape}: {rule}; pass logits [B,T,V] and targets [B,T]")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing={smoothing}: it is a share of the target, in [0, 1]; pass 0 for none")
    real = np.ones(targets.shape, dtype=np.bool_) if padding_id is None else targets != padding_id
    return check_ids("targets", np.where(real, targets, np.zeros_like(targets)), shape[-1]), real
