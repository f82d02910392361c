"""The cached layer refuses what the layer refuses: nothing misspelt is read past."""

import numpy as np
import pytest

from attnspec.reference.cached_layer import cached_layer, keys_values
from attnspec.reference.key_value_cache import empty_cache, extend
from attnspec.reference.shapes import ShapeError
from attnspec.reference.token_position import self_attention_options
from tests.reference.drawn_models import attention_parameters, layer_parameters

M, SIZES, SHAPE = 4, {"H": 2, "G": 1, "D": 2, "F": 3}, {"biased": False, "gated": False, "norm": "layer"}
LAYER = layer_parameters(np.random.default_rng(0), M, SIZES, SHAPE, False)
HOW = self_attention_options(np.ones((1, 3), dtype=bool), 2, True, heads=2, kv_heads=1)
X, PAST = np.ones((1, 2, M)), np.ones((1, 1, 1, 2))


def test_a_part_that_nobody_reads_is_refused():
    with pytest.raises(ValueError, match=r"missing \['attention_norm'\], unknown \['attention_nrom'\]"):
        cached_layer(X, (PAST, PAST), None, {n.replace("ion_norm", "ion_nrom"): a for n, a in LAYER.items()}, HOW, HOW)
    heads = attention_parameters(np.random.default_rng(0), M, 2, 1, 2, False)
    with pytest.raises(ValueError, match=r"missing \['k.weight'\], unknown \['key.weight'\]"):
        keys_values(X, {n.replace("k.", "key."): a for n, a in heads.items()}, HOW)


def test_a_past_of_other_heads_or_another_batch_is_refused():
    for past in (np.ones((1, 2, 1, 2)), np.ones((2, 1, 1, 2)), np.ones((1, 1, 1, 3))):
        with pytest.raises(ShapeError, match=r"^past.shape=\(., ., 1, .\): the past has B, G and D of the new tokens"):
            cached_layer(X, (past, PAST), None, LAYER, HOW, HOW)


def test_a_part_of_the_model_that_nobody_reads_is_refused():
    parameters = {"target.embedding.weight": np.ones((3, 2))}
    cache = empty_cache(1, None, parameters, heads=1)
    with pytest.raises(ValueError, match=r"unknown \['ouput'\]"):
        extend(np.array([[0]]), cache, parameters | {"ouput.bias": np.ones(3)}, heads=1)
    with pytest.raises(ValueError, match=r"missing \['embedding'\]"):
        empty_cache(1, None, {}, heads=1)
