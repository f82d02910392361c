"""Layers and stacks on both sides: what their parts do, that layers compose, and each error."""

import numpy as np
import pytest

from attnspec.reference.cached_layer import cached_layer, keys_values, look_up
from attnspec.reference.decoder import decoder, decoder_layer
from attnspec.reference.decoder_backward import decoder_backward, decoder_layer_backward
from attnspec.reference.encoder import encoder, encoder_layer
from attnspec.reference.encoder_backward import encoder_backward, encoder_layer_backward
from attnspec.reference.layer_norm import layer_norm
from attnspec.reference.layers import check_parts, layers
from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.parameters import part
from attnspec.reference.residual import add_and_norm, add_and_norm_backward, normalise, normalise_backward
from attnspec.reference.shapes import ShapeError
from attnspec.reference.sublayers import cross_attention_sublayer, feed_forward_sublayer, self_attention_sublayer
from attnspec.reference.sublayers_backward import (
    cross_attention_sublayer_backward,
    feed_forward_sublayer_backward,
    self_attention_sublayer_backward,
)
from attnspec.reference.token_position import cross_attention_options, real_tokens, self_attention_options, token_positions
from attnspec.reference.transformer_options import split_embedding_options, split_options
from tests.reference.closeness import assert_close
from tests.reference.drawn import given
from tests.reference.drawn_models import models

RNG = np.random.default_rng(0)
X, MEMORY = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))


def parameters(order="post", cross=False, seed=1):
    rng, heads = np.random.default_rng(seed), {f"{name}.weight": (4, 4) for name in "qkvo"}
    shapes = {f"{name}.{key}": size for name in ("attention", "cross") for key, size in heads.items()}
    shapes |= {"feed_forward.up.weight": (3, 4), "feed_forward.down.weight": (4, 3)}
    shapes |= {f"{name}_norm.{key}": (4,) for name in ("attention", "cross", "feed_forward") for key in ("weight", "bias")}
    return {name: rng.normal(size=size) for name, size in shapes.items() if cross or not name.startswith("cross")}


PARAMETERS = parameters()


@pytest.mark.parametrize("cross", [False, True])
def test_zeroed_sublayers_leave_the_identity_or_the_norms(cross):
    p = parameters(cross=cross)
    zero = {name: np.zeros_like(a) for name, a in p.items() if name.endswith(("o.weight", "down.weight"))}
    how = {"heads": 2}, {"heads": 2}
    arguments = (X, MEMORY if cross else None, p | zero, *how)
    np.testing.assert_array_equal(decoder_layer(*arguments, order="pre"), X)
    want = layer_norm(X, part(p, "attention_norm"))
    want = layer_norm(want, part(p, "cross_norm")) if cross else want
    np.testing.assert_array_equal(decoder_layer(*arguments), layer_norm(want, part(p, "feed_forward_norm")))


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_layer_is_its_sublayers(order):
    p, how, cross = parameters(cross=True), {"heads": 2, "causal": "top-left"}, {"heads": 2}
    y = self_attention_sublayer(X, p, how, order=order)
    z = cross_attention_sublayer(y, MEMORY, p, cross, order=order)
    want = feed_forward_sublayer(z, p, "gelu", order=order)
    got = decoder_layer(X, MEMORY, p, how, cross, order=order, activation="gelu")
    np.testing.assert_array_equal(got, want)


def test_the_feed_forward_sublayer_works_on_each_token_alone():
    p = parameters()
    np.testing.assert_array_equal(feed_forward_sublayer(X[:, ::-1], p), feed_forward_sublayer(X, p)[:, ::-1])


@pytest.mark.parametrize("order", ["post", "pre"])
def test_layers_compose(order):
    first, second = parameters(seed=1), parameters(seed=2)
    stacked = {f"0.{n}": a for n, a in first.items()} | {f"1.{n}": a for n, a in second.items()}
    one, other = ({f"0.{n}": a for n, a in layer.items()} for layer in (first, second))
    norm = {"norm.weight": np.ones(4), "norm.bias": np.zeros(4)}
    for stack, more in ((encoder, ()), (decoder, (None,))):
        whole = stack(X, *more, stacked | norm, heads=2, order=order)
        halves = stack(stack(X, *more, one, heads=2, order=order), *more, other | norm, heads=2, order=order)
        np.testing.assert_array_equal(whole, halves)
        assert_close(np.mean(whole, axis=-1), np.zeros((2, 3)), terms=10)
    np.testing.assert_array_equal(encoder(X, {}, heads=2), X)


