"""What a configuration of transformers says, in the words of TransformerConfig; what cannot be said is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attnspec.impl.config import TransformerConfig
from attnspec.impl.errors import require
from attnspec.impl.weight_names import BART, GPT2, LLAMA, MARIAN, Names, bloom

ACTIVATIONS = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu",
    "swish": "silu",
}  # fmt: skip
# Options of some models and of none here: what they ask for has no place in TransformerConfig.
NOT_HERE: dict[str, Any] = {
    "layer_types": None, "attn_logit_softcapping": None, "final_logit_softcapping": None, "quantization_config": None,
}  # fmt: skip
LAYER_DROP = {"encoder_layerdrop": 0, "decoder_layerdrop": 0}


class Given(dict[str, Any]):
    """The entries of a configuration; one that has no default must be there."""

    def __missing__(self, name: str) -> Any:
        rule = "the configuration must say it; pass all of it, as config.to_dict() has it"
        require(False, rule, **{name: None, "model_type": self.get("model_type")})

    def same(self, *names: str) -> Any:
        """The value of several entries that are one entry here."""
        values = {name: self[name] for name in names}
        rule = "they are one number in TransformerConfig; use a model where they are equal (dropout: set them alike)"
        require(len(set(values.values())) == 1, rule, **values)
        return self[names[0]]

    @property
    def activation(self) -> str:
        """The activation, whatever its entry is called."""
        name = "hidden_act" if "hidden_act" in self else "activation_function"
        rule = f"the activations are {', '.join(ACTIVATIONS)}; use a model with one of these"
        require(self[name] in ACTIVATIONS, rule, **{name: self[name]})
        return ACTIVATIONS[self[name]]

    @property
    def tied(self) -> bool:
        """Whether the output has the weights of an embedding."""
        return bool(self.get("tie_word_embeddings", self["model_type"] not in ("llama", "mistral")))


@dataclass(frozen=True)
class Family:
    """How to read one kind of model.

    options: those of TransformerConfig. only: the one value of an entry that these can express. names: the table of weights.
    copies: entries of a state_dict that are another entry, and which.
    """

    options: Callable[[Given], dict[str, Any]]
    names: Callable[[Given], Names]
    copies: Callable[[Given], dict[str, str]]
    only: Mapping[str, Any]


def read(config: Any) -> tuple[TransformerConfig, Family, Given]:
    """Reads a configuration of transformers.

        ours[option] = theirs[its name there],  or what all models of that kind have     (1)

    Shapes:  config is an object with to_dict(), or such a mapping, as in a config.json.
    Units:   max_length is the number of positions that the model was made for.
    Empty:   an entry that later versions added may be absent: then it has the value of the models before it.
    Errors:  ValueError for a model or a value that TransformerConfig cannot express, and for an entry that is not there.
    Source:  configuration_*.py and modeling_*.py of transformers 5.23.
    Differs: shares of dropout are taken over as well; the order of random numbers is not.
    """
    given = Given(config.to_dict() if hasattr(config, "to_dict") else config)
    kind = given["model_type"]
    rule = f"weights are read of {', '.join(FAMILIES)}; other models have parts that TransformerConfig has no option for"
    require(kind in FAMILIES, f"{rule}; use one of these", model_type=kind)
    family = FAMILIES[kind]
    for name, value in (NOT_HERE | dict(family.only)).items():
        rule = f"only {value} can be expressed here, as {kind} has no such option; use a model without it"
        require(given.get(name, value) == value, rule, **{name: given.get(name)})
    return TransformerConfig(**family.options(given)), family, given


def _gpt2(given: Given) -> dict[str, Any]:
    M = given["n_embd"]
    return {
        "vocab_size": given["vocab_size"], "encoder_layers": 0, "decoder_layers": given["n_layer"],
        "width": M, "heads": given["n_head"], "hidden": given.get("n_inner") or 4 * M, "max_length": given["n_positions"],
        "order": "pre", "eps": given["layer_norm_epsilon"], "activation": given.activation, "positions": "learned",
        "scale": None if given.get("scale_attn_weights", True) else 1.0, "scale_embeddings": False, "tied": given.tied,
        "dropout": given.same("embd_pdrop", "resid_pdrop"), "attention_dropout": given["attn_pdrop"],
    }  # fmt: skip


def _llama(given: Given) -> dict[str, Any]:
    """Llama and Mistral, which is Llama with a window; a bias that only some maps have is zero in the others."""
    mistral = given["model_type"] == "mistral"
    return {
        "vocab_size": given["vocab_size"], "encoder_layers": 0, "decoder_layers": given["num_hidden_layers"],
        "width": given["hidden_size"], "heads": given["num_attention_heads"],
        "kv_heads": given["num_key_value_heads"] if mistral else given.get("num_key_value_heads"),
        "head_width": given.get("head_dim"), "hidden": given["intermediate_size"],
        "max_length": given["max_position_embeddings"], "order": "pre", "norm": "rms", "eps": given["rms_norm_eps"],
        "activation": given.activation, "gated": True,
        "bias": not mistral and bool(given.get("attention_bias", False) or given.get("mlp_bias", False)),
        "positions": "rotary", "rotary_base": _rotary_base(given),
        "window": given["sliding_window"] if mistral else None,
        "scale_embeddings": False, "tied": given.tied, "attention_dropout": given.get("attention_dropout", 0.0),
    }  # fmt: skip


def parts_without_bias(given: Given) -> list[str]:
    """Names the parts of a layer that have no biases, where the other part may have some.

        parts = attention unless attention_bias, feed_forward unless mlp_bias            (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   none but for Llama: elsewhere both parts are alike.
    Errors:  none.
    Source:  modeling_llama.py of transformers 5.23.
    Differs: n/a.
    """
    said = {"attention": "attention_bias", "feed_forward": "mlp_bias"} if given["model_type"] == "llama" else {}
    return [part for part, name in said.items() if not given.get(name, False)]


def _rotary_base(given: Given) -> float:
    """From rope_parameters, or from rope_theta and rope_scaling, their names of old."""
    rope = given.get("rope_parameters")
    if rope is None:
        rope = {"rope_theta": given["rope_theta"]} | (given.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    rule = "angles are a position times a power of the base; use a model with rope_type default"
    require(kind == "default", rule, rope_type=kind)
    turned = rope.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    rule = "all channels of a head turn in llama and mistral; use a model with a factor of 1.0"
    require(turned in (None, 1.0), rule, partial_rotary_factor=turned)
    require("rope_theta" in rope, "frequencies are powers of it; pass the base", rope_theta=None)
    return float(rope["rope_theta"])


def _bloom(given: Given) -> dict[str, Any]:
    M = given["hidden_size"]
    return {
        "vocab_size": given["vocab_size"], "encoder_layers": 0, "decoder_layers": given["n_layer"],
        "width": M, "heads": given["n_head"], "hidden": 4 * M, "max_length": given.get("seq_length", 2048), "order": "pre",
        "eps": given["layer_norm_epsilon"], "activation": "gelu_tanh", "positions": "alibi", "scale_embeddings": False,
        "embedding_norm": True, "tied": given.tied, "attention_dropout": given["attention_dropout"],
    }  # fmt: skip


def _translator(given: Given) -> dict[str, Any]:
    """What BART and Marian have in common."""
    return {
        "vocab_size": given["vocab_size"],
        "encoder_layers": given["encoder_layers"], "decoder_layers": given["decoder_layers"], "width": given["d_model"],
        "heads": given.same("encoder_attention_heads", "decoder_attention_heads"),
        "hidden": given.same("encoder_ffn_dim", "decoder_ffn_dim"), "max_length": given["max_position_embeddings"],
        "activation": given.activation, "scale_embeddings": bool(given["scale_embedding"]),
        "tied": given.tied, "output_bias": True, "dropout": given["dropout"],
        "attention_dropout": given["attention_dropout"], "activation_dropout": given["activation_dropout"],
    }  # fmt: skip


def _bart(given: Given) -> dict[str, Any]:
    return _translator(given) | {"positions": "learned", "embedding_norm": True, "shared": given.tied}


def _marian(given: Given) -> dict[str, Any]:
    target = given.get("decoder_vocab_size") or given["vocab_size"]
    if _one_table(given):
        return _translator(given) | {"shared": given.tied}
    return _translator(given) | {"vocab_size": target, "source_vocab_size": given["vocab_size"]}


def _one_table(given: Given) -> bool:
    return bool(given["model_type"] == "bart" or given.get("share_encoder_decoder_embeddings", True))


def _copy_of(original: str) -> Callable[[Given], dict[str, str]]:
    return lambda given: {"lm_head.weight": original} if given.tied else {}


def _copies_in_translator(given: Given) -> dict[str, str]:
    tables = [f"model.{side}coder.embed_tokens.weight" for side in ("en", "de")]
    if not given.tied:
        return {}
    return dict.fromkeys([*tables, "lm_head.weight"], "model.shared.weight") if _one_table(given) else {
        "lm_head.weight": tables[1]
    }  # fmt: skip


def _names_in_translator(table: Names) -> Callable[[Given], Names]:
    """Untied, the two sides have tables of their own, and nobody reads the shared one."""
    return lambda given: dict(table) | ({} if given.tied else {"model.shared.weight": None})


POST_NORM = {"normalize_before": False, "add_final_layer_norm": False}
FAMILIES = {
    "gpt2": Family(
        _gpt2, lambda _: GPT2, _copy_of("transformer.wte.weight"),
        {"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    ),
    "llama": Family(_llama, lambda _: LLAMA, _copy_of("model.embed_tokens.weight"), {}),
    "mistral": Family(_llama, lambda _: LLAMA, _copy_of("model.embed_tokens.weight"), {}),
    "bloom": Family(
        _bloom, lambda given: bloom(given["n_head"]), _copy_of("transformer.word_embeddings.weight"),
        {"apply_residual_connection_post_layernorm": False, "hidden_dropout": 0},
    ),
    "bart": Family(
        _bart, _names_in_translator(BART), _copies_in_translator,
        POST_NORM | LAYER_DROP | {"normalize_embedding": True, "static_position_embeddings": False},
    ),
    "marian": Family(
        _marian, _names_in_translator(MARIAN), _copies_in_translator,
        POST_NORM | LAYER_DROP | {"normalize_embedding": False, "static_position_embeddings": True},
    ),
}  # fmt: skip
