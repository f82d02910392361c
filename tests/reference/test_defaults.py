"""What an option is when it is not given: the same in every function that has it, above all in a forward and its backward."""

import importlib
import inspect
import pkgutil

import pytest

import attnspec.reference
from attnspec.reference.transformer_options import split_embedding_options, split_options

DEFAULTS = {
    "activation": "relu", "alignment": "top-left", "alpha": 0.0, "axis": -1, "base": 10000.0, "beta1": 0.9, "beta2": 0.999,
    "cell": "lstm", "effective_order": False, "empty_row": "zero", "eps": 1e-5, "input_feeding": True, "momentum": 0.0,
    "nesterov": False, "norm": "layer", "of": "the output", "offset": 0.0, "optional": (), "order": "post", "pairs": "half",
    "positions": "sinusoidal", "presence": False, "reset": "after", "rotary_base": 10000.0, "rotary_pairs": "half",
    "scale_embeddings": True, "score": "general", "side": "left", "smooth": True, "smoothing": 0.0, "sublinear": False,
    "warmup_steps": 4000, "weight_decay": 0.0, "window_side": "left",
    # the same word for another thing
    "rnn_cell.activation": "tanh", "rnn_backward.activation": "tanh", "rnn_jacobian.activation": "tanh",
    "adam.eps": 1e-8, "adamw.eps": 1e-8, "adamw.weight_decay": 0.01, "bleu.smoothing": "none", "tf_idf.norm": "l2",
    "luong_scores.score": "dot", "luong_scores_backward.score": "dot",
    "luong_attention.score": "dot", "luong_attention_backward.score": "dot",
}  # fmt: skip


def given_defaults():
    """Yields "function.option", the option and its default of every function of the reference; None is the absence of it."""
    for file in pkgutil.iter_modules(attnspec.reference.__path__, "attnspec.reference."):
        module = importlib.import_module(file.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            for option in inspect.signature(function).parameters.values() if function.__module__ == file.name else ():
                if option.default not in (inspect.Parameter.empty, None):
                    yield f"{name}.{option.name}", option.name, option.default


GIVEN = sorted(given_defaults())


@pytest.mark.parametrize(("place", "option", "default"), GIVEN, ids=[place for place, _, _ in GIVEN])
def test_an_option_has_one_default(place, option, default):
    want = DEFAULTS.get(place, DEFAULTS.get(option))
    assert (default, type(default)) == (want, type(want))


def test_the_table_has_no_option_that_is_gone():
    assert set(DEFAULTS) <= {name for place, option, _ in GIVEN for name in (place, option)}


def test_what_a_transformer_does_when_it_is_not_told():
    embedding, stack = split_embedding_options(heads=2)
    assert embedding == {"scale_embeddings": True, "positions": "sinusoidal", "norm": "layer", "eps": 1e-5}
    layer, attention = split_options(**stack)
    assert layer == {"order": "post", "norm": "layer", "eps": 1e-5, "activation": "relu"}
    assert attention == {"heads": 2}