def test_without_layers_the_memory_has_no_gradient():
    dx, dmemory, gradients = decoder_backward(X, MEMORY, {}, X, heads=2)
    np.testing.assert_array_equal(dx, X)
    assert (dmemory == np.zeros_like(MEMORY)).all()
    assert gradients == {}
    assert encoder_backward(X, {}, X, heads=2)[1] == {}


def test_without_a_memory_there_is_no_gradient_of_it():
    assert decoder_backward(X, None, {}, X, heads=2)[1] is None
    layer = {f"0.{name}": array for name, array in parameters().items()}
    dx, dmemory, gradients = decoder_backward(X, None, layer, X, heads=2)
    assert dmemory is None
    assert (dx.shape, gradients.keys()) == (X.shape, layer.keys())


@pytest.mark.parametrize("order", ["post", "pre"])
def test_gradients_of_layers_go_through_their_sublayers(order):
    p, how, cross, do = parameters(cross=True), {"heads": 2, "causal": "top-left"}, {"heads": 2}, RNG.normal(size=X.shape)
    y = self_attention_sublayer(X, p, how, order=order)
    z = cross_attention_sublayer(y, MEMORY, p, cross, order=order)
    dz, of_feed = feed_forward_sublayer_backward(z, p, do, order=order)
    dy, dmemory, of_cross = cross_attention_sublayer_backward(y, MEMORY, p, dz, cross, order=order)
    dx, of_attention = self_attention_sublayer_backward(X, p, dy, how, order=order)
    got = decoder_layer_backward(X, MEMORY, p, do, how, cross, order=order)
    np.testing.assert_array_equal(got[0], dx)
    np.testing.assert_array_equal(got[1], dmemory)
    assert got[2].keys() == (of_feed | of_cross | of_attention).keys() == p.keys()
    plain = parameters()
    one = decoder_layer_backward(X, None, plain, do, how, order=order)
    np.testing.assert_array_equal(one[0], encoder_layer_backward(X, plain, do, how, order=order)[0])
    assert one[1] is None


@given(models(kinds=("encoder",)))
def test_padding_takes_no_gradient_and_gives_none(model):
    p, (B, T) = part(model.parameters, "encoder"), model.source.shape
    options = {name: value for name, value in model.options.items() if name != "scale_embeddings"}
    M = model.parameters["source.embedding.weight"].shape[1]
    real = np.arange(T) < np.random.default_rng(2).integers(1, T + 1, size=B)[:, None]
    x, do = np.random.default_rng(3).normal(size=(2, B, T, M)) * np.stack([np.ones_like(real), real])[..., None]
    dx, _ = encoder_backward(x, p, do, real, **options)
    assert (dx[~real] == 0).all()


