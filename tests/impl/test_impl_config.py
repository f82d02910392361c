"""Every value that a configuration refuses, and what it says; what None stands for; initial sizes and names."""

import re

import pytest
import torch

from attnspec.impl.config import TransformerConfig
from attnspec.impl.transformer import CausalLM, Seq2Seq, Transformer


def raises(message, call, *args, **kwargs):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "both"}, "order=both: it is one of post, pre; choose one"),
        ({"norm": None}, "norm=None: it is one of layer, rms; choose one"),
        ({"activation": "tanh"}, "activation=tanh: it is one of relu, gelu, gelu_tanh, silu; choose one"),
        ({"positions": "rope"}, "positions=rope: it is one of sinusoidal, learned, rotary, alibi, None; choose one"),
        ({"rotary_pairs": "all"}, "rotary_pairs=all: it is one of half, interleaved; choose one"),
        ({"vocab_size": 0}, "vocab_size=0: it is a whole number; use 1 or more"),
        ({"width": 8.0}, "width=8.0: it is a whole number; use 1 or more"),
        ({"window": True}, "window=True: it is a whole number; use 1 or more"),
        ({"decoder_layers": -1}, "decoder_layers=-1: it is a whole number; use 0 or more"),
        ({"width": 6}, "width=6, heads=4, head_width=None: heads divide the width; choose a divisor, or give head_width"),
        ({"kv_heads": 3}, "heads=4, kv_heads=3: key/value heads divide the heads; choose a divisor of heads"),
        (
            {"width": 3, "head_width": 2},
            "width=3, positions=sinusoidal: sines and cosines come in pairs; use an even width or other positions",
        ),
        (
            {"positions": "rotary", "rotary_width": 4},
            "rotary_width=4, D=2: channels turn in pairs, so their number is even and at most D; choose such a rotary_width",
        ),
        (
            {"positions": "rotary", "head_width": 3},
            "rotary_width=3, D=3: channels turn in pairs, so their number is even and at most D; choose such a rotary_width",
        ),
        ({"eps": -1.0}, "eps=-1.0: it is added to a variance; use 1e-5"),
        ({"rotary_base": 0.0}, "rotary_base=0.0: frequencies are its powers; use 10000.0"),
        ({"dropout": 1.0}, "dropout=1.0: it is a share of entries below one; use 0.1, or 0.0 for none"),
        ({"attention_dropout": -0.1}, "attention_dropout=-0.1: it is a share of entries below one; use 0.1, or 0.0 for none"),
        ({"activation_dropout": 1}, "activation_dropout=1: it is a share of entries below one; use 0.1, or 0.0 for none"),
        ({"scale": float("nan")}, "scale=nan: it is finite; use None for 1/sqrt(D)"),
        ({"softcap": 0.0}, "softcap=0.0: a cap is positive and finite; use None for none"),
        (
            {"encoder_layers": 0, "decoder_layers": 0},
            "encoder_layers=0, decoder_layers=0: a model has an encoder, a decoder or both; give one of them layers",
        ),
        (
            {"shared": True, "source_vocab_size": 7},
            "shared=True, encoder_layers=1, decoder_layers=1, vocab_size=5, source_vocab_size=7: sharing takes an encoder, a "
            "decoder and one vocabulary; use shared=False",
        ),
    ],
)
def test_configuration_errors(options, message):
    sizes = {"vocab_size": 5, "encoder_layers": 1, "decoder_layers": 1, "width": 8, "heads": 4, "hidden": 6}
    raises(message, TransformerConfig, **sizes | options)


def test_defaults_are_the_base_model_of_the_paper():
    config = TransformerConfig(vocab_size=37000, shared=True)
    assert (config.groups, config.channels, config.ends_in_norm) == (8, 64, False)
    assert TransformerConfig(vocab_size=3, order="pre").ends_in_norm
    with torch.device("meta"):
        model = Seq2Seq(config)
    # Table 3 of arXiv:1706.03762 says 65 million, and counts neither biases of attention nor the words exactly.
    assert sum(p.numel() for p in model.parameters()) // 10**6 == 63


def test_two_vocabularies():
    net = Transformer(TransformerConfig(vocab_size=5, source_vocab_size=7, width=8, heads=2, hidden=4))
    assert net.source.embedding.weight.shape == (7, 8)
    assert net(torch.full((1, 2), 6), torch.full((1, 3), 4)).shape == (1, 3, 5)
    with torch.device("meta"):
        alone = Transformer(TransformerConfig(vocab_size=5, source_vocab_size=7, decoder_layers=0))
    assert "output.weight" not in alone.state_dict()


def test_kinds():
    raises(
        "encoder_layers=6: a language model has a decoder only; use encoder_layers=0",
        CausalLM,
        TransformerConfig(vocab_size=3),
    )
    message = "encoder_layers=0, decoder_layers=6: a translator has an encoder and a decoder; give both layers"
    raises(message, Seq2Seq, TransformerConfig(vocab_size=3, encoder_layers=0))
