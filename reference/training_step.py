"""One step of training, whole: forward, loss, backward, update."""

from collections.abc import Callable
from typing import TypeVar, Unpack

import numpy as np

from attnspec.reference.cross_entropy import cross_entropy, cross_entropy_backward
from attnspec.reference.parameters import Gradients, Parameters
from attnspec.reference.shapes import BoolArray, FloatArray, IntArray
from attnspec.reference.teacher_forcing import shift_right
from attnspec.reference.transformer import transformer
from attnspec.reference.transformer_backward import transformer_backward
from attnspec.reference.transformer_options import TransformerOptions

State = TypeVar("State")


def loss_and_gradients(
    source: IntArray | None, target: IntArray | None, words: IntArray, parameters: Parameters, *,
    padding_id: int | None = None, smoothing: float = 0.0, source_mask: BoolArray | None = None,
    target_mask: BoolArray | None = None, **options: Unpack[TransformerOptions],
) -> tuple[FloatArray, Gradients]:  # fmt: skip
    """Measures how surprised a Transformer is by the right words, and how each parameter changes that.

        loss = cross_entropy(logits, words),  logits = transformer(source, target)       (1)
        gradients = transformer_backward(source, target, dlogits),  dlogits = cross_entropy_backward(logits, words)     (2)

    Shapes:  source, target and masks as in transformer  words [B,T], or [B,S] without a target -> a number, and the
             gradients under the parameters' names and shapes.
    Units:   loss in natural logarithms per real word, which are those other than padding_id; gradients per unit of the
             parameter.
    Empty:   no real word gives a loss of zero and gradients of zero.
    Errors:  those of transformer and cross_entropy.
    Source:  arXiv:1706.03762 sec. 5; the lecture notes, categorical cross-entropy and backpropagation.
    Differs: without dropout.
    """
    logits = transformer(source, target, parameters, source_mask=source_mask, target_mask=target_mask, **options)
    dlogits = cross_entropy_backward(logits, words, padding_id, smoothing)
    gradients = transformer_backward(
        source, target, parameters, dlogits, source_mask=source_mask, target_mask=target_mask, **options
    )
    return cross_entropy(logits, words, padding_id, smoothing), gradients


def training_step(
    source: IntArray | None, words: IntArray, parameters: Parameters, state: State,
    optimizer: Callable[[Parameters, Gradients, State], tuple[Gradients, State]], *,
    start_id: int, padding_id: int | None = None, smoothing: float = 0.0, **options: Unpack[TransformerOptions],
) -> tuple[FloatArray, Gradients, State]:  # fmt: skip
    """Takes one step: all words of the batch are predicted in parallel from the right words before them.

        loss, gradients = loss_and_gradients(source, shift_right(words, start_id), words)     (1)
        parameters', state' = optimizer(parameters, gradients, state)                    (2)

    Shapes:  source [B,S], or None for a language model  words [B,T] -> the loss before the step, new parameters, new state.
    Units:   ids; optimizer is as lambda w, g, v: sgd(w, g, v, rate=0.1), with an empty state at first.
    Empty:   as in loss_and_gradients.
    Errors:  those of shift_right, loss_and_gradients and the optimizer.
    Source:  arXiv:1706.03762 sec. 3.1 for the shift, sec. 5.3; the lecture notes, training loop.
    Differs: without dropout. A word is real if it is not padding_id, and its input is real if it is.
    """
    source_mask = None if source is None or padding_id is None else np.asarray(source) != padding_id
    target_mask = None if padding_id is None else np.asarray(words) != padding_id
    loss, gradients = loss_and_gradients(
        source, shift_right(words, start_id), words, parameters, padding_id=padding_id, smoothing=smoothing,
        source_mask=source_mask, target_mask=target_mask, **options,
    )  # fmt: skip
    new_parameters, new_state = optimizer(parameters, gradients, state)
    return loss, new_parameters, new_state