def test_positions_count_real_tokens():
    real = np.array([[False, True, True, False, True], [True, False, False, False, False], [False] * 5])
    assert token_positions(real).tolist() == [[0, 0, 1, 1, 2], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    how = self_attention_options(real, 2, True, heads=2, positions="alibi", window=2)
    assert how["mask"][0, 0].tolist() == [[False, True, True, False, False], [False, False, True, False, True]]
    assert how["bias"][0, 0].tolist() == [
        [-(2**-4), -(2**-4), -0.0, -0.0, -(2**-4)],
        [-(2**-3), -(2**-3), -(2**-4), -(2**-4), -0.0],
    ]
    assert how["rotary"] is None
    turned = self_attention_options(real, 5, False, heads=2, positions="rotary", rotary_base=7.0, rotary_width=2)
    assert turned["rotary"]["positions"].tolist() == token_positions(real).tolist()
    assert (turned["rotary"]["base"], turned["rotary"]["pairs"], turned["rotary"]["width"]) == (7.0, "half", 2)
    assert (turned["mask"] == real[:, None, None, :]).all()
    cross = cross_attention_options(turned, real[:, :3])
    assert (cross["mask"].shape, cross["rotary"], cross["heads"]) == ((3, 1, 1, 3), None, 2)
    np.testing.assert_array_equal(real_tokens(None, "mask", (2, 3, 4)), np.ones((2, 3), bool))


def test_defaults_are_those_of_the_first_paper():
    layer, attention = split_options(heads=2)
    assert (layer, attention) == ({"order": "post", "norm": "layer", "eps": 1e-5, "activation": "relu"}, {"heads": 2})
    embedding, stack = split_embedding_options(heads=2)
    assert embedding == {"scale_embeddings": True, "positions": "sinusoidal", "norm": "layer", "eps": 1e-5}
    assert stack == {"heads": 2}


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_cached_layer_is_a_layer(order):
    p, how = parameters(cross=True), self_attention_options(np.ones((2, 3), bool), 3, True, heads=2)
    cross = cross_attention_options(how, np.ones((2, 5), bool))
    attention, of_memory = part(p, "attention"), keys_values(MEMORY, part(p, "cross"), cross)
    found = keys_values(X, attention, how)
    assert_close(look_up(X, found, attention, how), multi_head_attention(X, X, attention, **how), terms=100)
    none = keys_values(X[:, :0], attention, how)
    got, kept = cached_layer(X, none, of_memory, p, how, cross, order=order)
    assert_close(got, decoder_layer(X, MEMORY, p, how, cross, order=order), terms=100)
    assert kept[0].shape == found[0].shape


def test_residuals():
    norm = {"weight": np.ones(4), "bias": np.zeros(4)}
    double, halve = (lambda x: 2 * x), (lambda _, d: (2 * d, "rest"))
    assert (add_and_norm(X, double, {}) == 3 * X).all()
    np.testing.assert_array_equal(add_and_norm(X, double, norm), layer_norm(3 * X, norm))
    np.testing.assert_array_equal(add_and_norm(X, double, norm, order="pre"), X + 2 * layer_norm(X, norm))
    for order in ("post", "pre"):
        dx, gradients, rest = add_and_norm_backward(X, double, halve, {}, X, order=order)
        assert (gradients, rest) == ({}, "rest")
        np.testing.assert_array_equal(dx, 3 * X)
    np.testing.assert_array_equal(normalise(X, {}), X)
    assert normalise_backward(X, {}, X, norm="rms")[1] == {}


def test_layers_are_counted():
    stack = {"1.a": X, "0.a": X, "norm.weight": X}
    assert [list(layer) for layer in layers(stack, "norm")] == [["a"], ["a"]]
    assert layers({}) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers({"0.a": X, "2.a": X}), ValueError,
         "layers=['0', '2']: layers are numbered from 0 without gaps; rename them or remove what is no layer"),
        (lambda: encoder(X, {"0.a": X, "final.weight": X}, heads=2), ValueError,
         "layers=['0', 'final']: layers are numbered from 0 without gaps, beside norm; rename"),
        (lambda: check_parts({"a.b": X}, ("c",)), ValueError, "parameters=['a']: missing ['c'], unknown ['a']; pass c"),
        (lambda: encoder_layer(X, PARAMETERS | {"cross.q.weight": X}, {"heads": 2}), ValueError, "parameters=['attention', "),
        (lambda: decoder_layer(X, None, PARAMETERS | {"cross.q.weight": X}, {"heads": 2}), ValueError,
         "parameters=['attention', "),
        (lambda: decoder_layer(X, MEMORY, PARAMETERS, {"heads": 2}, {"heads": 2}), ValueError, "parameters=['attention', "),
        (lambda: encoder_layer(X, PARAMETERS, {"heads": 2}, order="before"), ValueError,
         "order='before': it is one of post, pre; pass one of these"),
        (lambda: encoder_layer(X, PARAMETERS, {"heads": 2}, norm="batch"), ValueError,
         "norm='batch': it is one of layer, rms; pass one of these"),
        (lambda: encoder(X[0], {}, heads=2), ShapeError, "x.shape=(3, 4): x has the 3 axes [B,S,M]"),
        (lambda: decoder(X[0], None, {}, heads=2), ShapeError, "x.shape=(3, 4): x has the 3 axes [B,T,M]"),
        (lambda: encoder(X, {}, np.ones((2, 3)), heads=2), TypeError, "mask.dtype=float64: it is boolean, True = real"),
        (lambda: decoder(X, MEMORY, {}, None, np.ones((2, 3), bool), heads=2), ValueError,
         "memory_mask.shape=(2, 3): it has one entry for each token; pass the shape (2, 5)"),
        (lambda: token_positions(np.ones(3, bool)), ShapeError, "real.shape=(3,): real has the 2 axes [B,T]"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
