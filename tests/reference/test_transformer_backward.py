"""The gradients of the whole model, by central differences, in every variant; and the laws they obey."""

import numpy as np
import pytest

from attnspec.reference.shapes import ShapeError
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.transformer import encode, transformer
from attnspec.reference.transformer_backward import decode_backward, encode_backward, transformer_backward
from tests.reference.closeness import UNIT, assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import Model, models

STEP = UNIT ** (1 / 3)  # rounding u/h and truncation h^2 are then both u^(2/3), which is u / step


def cotangent_for(model):
    shape = (*(model.source if model.target is None else model.target).shape, model.V)
    return np.random.default_rng(7).normal(size=shape)


def gradients_of(model, cotangent):
    return transformer_backward(model.source, model.target, model.parameters, cotangent, **model.arguments)


def change(model, cotangent, name, direction):
    """The central difference of the contracted logits along a direction of one parameter."""
    ahead, behind = (
        transformer(model.source, model.target, model.parameters | {name: model.parameters[name] + step}, **model.arguments)
        for step in (STEP * direction, -STEP * direction)
    )
    return np.sum((ahead - behind) * cotangent) / (2 * STEP)


@given(models(smooth=True), max_examples=40)
def test_agrees_with_central_differences_along_a_direction_of_every_parameter(model):
    cotangent, rng = cotangent_for(model), np.random.default_rng(3)
    gradients = gradients_of(model, cotangent)
    assert set(gradients) == set(model.parameters)
    for name, gradient in gradients.items():
        assert gradient.shape == model.parameters[name].shape
        direction = rng.normal(size=gradient.shape)
        terms = direction.size * (1 + np.max(np.abs(gradient), initial=0.0)) * 10 / STEP
        assert_close(np.sum(gradient * direction), change(model, cotangent, name, direction), terms=terms)


@given(models(smooth=True), max_examples=3)  # two forward passes for each of some hundred numbers
def test_the_gradient_of_the_loss_agrees_with_central_differences_in_every_entry(model):
    words = np.random.default_rng(5).integers(model.V, size=cotangent_for(model).shape[:2])

    def loss(parameters):
        arguments = model.arguments | {"padding_id": 0, "smoothing": 0.1}
        return loss_and_gradients(model.source, model.target, words, parameters, **arguments)

    for name, gradient in loss(model.parameters)[1].items():
        want = np.empty_like(gradient)
        for index in np.ndindex(gradient.shape):
            ahead, behind = model.parameters[name].copy(), model.parameters[name].copy()
            ahead[index] += STEP
            behind[index] -= STEP
            want[index] = (loss(model.parameters | {name: ahead})[0] - loss(model.parameters | {name: behind})[0]) / 2 / STEP
            assert_close(gradient[index], want[index], terms=100 / STEP)


def test_the_comparison_can_fail():
    # a gradient that forgets one of the two uses of a tied weight
    rng = np.random.default_rng(0)
    parameters = {"target.embedding.weight": rng.normal(size=(4, 2))}
    model = Model(None, np.array([[1, 2]]), parameters, {}, {"heads": 1, "positions": None}, 4)
    cotangent, direction = cotangent_for(model), rng.normal(size=(4, 2))
    want = change(model, cotangent, "target.embedding.weight", direction)
    assert_close(np.sum(gradients_of(model, cotangent)["target.embedding.weight"] * direction), want, terms=100 / STEP)
    untied = model._replace(parameters=parameters | {"output.weight": parameters["target.embedding.weight"]})
    halves = gradients_of(untied, cotangent)
    with pytest.raises(AssertionError, match="error"):
        assert_close(np.sum(halves["target.embedding.weight"] * direction), want, terms=100 / STEP)
    assert_close(sum(np.sum(half * direction) for half in halves.values()), want, terms=100 / STEP)


@given(models(kinds=("both",)), max_examples=30)
def test_tied_weights_have_the_sum_of_the_gradients_of_their_uses(model):
    table = next(model.parameters[f"{side}.embedding.weight"] for side in ("target", "source")
                 if f"{side}.embedding.weight" in model.parameters)  # fmt: skip
    tied = model._replace(parameters={n: a for n, a in model.parameters.items() if n != "output.weight"})
    tied.parameters.pop("target.embedding.weight", None)
    source = tied.parameters["source.embedding.weight"]
    untied = tied._replace(parameters=tied.parameters | {"target.embedding.weight": source, "output.weight": source})
    assert table.shape == source.shape
    cotangent = cotangent_for(model)
    got, parts = gradients_of(tied, cotangent), gradients_of(untied, cotangent)
    uses = [parts.pop(name) for name in ("source.embedding.weight", "target.embedding.weight", "output.weight")]
    assert_close(got.pop("source.embedding.weight"), sum(uses), terms=100 * (1 + np.max(np.abs(uses))))
    assert got.keys() == parts.keys()
    for name in got:
        np.testing.assert_array_equal(got[name], parts[name])


@given(models())
def test_padding_sends_no_gradient(model):
    # words that occur at padding only, where the loss does not look, have rows of exact zeros
    hole = model.V
    sides = {"source": model.source, "target": model.target}
    parameters, tokens = dict(model.parameters), {}
    for name in [name for name in parameters if name.endswith("embedding.weight") or name.startswith("output")]:
        parameters[name] = np.concatenate([parameters[name], np.zeros_like(parameters[name][:1])])
    for side, ids in sides.items():
        mask = model.masks.get(f"{side}_mask")
        tokens[side] = ids if ids is None or mask is None else np.where(mask, ids, hole)
    changed = model._replace(parameters=parameters, V=hole + 1, **tokens)
    read = "source" if model.target is None else "target"
    cotangent = (
        cotangent_for(changed) * np.asarray(model.masks.get(f"{read}_mask", np.ones(sides[read].shape, bool)))[..., None]
    )
    cotangent[..., hole] = 0
    for name, gradient in gradients_of(changed, cotangent).items():
        if name.endswith("embedding.weight"):
            assert (gradient[hole] == 0).all()


def test_a_cotangent_of_another_shape_is_refused():
    parameters = {"source.embedding.weight": np.ones((3, 2))}
    with pytest.raises(ShapeError, match=r"cotangent.shape=\(1, 1, 2\): it has the shape \(1, 1, 3\) of the output"):
        transformer_backward(np.array([[0]]), None, parameters, np.ones((1, 1, 2)), heads=1)


@given(models(kinds=("both",)))
def test_the_halves_are_those_of_the_whole(model):
    # with the memory given, the target's half has the gradients of the whole, and sends the source's half its cotangent
    mask, of_target = model.masks.get("source_mask"), model.masks.get("target_mask")
    memory = encode(model.source, model.parameters, mask, **model.options)
    cotangent = np.random.default_rng(8).normal(size=(*model.target.shape, memory.shape[-1]))
    dmemory, of_decoder = decode_backward(model.target, memory, model.parameters, cotangent, of_target, mask, **model.options)
    assert dmemory.shape == memory.shape
    hidden = np.zeros(model.source.shape, bool) if mask is None else ~mask
    assert (dmemory[hidden] == 0).all()
    of_encoder = encode_backward(model.source, model.parameters, dmemory, mask, **model.options)
    shared = {"source.embedding.weight"} if "target.embedding.weight" not in model.parameters else set()
    assert of_decoder.keys() & of_encoder.keys() == shared
