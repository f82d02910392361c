"""impl.weights: what it cannot express or does not find is refused with its name; what it takes it copies."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from attnspec.impl import hugging_face_config
from attnspec.impl.hugging_face_config import FAMILIES
from attnspec.impl.weights import from_transformers
from tests.impl.models_of_transformers import MODELS, tiny

ROPE = {"rope_type": "default", "rope_theta": 50.0}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True: only False"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True: only False"),
    ("gpt2", {"activation_function": "quick_gelu"}, "activation_function=quick_gelu: the activations are relu, gelu"),
    ("gpt2", {"embd_pdrop": 0.1, "resid_pdrop": 0.2}, "embd_pdrop=0.1, resid_pdrop=0.2: they are one number"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config=.*: only None"),
    ("gpt2", {"n_head": 3}, "heads divide the width"),
    ("llama", {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0}}, "rope_type=linear: .*default"),
    ("llama", {"rope_parameters": ROPE | {"rope_type": "yarn", "factor": 2.0}}, "rope_type=yarn: .*default"),
    ("llama", {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5: all channels"),
    ("llama", {"rope_parameters": {"rope_type": "default"}}, "rope_theta=None: frequencies"),
    ("llama", {"rope_parameters": None, "rope_theta": 50.0, "rope_scaling": {"type": "dynamic"}}, "rope_type=dynamic"),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types=.*: only None"),
    ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0: only None"),
    ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0: only None"),
    ("mistral", {"layer_types": ["sliding_attention"]}, "layer_types=.*: only None"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "post_layernorm=True: only False"),
    ("bloom", {"hidden_dropout": 0.1}, "hidden_dropout=0.1: only 0"),
    ("bart", {"decoder_ffn_dim": 21}, "encoder_ffn_dim=.*, decoder_ffn_dim=21: they are one number"),
    ("bart", {"decoder_attention_heads": 1}, "encoder_attention_heads=.*, decoder_attention_heads=1: they are one number"),
    ("bart", {"add_final_layer_norm": True}, "add_final_layer_norm=True: only False"),
    ("bart", {"normalize_before": True}, "normalize_before=True: only False"),
    ("bart", {"normalize_embedding": False}, "normalize_embedding=False: only True"),
    ("bart", {"static_position_embeddings": True}, "static_position_embeddings=True: only False"),
    ("bart", {"encoder_layerdrop": 0.1}, "encoder_layerdrop=0.1: only 0"),
    ("marian", {"decoder_layerdrop": 0.1}, "decoder_layerdrop=0.1: only 0"),
    ("marian", {"normalize_embedding": True}, "normalize_embedding=True: only False"),
    ("marian", {"static_position_embeddings": False}, "static_position_embeddings=False: only True"),
    ("marian", {"d_model": 9, "encoder_attention_heads": 3, "decoder_attention_heads": 3}, "even width"),
    ("marian", {"model_type": "bert"}, "model_type=bert: weights are read of gpt2, llama"),
    ("marian", {"model_type": "t5"}, "model_type=t5: weights are read of gpt2, llama"),
]


@pytest.mark.parametrize(
    ("family", "change", "message"), REFUSED, ids=lambda one: "-".join(one) if isinstance(one, dict) else ""
)
def test_what_cannot_be_expressed_is_refused(family, change, message):
    both = tiny(family)
    with pytest.raises(ValueError, match=message):
        from_transformers(both.theirs.config.to_dict() | change, both.theirs.state_dict())


@pytest.mark.parametrize("family", MODELS)
def test_an_entry_without_a_default_must_be_there(family):
    given = tiny(family).theirs.config.to_dict()
    del given["vocab_size"]
    with pytest.raises(ValueError, match=f"vocab_size=None, model_type={family}: the configuration must say it"):
        from_transformers(given, {})


# Entries that came with later versions of transformers: models before them have what is now the default.
LATER = (
    "tie_word_embeddings", "n_inner", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention",
    "head_dim", "attention_bias", "mlp_bias", "decoder_vocab_size", "share_encoder_decoder_embeddings",
)  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
def test_a_configuration_of_old_means_what_its_defaults_mean(family):
    given = type(tiny(family).theirs.config)().to_dict()
    old = {name: value for name, value in given.items() if name not in LATER}
    old |= {"num_key_value_heads": None} if family == "llama" else {}
    got, want = (hugging_face_config.read(one)[0] for one in (old, given))
    assert replace(got, kv_heads=got.groups, head_width=got.channels) == replace(
        want, kv_heads=want.groups, head_width=want.channels
    )


# What their code reads and no logits depend on: heads for other tasks, what generate() does, caches, first values, precision.
IRRELEVANT = re.compile(
    "num_labels|problem_type|classifier_dropout|summary_.*|initializer_range|init_std|use_cache|output_.*|return_dict|is_.*"
    "|.*_token_id|_attn_implementation|reorder_and_upcast_attn|slow_but_exact|pretraining_tp"
)


@pytest.mark.parametrize("family", MODELS)
def test_every_option_that_their_code_reads_is_read_here(family, monkeypatch):
    seen = set(FAMILIES[family].only)

    class Spy(hugging_face_config.Given):
        def __getitem__(self, name: str) -> Any:
            seen.add(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            seen.add(name)
            return super().get(name, default)

    monkeypatch.setattr(hugging_face_config, "Given", Spy)
    both = tiny(family)
    from_transformers(both.theirs.config, both.theirs.state_dict())
    other_names = type(both.theirs.config).attribute_map
    read = set(re.findall(r"\bconfig\.(\w+)", inspect.getsource(MODELS[family][2])))
    unread = {name for name in read if other_names.get(name, name) not in seen and not IRRELEVANT.fullmatch(name)}
    assert unread <= ({"hidden_dropout"} if family == "gpt2" else set())  # which GPT-2 has in a classifier only


@pytest.mark.parametrize("family", MODELS)
def test_wrong_weights_are_named_all_at_once(family):
    both = tiny(family)
    state = dict(both.theirs.state_dict())
    norms = [name for name in state if re.search(r"(norm|ln_1|layernorm)\.weight", name)]
    state["more.weight"] = torch.ones(1)
    del state[norms[0]]
    state[norms[1]] = torch.ones(3)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        from_transformers(both.theirs.config, state)
    message = str(error.value)
    assert f"missing=[{norms[0]}]" in message
    assert "surplus=[more.weight]" in message
    assert f"misshapen=[{norms[1]}: " in message
    assert re.search(r"is \[3\], want \[\d+\]\]: the configuration says which", message)


def test_the_first_of_many_wrong_names_are_shown():
    both = tiny("gpt2")
    state = {name: x for name, x in both.theirs.state_dict().items() if ".h.1." not in name}
    with pytest.raises(ValueError, match=r"missing=\[transformer\.h\.1\.attn\.c_proj\.weight, .*, and 8 more\]: "):
        from_transformers(both.theirs.config, state)


def test_weights_that_do_not_come_apart_are_named():
    both = tiny("bloom")
    name = "transformer.h.0.self_attention.query_key_value.bias"
    state = both.theirs.state_dict() | {name: torch.ones(7)}
    with pytest.raises(ValueError, match=rf"misshapen=\[{name} \[7\], which does not come apart\]"):
        from_transformers(both.theirs.config, state)


def test_a_bias_that_the_configuration_excludes_is_surplus():
    both = tiny("llama")
    given = both.theirs.config.to_dict() | {"attention_bias": False, "mlp_bias": True}
    config = transformers.LlamaConfig(**given | {"attention_bias": True})
    state = transformers.LlamaForCausalLM(config).state_dict()
    with pytest.raises(
        ValueError, match=r"surplus=\[model\.layers\.0\.self_attn\.._proj\.bias, which the configuration excludes"
    ):
        from_transformers(given, state)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_weights_are_copied(family, dtype):
    both = tiny(family)
    state = {name: x.to(dtype, copy=True) for name, x in both.theirs.state_dict().items()}
    net = from_transformers(both.theirs.config, state)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    assert not net.training
    assert {x.dtype for x in before.values()} == {dtype}
    assert all(x.requires_grad and x.is_contiguous() for x in net.parameters())
    for x in state.values():
        x.zero_()
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


@pytest.mark.parametrize("family", MODELS)
def test_a_tied_tensor_may_have_any_one_of_its_names(family):
    """Files keep a tensor once, and drop what can be computed."""
    both = tiny(family)
    config = both.theirs.config.to_dict() | {"tie_word_embeddings": True}
    state = {
        name: x
        for name, x in both.theirs.state_dict().items()
        if not name.endswith("embed_positions.weight") or family == "bart"
    }
    copies = FAMILIES[family].copies(hugging_face_config.Given(config))
    original = next(iter(copies.values()))
    state[original] = state.get(original, state["lm_head.weight"])
    without = {name: x for name, x in state.items() if name not in copies}
    renamed = {name: x for name, x in without.items() if name != original} | {"lm_head.weight": state[original]}
    want, got = (from_transformers(config, one).state_dict() for one in (without, renamed))
    assert set(want) == set(got)
    assert all(torch.equal(x, got[name]) for name, x in want.items())


def test_the_model_without_a_head_is_loaded_too():
    both = tiny("gpt2")
    config = both.theirs.config.to_dict() | {"tie_word_embeddings": True}
    inside = both.theirs.transformer.state_dict()
    got, want = (
        from_transformers(config, inside),
        from_transformers(config, {f"transformer.{k}": x for k, x in inside.items()}),
    )
    assert torch.equal(got.logits(torch.tensor(both.target)), want.logits(torch.tensor(both.target)))


def test_buffers_of_old_files_are_ignored():
    both = tiny("gpt2")
    more = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 9, 9, dtype=torch.bool),
        "transformer.h.0.attn.masked_bias": torch.ones(()),
    }
    net = from_transformers(both.theirs.config, both.theirs.state_dict() | more)
    assert torch.equal(net.logits(torch.tensor(both.target)), both.ours.logits(torch.tensor(both.target)))


def test_tied_weights_that_differ_are_refused():
    both = tiny("gpt2")
    state = both.theirs.state_dict()
    state["lm_head.weight"] = state["transformer.wte.weight"] + 1
    with pytest.raises(ValueError, match=r"tied=\['lm_head.weight', 'transformer.wte.weight'\]: .* differ; set tie"):
        from_transformers(both.theirs.config.to_dict() | {"tie_word_embeddings": True}, state)


def test_positions_of_marian_that_are_no_sinusoids_are_refused():
    both = tiny("marian")
    name = "model.decoder.embed_positions.weight"
    with pytest.raises(ValueError, match=rf"weights={name}: positions of Marian are sinusoids"):
        from_transformers(both.theirs.config, both.theirs.state_dict() | {name: torch.ones(9, 8)})


@pytest.mark.parametrize("other", [torch.ones(8), torch.ones(8, dtype=torch.long)])
def test_weights_of_two_dtypes_are_refused(other):
    both = tiny("gpt2")
    with pytest.raises(ValueError, match=r"weights=\['torch.*', 'torch.*'\]: weights are floating, of one dtype"):
        from_transformers(both.theirs.config, both.theirs.state_dict() | {"transformer.ln_f.bias": other})


def test_rope_in_the_words_of_old_is_read():
    both = tiny("llama")
    given = both.theirs.config.to_dict()
    base = given.pop("rope_parameters")["rope_theta"]
    net = from_transformers(given | {"rope_theta": base, "rope_scaling": None}, both.theirs.state_dict())
    assert net.config == both.ours.config


def test_shares_of_dropout_are_taken_over():
    both = tiny("bart")
    given = both.theirs.config.to_dict() | {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.1}
    config = from_transformers(given, both.theirs.state_dict()).config
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.3, 0.2, 0.1)
