"""The laws of the whole model: causality, padding, parallel = step by step, tied weights, variants, and each error."""

import numpy as np
import pytest

from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.shapes import ShapeError
from attnspec.reference.tied_weights import tied_gradients, tied_name, tied_part
from attnspec.reference.transformer import decode, encode, read, transformer
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import models

BOTH, TARGETS, ALL = ("both",), ("both", "decoder"), ("both", "decoder", "encoder")


def logits(model):
    return transformer(model.source, model.target, model.parameters, **model.arguments)


def real(model, side):
    ids = getattr(model, side)
    return model.masks.get(f"{side}_mask", np.ones(ids.shape, bool))


def read_side(model):
    return "source" if model.target is None else "target"


@given(models(kinds=TARGETS))
def test_future_tokens_change_nothing(model):
    # exact: the same shapes, and a hidden key has weight zero, whatever it says
    before = logits(model)
    for t in range(model.target.shape[1]):
        future = np.arange(model.target.shape[1]) > t
        changed = model._replace(target=np.where(future, (model.target + 1) % model.V, model.target))
        np.testing.assert_array_equal(logits(changed)[:, : t + 1], before[:, : t + 1])


@given(models(kinds=("encoder",)))
def test_the_same_property_catches_an_encoder_which_looks_ahead(model):
    # its positions see both sides: with another last word some state before it changes, unless nothing looks that far
    T = model.source.shape[1]
    model = model._replace(masks={}, options=model.options | {"window": None})
    changed = model.source.copy()
    changed[:, -1] = (changed[:, -1] + 1) % model.V
    table = model.parameters["source.embedding.weight"]
    if T > 1 and (table[changed[:, -1]] != table[model.source[:, -1]]).any():
        assert (logits(model)[:, :-1] != logits(model._replace(source=changed))[:, :-1]).any()


@given(models(kinds=TARGETS), max_examples=40)
def test_parallel_is_one_prefix_at_a_time(model):
    whole, mask = logits(model), model.masks.get("target_mask")
    for t in range(model.target.shape[1]):
        masks = model.masks | ({} if mask is None else {"target_mask": mask[:, : t + 1]})
        last = logits(model._replace(target=model.target[:, : t + 1], masks=masks))[:, -1]
        assert_close(last, whole[:, t], terms=1000)


@given(models(kinds=ALL))
def test_what_stands_at_padding_changes_nothing(model):
    changed = {}
    for side in ("source", "target"):
        ids = getattr(model, side)
        changed[side] = ids if ids is None else np.where(real(model, side), ids, (ids + 1) % model.V)
    kept = real(model, read_side(model))
    np.testing.assert_array_equal(logits(model._replace(**changed))[kept], logits(model)[kept])


@given(models(kinds=ALL), max_examples=40)
def test_each_sequence_of_a_batch_is_as_if_alone_and_without_padding(model):
    # padding stands anywhere: at the left, at the right, in between
    whole, side = logits(model), read_side(model)
    for row in range(whole.shape[0]):
        got = logits(model.alone(row))[0]
        assert_close(got, whole[row][real(model, side)[row]], terms=1000)


@given(models(kinds=BOTH))
def test_the_encoder_does_not_know_the_decoder(model):
    memory, state = read(model.source, model.target, model.parameters, **model.arguments)
    source_part = {n: a for n, a in model.parameters.items() if n.startswith(("source", "encoder"))}
    if "source.embedding.weight" in source_part:
        alone = encode(model.source, source_part, model.masks.get("source_mask"), **model.options)
        np.testing.assert_array_equal(memory, alone)
    masks = model.masks.get("target_mask"), model.masks.get("source_mask")
    np.testing.assert_array_equal(decode(model.target, memory, model.parameters, *masks, **model.options), state)


@given(models(kinds=BOTH))
def test_the_order_of_the_memory_does_not_matter(model):
    mask = real(model, "source")
    memory = encode(model.source, model.parameters, mask, **model.options)
    of_target = model.masks.get("target_mask")
    want = decode(model.target, memory, model.parameters, of_target, mask, **model.options)
    got = decode(model.target, memory[:, ::-1], model.parameters, of_target, mask[:, ::-1], **model.options)
    assert_close(got, want, terms=1000)


@given(models(kinds=ALL))
def test_renaming_the_words_renames_the_logits(model):
    order = np.random.default_rng(4).permutation(model.V)
    rows = {n: a[order] for n, a in model.parameters.items() if n.endswith("embedding.weight") or n.startswith("output")}
    renamed = np.argsort(order)
    ids = {s: None if getattr(model, s) is None else renamed[getattr(model, s)] for s in ("source", "target")}
    got = logits(model._replace(parameters=model.parameters | rows, **ids))
    np.testing.assert_array_equal(got, logits(model)[..., order])


