"""Training: the steps are torch's on the same weights, and they reduce the loss."""

import numpy as np
import pytest
import torch

from attnspec.reference.adam import adam
from attnspec.reference.cross_entropy import cross_entropy, cross_entropy_backward
from attnspec.reference.sgd import sgd
from attnspec.reference.teacher_forcing import shift_right
from attnspec.reference.training_step import loss_and_gradients, training_step
from attnspec.reference.transformer import transformer
from attnspec.reference.transformer_backward import transformer_backward
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import models

torch.set_num_threads(1)
M, V = 4, 6
SOURCE, WORDS = np.array([[1, 2, 3, 0], [4, 5, 1, 2]]), np.array([[3, 2, 5, 0], [2, 1, 4, 5]])  # 0 is padding, 5 ends


def torch_model():
    torch.manual_seed(0)
    wide = {"dtype": torch.float64}
    inner = torch.nn.Transformer(M, 2, 1, 1, 8, dropout=0.0, activation="gelu", batch_first=True, **wide)
    inner.encoder.enable_nested_tensor = False
    return torch.nn.ModuleDict({
        "source": torch.nn.Embedding(V, M, **wide), "target": torch.nn.Embedding(V, M, **wide), "inner": inner,
        "output": torch.nn.Linear(M, V, **wide),
    })  # fmt: skip


def torch_logits(model):
    hidden = torch.tensor(SOURCE == 0)
    x, y = model["source"](torch.tensor(SOURCE)), model["target"](torch.tensor(shift_right(WORDS, 0)))
    future = torch.triu(torch.ones(4, 4, dtype=torch.bool), diagonal=1)
    state = model["inner"](
        x, y, tgt_mask=future, src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        tgt_key_padding_mask=torch.tensor(WORDS == 0),
    )  # fmt: skip
    return model["output"](state)


def parameters_of(model):
    """Under the names of the reference."""
    out = {"source.embedding.weight": model["source"].weight, "target.embedding.weight": model["target"].weight}
    out |= {f"output.{name}": one for name, one in model["output"].named_parameters()}
    words = {"self_attn": "attention", "multihead_attn": "cross", "linear1": "feed_forward.up",
             "linear2": "feed_forward.down", "out_proj": "o", "layers.": ""}  # fmt: skip
    for name, one in model["inner"].named_parameters():
        norms = ["attention_norm", "feed_forward_norm"] if name.startswith("enc") else ["attention_norm", "cross_norm",
                                                                                        "feed_forward_norm"]  # fmt: skip
        for theirs, ours in (words | {f"norm{i + 1}": norm for i, norm in enumerate(norms)}).items():
            name = name.replace(theirs, ours)
        if "in_proj_" in name:
            out |= {name.replace("in_proj_", f"{letter}."): part for letter, part in zip("qkv", one.chunk(3), strict=True)}
        else:
            out[name] = one
    return {name: one.detach().numpy().copy() for name, one in out.items()}


OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda w, g, v: sgd(w, g, v, rate=0.1, momentum=0.9), {}),
    "adam": (
        lambda p: torch.optim.Adam(p, lr=0.05),
        lambda w, g, s: (lambda new, mean, square: (new, (mean, square, s[2] + 1)))(*adam(w, g, *s, rate=0.05)),
        ({}, {}, 1),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_are_those_of_torch(name):
    theirs, ours, state = OPTIMIZERS[name]
    model = torch_model()
    parameters, optimizer = parameters_of(model), theirs(model.parameters())
    options = {"heads": 2, "activation": "gelu", "positions": None, "scale_embeddings": False}
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(torch_logits(model).mT, torch.tensor(WORDS), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        got, parameters, state = training_step(
            SOURCE, WORDS, parameters, state, ours, start_id=0, padding_id=0, **options
        )  # fmt: skip
        assert_close(got, loss.item(), terms=1000)
    want = parameters_of(model)
    assert parameters.keys() == want.keys()
    for key, array in parameters.items():
        # Adam divides by the root of the gradient's square, so that it makes relative errors of small gradients absolute
        assert_close(array, want[key], terms=1e3 if name == "sgd" else 1e6)


@given(models(kinds=("both", "decoder")), max_examples=20)
def test_a_short_enough_step_reduces_the_loss(model):
    words = np.random.default_rng(6).integers(1, model.V, size=model.target.shape)
    short = lambda w, g, v: sgd(w, g, v, rate=1e-6)  # noqa: E731
    arguments = {"start_id": 0, "padding_id": 0, **model.options}
    first, parameters, _ = training_step(model.source, words, model.parameters, {}, short, **arguments)
    second, _, _ = training_step(model.source, words, parameters, {}, short, **arguments)
    assert second < first


def test_training_learns_a_sentence_by_heart():
    parameters = parameters_of(torch_model())
    options = {"heads": 2, "activation": "gelu", "start_id": 0, "padding_id": 0}
    _, update, state = OPTIMIZERS["adam"]
    losses = []
    for _ in range(60):
        loss, parameters, state = training_step(SOURCE, WORDS, parameters, state, update, **options)
        losses.append(loss)
    assert losses[-1] < 0.1 * losses[0]
    best = np.argmax(
        transformer(SOURCE, shift_right(WORDS, 0), parameters, heads=2, activation="gelu", source_mask=SOURCE != 0,
                    target_mask=WORDS != 0), axis=-1,
    )  # fmt: skip
    np.testing.assert_array_equal(best[WORDS != 0], WORDS[WORDS != 0])


@given(models(), max_examples=20)
def test_the_loss_is_the_mean_over_real_words(model):
    tokens = model.source if model.target is None else model.target
    words = np.random.default_rng(6).integers(model.V, size=tokens.shape)
    loss, _ = loss_and_gradients(model.source, model.target, words, model.parameters, padding_id=0, **model.arguments)
    logits = transformer(model.source, model.target, model.parameters, **model.arguments)
    np.testing.assert_array_equal(loss, cross_entropy(logits, words, 0))


def test_smoothing_reaches_the_loss_and_the_gradients():
    parameters = {"target.embedding.weight": np.random.default_rng(0).normal(size=(V, M))}
    loss, gradients = loss_and_gradients(None, WORDS, WORDS, parameters, padding_id=0, smoothing=0.5, heads=1)
    logits = transformer(None, WORDS, parameters, heads=1)
    np.testing.assert_array_equal(loss, cross_entropy(logits, WORDS, 0, 0.5))
    want = transformer_backward(None, WORDS, parameters, cross_entropy_backward(logits, WORDS, 0, 0.5), heads=1)
    np.testing.assert_array_equal(gradients["target.embedding.weight"], want["target.embedding.weight"])


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_a_step_hides_padding_on_either_side(smoothing):
    # padding at the left is before real words: without a mask they would attend to it, and count it as a position
    parameters, options = parameters_of(torch_model()), {"heads": 2, "padding_id": 0, "smoothing": smoothing}
    for source, words in ((SOURCE, WORDS), (SOURCE[:, ::-1], WORDS[:, ::-1])):
        loss, got, _ = training_step(source, words, parameters, None, lambda _, g, s: (g, s), start_id=3, **options)
        hidden = {"source_mask": source != 0, "target_mask": words != 0}
        want = loss_and_gradients(source, shift_right(words, 3), words, parameters, **hidden, **options)
        assert loss == want[0]
        for name, gradient in want[1].items():
            np.testing.assert_array_equal(got[name], gradient)


def test_without_padding_and_without_a_source():
    parameters = {"target.embedding.weight": np.random.default_rng(0).normal(size=(V, M))}
    loss, gradients, state = training_step(None, WORDS, parameters, "kept", lambda _, g, s: (g, s), start_id=0, heads=1)
    want, same = loss_and_gradients(None, shift_right(WORDS, 0), WORDS, parameters, heads=1)
    assert (loss, state) == (want, "kept")
    np.testing.assert_array_equal(gradients["target.embedding.weight"], same["target.embedding.weight"])
