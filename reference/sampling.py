"""Sampling: how the next word is drawn, and how temperature, top-k and top-p make the draw less daring."""

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray, ShapeError
from attnspec.reference.softmax import softmax


def with_temperature(logits: FloatArray, temperature: float) -> FloatArray:
    """Divides the logits, so that the odds between any two words are raised to a power.

        out[v] = logits[v] / temperature                                                 (1)

    Shapes:  logits [...,V] -> the same shape.
    Units:   natural-log weights; 1 changes nothing, towards 0 the draw becomes greedy.
    Empty:   V may be zero.
    Errors:  ValueError if temperature is not positive.
    Source:  arXiv:1503.02531 eq. 1.
    Differs: n/a.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: it is positive; take the argmax instead of a temperature of 0")
    return np.asarray(logits, dtype=np.float64) / temperature


def top_k(logits: FloatArray, k: int) -> FloatArray:
    """Rules out all but the k most likely words.

        out[v] = logits[v] where logits[v] >= the k-th largest logit, else -inf          (1)

    Shapes:  logits [...,V] -> the same shape.
    Units:   natural-log weights. Words equal to the k-th stay too; k > V rules out nothing.
    Empty:   V may be zero.
    Errors:  ValueError if k < 1; numpy.exceptions.AxisError if logits have no axis.
    Source:  arXiv:1805.04833 sec. 5.4, generation: sampling from the k most likely words.
    Differs: the paper does not speak of equal words.
    """
    if k < 1:
        raise ValueError(f"k={k}: at least 1 word stays; pass k >= 1")
    logits = np.asarray(logits, dtype=np.float64)
    least = np.sort(logits, axis=-1)[..., -k:][..., :1]  # the last of the k that stay, of fewer if k > V
    return np.where(logits < least, -np.inf, logits)


def top_p(logits: FloatArray, p: float) -> FloatArray:
    """Rules out all but the nucleus: the fewest most likely words with a total probability of at least p.

        out[v] = logits[v] where total(v) > 1 - p, or v is the most likely word, else -inf     (1)
        total(v) = sum of softmax(logits)[w] over v and all words w that are less likely than v     (2)

    Shapes:  logits [...,V] -> the same shape.
    Units:   natural-log weights; p is a probability. Of equal words the lower id counts as more likely.
    Empty:   V may be zero.
    Errors:  ValueError if p is not in (0, 1]; numpy.exceptions.AxisError if logits have no axis.
    Source:  arXiv:1904.09751 sec. 3.1.
    Differs: (1) adds up the tail, so that p = 1 rules out nothing; the paper's sum of the head could round to 1 early.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p={p}: the share of the nucleus lies in (0, 1]; pass 1 to rule out nothing")
    logits = np.asarray(logits, dtype=np.float64)
    order = np.flip(np.argsort(-logits, axis=-1, kind="stable"), axis=-1)  # from the least likely word up
    totals = np.cumsum(np.take_along_axis(softmax(logits), order, axis=-1), axis=-1)
    inside = (totals > 1 - p) | (np.arange(logits.shape[-1]) == logits.shape[-1] - 1)
    return np.where(np.take_along_axis(inside, np.argsort(order, axis=-1), axis=-1), logits, -np.inf)


def draw(probabilities: FloatArray, u: FloatArray) -> IntArray:
    """Draws a word by a given random number.

        v = the first with probabilities[0] + .. + probabilities[v] > u                  (1)

    Shapes:  probabilities [...,V] with V >= 1  u [...] -> [...].
    Units:   u is uniform in [0, 1): then v is drawn with its probability, and never with a probability of 0.
    Empty:   no rows give no words.
    Errors:  ShapeError if u has not one number for each row, or V = 0; ValueError if u is not in [0, 1),
             or a row has a negative number or a sum of 0.
    Source:  Devroye, "Non-uniform random variate generation" (1986), sec. III.2: inversion.
    Differs: u is multiplied by the total, which rounding may leave unlike 1.
    """
    probabilities, u = np.asarray(probabilities, dtype=np.float64), np.asarray(u, dtype=np.float64)
    if probabilities.shape[:-1] != u.shape or probabilities.shape[-1:] in ((), (0,)):
        rule = "u has one number for each row of V >= 1 probabilities"
        raise ShapeError(f"probabilities.shape={probabilities.shape}, u.shape={u.shape}: {rule}; pass [...,V] and [...]")
    if not np.all((u >= 0) & (u < 1)):
        raise ValueError(f"u={u}: it lies in [0, 1); pass numbers as those of numpy's Generator.random")
    totals = np.cumsum(probabilities, axis=-1)
    if not (np.all(probabilities >= 0) and np.all(totals[..., -1] > 0)):
        rule = "each row has a positive sum of numbers that are at least 0"
        raise ValueError(f"probabilities={probabilities}: {rule}; pass a softmax of logits")
    return np.asarray(np.argmax(totals > u[..., None] * totals[..., -1:], axis=-1))