@given(models(kinds=ALL))
def test_tied_weights_are_copies(model):
    name = tied_name(model.parameters, "output.weight")
    untied = model._replace(parameters=model.parameters | {"output.weight": model.parameters[name]})
    np.testing.assert_array_equal(logits(untied), logits(model))


@given(models(kinds=ALL))
def test_inputs_are_not_changed(model):
    copies = {name: array.copy() for name, array in model.parameters.items()}
    logits(model)
    for name, array in copies.items():
        np.testing.assert_array_equal(model.parameters[name], array)


def test_known_answer():
    # no layers, no positions, words 0 and 1 as unit vectors of length sqrt(2), tied: logits are scaled inner products
    parameters = {"target.embedding.weight": np.array([[1.0, 0.0], [0.0, 1.0]]), "output.bias": np.array([0.0, 10.0])}
    got = transformer(None, np.array([[0, 1]]), parameters, heads=1, positions=None)
    want = np.array([[[np.sqrt(2), 10.0], [0.0, 10 + np.sqrt(2)]]])
    np.testing.assert_array_equal(got, want)
    bare = transformer(None, np.array([[0, 1]]), parameters, heads=1, positions=None, scale_embeddings=False)
    assert bare.tolist() == [[[1.0, 10.0], [0.0, 11.0]]]


def test_names_of_tied_weights():
    source, target, output = "source.embedding.weight", "target.embedding.weight", "output.weight"
    table = np.ones((2, 3))
    assert tied_name({source: table}, output) == source
    assert tied_name({source: table, target: table}, output) == target
    assert tied_name({source: table, output: table}, output) == output
    assert tied_name({}, target) == source
    assert tied_part({"output.bias": table}, "output", "weight").keys() == {"bias"}
    gradients = {"weight": table, "bias": table[0]}
    assert tied_gradients({source: table}, "output", "weight", gradients).keys() == {source, "output.bias"}


def test_no_tokens():
    parameters = {"target.embedding.weight": np.ones((3, 2))}
    assert transformer(None, np.zeros((2, 0), int), parameters, heads=1).shape == (2, 0, 3)
    assert transformer(None, np.zeros((0, 4), int), parameters, heads=1).shape == (0, 4, 3)


IDS = np.array([[0, 1]])
TABLE = {"target.embedding.weight": np.ones((3, 2))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transformer(None, None, TABLE, heads=1), ValueError,
         "source=None, target=None: a model reads a source, a target or both; pass one"),
        (lambda: transformer(None, IDS, TABLE | {"encoder.norm.weight": np.ones(2)}, heads=1), ValueError,
         "parameters=['encoder', 'target']: missing [], unknown ['encoder']"),
        (lambda: transformer(None, IDS, {}, heads=1), ValueError,
         "parameters=[]: missing ['embedding'], unknown []; pass embedding"),
        (lambda: transformer(None, IDS, TABLE, heads=1, positions="learned"), ValueError,
         "parameters=['embedding']: missing ['position'], unknown []"),
        (lambda: transformer(None, IDS + 2, TABLE, heads=1), ValueError, "ids=3 at (0, 1): ids lie in 0..V-1"),
        (lambda: transformer(None, IDS[0], TABLE, heads=1), ShapeError, "target.shape=(2,): target has the 2 axes [B,T]"),
        (lambda: encode(IDS[0], TABLE, heads=1), ShapeError, "source.shape=(2,): source has the 2 axes [B,S]"),
        (lambda: transformer(None, IDS, TABLE, target_mask=np.ones((1, 2)), heads=1), TypeError,
         "target_mask.dtype=float64: it is boolean, True = real token"),
        (lambda: transformer(None, IDS, TABLE, target_mask=np.ones((1, 3), bool), heads=1), ValueError,
         "target_mask.shape=(1, 3): it has one entry for each token; pass the shape (1, 2)"),
        (lambda: transformer(None, IDS, TABLE, heads=1, positions="rope"), ValueError,
         "positions='rope': it is one of sinusoidal, learned, rotary, alibi or None; pass one of these"),
        (lambda: transformer(None, IDS, TABLE, heads=1, window=0), ValueError,
         "window=0: it counts the current key, so it is at least 1"),
        (lambda: embed_tokens(IDS, IDS, {"embedding.weight": np.ones((3, 2)), "x.y": np.ones(2)}), ValueError,
         "parameters=['embedding', 'x']: missing [], unknown ['x']"),
        (lambda: transformer(None, IDS, TABLE, heads=1, oder="pre"), TypeError,
         "self_attention_options() got an unexpected keyword argument 'oder'"),
        (lambda: transformer(None, IDS, TABLE), TypeError,
         "self_attention_options() missing 1 required keyword-only argument: 'heads'"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
