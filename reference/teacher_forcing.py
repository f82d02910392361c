"""Teacher forcing: in training the model reads the correct previous word, whatever it would have said itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnspec.reference.cross_entropy import token_losses
from attnspec.reference.dtypes import check_booleans, check_integers
from attnspec.reference.greedy_search import Step, next_logits
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray, ShapeError, check_rank


def padded_targets(sentences: Sequence[IntArray], end_id: int, padding_id: int) -> IntArray:
    """Writes sentences as targets: each ends with the end symbol, and all are padded to one length.

        targets[b] = (y[b, 0], .., y[b, n_b - 1], end_id, padding_id, ..)                (1)

    Shapes:  sentences of n_b ids each -> [B,T] with T = 1 + max n_b.
    Units:   ids.
    Empty:   an empty sentence is end_id alone.
    Errors:  ValueError if there is no sentence; TypeError if ids are not integers.
    Source:  arXiv:1409.3215 sec. 2: each sentence ends with a special end-of-sentence symbol.
    Differs: the paper has no padding.
    """
    if len(sentences) == 0:
        raise ValueError(f"sentences={sentences!r}: a batch has a sentence; pass at least one")
    T = 1 + max(len(sentence) for sentence in sentences)
    targets = [[*sentence, end_id, *[padding_id] * (T - 1 - len(sentence))] for sentence in sentences]
    return check_integers("sentences", np.array(targets), "ids are integers")


def shift_right(targets: IntArray, start_id: int) -> IntArray:
    """Gives the decoder's inputs: the targets, one step late.

        inputs[b, 0] = start_id,  inputs[b, t] = targets[b, t - 1]                       (1)

    Shapes:  targets [B,T] -> [B,T].
    Units:   ids.
    Empty:   T = 0 stays empty.
    Errors:  ShapeError if targets has not two axes; TypeError if targets are not integers.
    Source:  arXiv:1706.03762 sec. 3.1: "the output embeddings are offset by one position".
    Differs: n/a.
    """
    targets = check_integers("targets", targets, "ids are integers")
    check_rank("targets", targets, "BT")
    T = targets.shape[1]
    return np.concatenate([np.full((targets.shape[0], 1), start_id), targets], axis=1)[:, :T]


def teacher_forced_logits(
    step: Step, state: Any, targets: IntArray, start_id: int, forced: BoolArray | None = None
) -> FloatArray:
    """Runs the model along the correct words, one at a time; or, where not forced, along its own.

        logits[b, t], state = step(x[b, t], state),  x = shift_right(targets)            (1)
        x[b, t] = argmax_v logits[b, t - 1, v] where t > 0 and forced[b, t] is False     (2)

    Shapes:  targets, forced [B,T] with T >= 1 -> [B,T,V].
    Units:   natural-log weights.
    Empty:   forced is None: all words are forced.
    Errors:  ShapeError if T = 0, forced has not the shape of targets, or step does not give [B,V]; TypeError if targets
             are not integers or forced is not boolean.
    Source:  the lecture notes, teacher forcing; arXiv:1506.03099 sec. 2.4 for (2), scheduled sampling.
    Differs: the second paper draws forced at random and also samples x; here both are given, with argmax for x.
    """
    inputs = shift_right(targets, start_id)
    forced = np.ones(inputs.shape, dtype=np.bool_) if forced is None else forced
    forced = check_booleans("forced", forced, "the right word", "pass forced.astype(bool)")
    if inputs.shape[1] == 0 or forced.shape != inputs.shape:
        rule = "T >= 1, and forced has one entry for each target"
        raise ShapeError(f"targets.shape={inputs.shape}, forced.shape={forced.shape}: {rule}; pass both as [B,T]")
    rows: list[FloatArray] = []
    for t in range(inputs.shape[1]):
        said = np.argmax(rows[-1], axis=-1) if rows else inputs[:, 0]
        logits, state = next_logits(step, np.where(forced[:, t], inputs[:, t], said), state)
        rows.append(logits)
    return np.stack(rows, axis=1)


def log_probability(step: Step, state: Any, tokens: IntArray, start_id: int, end_id: int) -> FloatArray:
    """Scores sentences: the logarithm of the probability that the model writes them.

        out[b] = sum_t log p(tokens[b, t] | tokens[b, :t]),  t up to the first end_id    (1)

    Shapes:  tokens [B,T] with T >= 1 -> [B].
    Units:   natural logarithm.
    Empty:   what follows the first end_id counts as 0.
    Errors:  those of teacher_forced_logits; ValueError if a token is out of range.
    Source:  arXiv:1409.3215 eq. 1.
    Differs: n/a.
    """
    losses = token_losses(teacher_forced_logits(step, state, tokens, start_id), tokens)
    ends = np.cumsum(np.asarray(tokens) == end_id, axis=1)
    counted = shift_right(ends, 0) == 0
    out: FloatArray = np.sum(np.where(counted, -losses, 0.0), axis=1)
    return out
