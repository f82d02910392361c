"""The models of transformers: no weight is lost or read twice, and each wrong reading of a model is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from attnspec.impl.weight_names import Cut, Names
from attnspec.reference.key_value_cache import empty_cache, extend
from attnspec.reference.training_step import loss_and_gradients
from tests.authorities import hugging_face as decoders
from tests.authorities import hugging_face_translators as translators
from tests.authorities import hugging_face_weights as weights
from tests.authorities.hugging_face import Case
from tests.authorities.hugging_face_weights import left_out, translated

Change = Callable[[Case], Case]
LAYER = {"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11}
CODER = {"d_model": 8, "encoder_ffn_dim": 9, "decoder_ffn_dim": 10, "encoder_layers": 2, "decoder_layers": 1}
TRANSLATOR = CODER | {"vocab_size": 11, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 0}
TRANSLATOR |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "max_position_embeddings": 9}
GPT2 = {"n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 11, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 8, "d_ff": 9, "d_kv": 3, "num_heads": 2, "num_layers": 2, "vocab_size": 11, "decoder_start_token_id": 0}
SHARED = "the same tensor as model.shared.weight"
TABLES = {f"model.{side}coder.embed_tokens.weight": SHARED for side in ("en", "de")} | {"lm_head.weight": SHARED}
SINUSOIDS = {f"model.{side}coder.embed_positions.weight": "computed, not learned" for side in ("en", "de")}
MODELS: dict[str, tuple[type, dict[str, Any], Names, dict[str, str]]] = {
    "GPT2LMHeadModel": (
        transformers.GPT2Config, GPT2, weights.GPT2, {"lm_head.weight": "the same tensor as transformer.wte.weight"},
    ),
    "LlamaForCausalLM": (transformers.LlamaConfig, LAYER | {"attention_bias": True, "mlp_bias": True}, weights.LLAMA, {}),
    "MistralForCausalLM": (transformers.MistralConfig, LAYER | {"num_key_value_heads": 1}, weights.LLAMA, {}),
    "BloomForCausalLM": (
        transformers.BloomConfig, {"hidden_size": 8, "n_layer": 2, "n_head": 2, "vocab_size": 11}, weights.bloom(2),
        {"lm_head.weight": "the same tensor as transformer.word_embeddings.weight"},
    ),
    "BertForMaskedLM": (
        transformers.BertConfig, LAYER, weights.BERT, {
            "cls.predictions.decoder.weight": "the same tensor as bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "the same tensor as cls.predictions.bias",
        },
    ),
    "T5ForConditionalGeneration": (
        transformers.T5Config, T5 | {"feed_forward_proj": "gated-gelu"}, weights.T5,
        dict.fromkeys(
            ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
            "the same tensor as shared.weight",
        ),
    ),
    "BartForConditionalGeneration": (transformers.BartConfig, TRANSLATOR, weights.BART, TABLES),
    "MarianMTModel": (transformers.MarianConfig, TRANSLATOR, weights.MARIAN, TABLES | SINUSOIDS),
}  # fmt: skip


def numbered(name: str) -> torch.nn.Module:
    """The model with weights 0, 1, 2, ...: no two are alike."""
    config, sizes, _, _ = MODELS[name]
    model = getattr(transformers, name)(config(**sizes)).double()
    first = 0
    for entry in {id(one): one for one in model.state_dict(keep_vars=True).values()}.values():
        entry.data = torch.arange(first, first + entry.numel(), dtype=entry.dtype).reshape(entry.shape)
        first += entry.numel()
    return model


@pytest.mark.parametrize("name", MODELS)
def test_each_number_of_a_model_is_used_once_or_left_out_with_a_reason(name: str) -> None:
    _, _, names, reasons = MODELS[name]
    model = numbered(name)
    assert left_out(model, names) == reasons
    theirs = {key: entry.numpy() for key, entry in model.state_dict().items() if key not in reasons}
    if name.startswith("Bart"):
        theirs = {key: array[2:] if "embed_positions" in key else array for key, array in theirs.items()}
    ours = translated(model, names)
    numbers = [np.sort(np.concatenate([one.ravel() for one in them.values()])) for them in (ours, theirs)]
    np.testing.assert_array_equal(*numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transformer.ln_f.{w}": "decoder.0.attention_norm.{w}"}, "has a weight already"),
        ({"transformer.h.0.ln_1.{w}": "decoder.norm.{w}"}, "2 names in the table, want one"),
        ({"transformer.ln_f.{w}": Cut(("one", "two"), lambda array: [array])}, "zip"),
    ],
)
def test_a_table_that_uses_an_entry_wrongly_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        translated(numbered("GPT2LMHeadModel"), {**weights.GPT2, **change})


def test_an_entry_without_a_name_is_refused() -> None:
    names = {key: ours for key, ours in weights.GPT2.items() if key != "transformer.wpe.weight"}
    with pytest.raises(AssertionError, match=r"transformer\.wpe\.weight.*: 0 names in the table"):
        translated(numbered("GPT2LMHeadModel"), names)


def options(**changed: Any) -> Change:
    return lambda case: replace(case, options=case.options | changed)


def computed(option: str, change: Callable[[Any], Any]) -> Change:
    """An option that depends on the right one."""
    return lambda case: replace(case, options=case.options | {option: change(case.options[option])})


def exchanged(one: str, other: str) -> Change:
    """Two parts take each other's weights; an optional bias that only one has is dropped."""

    def change(case: Case) -> Case:
        swapped = {name.replace(one, "~").replace(other, one).replace("~", other): a for name, a in case.parameters.items()}
        return replace(case, parameters=swapped)

    return change


def parameters(word: str, change: Callable[[Any], Any]) -> Change:
    """Every parameter with this word in its name is changed."""
    return lambda case: replace(case, parameters={k: change(a) if word in k else a for k, a in case.parameters.items()})


def without(word: str) -> Change:
    return lambda case: replace(case, parameters={k: a for k, a in case.parameters.items() if word not in k})


def other_gelu(name: str) -> str:
    hypothesis.assume(name in ("gelu", "gelu_tanh"))
    return "gelu" if name == "gelu_tanh" else "gelu_tanh"


def no_padding(mask: Any) -> Any:
    hypothesis.assume(not mask[:, 0].all())  # after all real tokens, no causal model sees it
    return np.ones_like(mask)


def other_groups(case: Case) -> Case:
    """The query heads shared out in turn instead of in blocks: heads 0, 2 | 1, 3 instead of 0, 1 | 2, 3."""
    hypothesis.assume(case.options["kv_heads"] == 2)

    def turned(array: Any) -> Any:
        return array.reshape(2, 2, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)

    p = {k: turned(a) if ".attention.q." in k else a for k, a in case.parameters.items()}
    return replace(case, parameters=p | {k: turned(a.T).T for k, a in p.items() if k.endswith("attention.o.weight")})


def side_by_side(case: Case) -> Case:
    """BLOOM's fused weights cut into three blocks, as if they were GPT-2's."""
    p = dict(case.parameters)
    for name in [k for k in p if ".attention.q." in k]:
        names = [name.replace(".q.", f".{x}.") for x in "qkv"]
        heads = [p[one].reshape(case.options["heads"], -1, *p[one].shape[1:]) for one in names]
        fused = np.stack(heads, axis=1).reshape(-1, *p[name].shape[1:])
        p |= dict(zip(names, np.split(fused, 3), strict=True))
    return replace(case, parameters=p)


def other_channels(case: Case) -> Case:
    """Marian's channels in Marian's order."""
    order = np.arange(case.parameters["source.embedding.weight"].shape[1]).reshape(-1, 2).T.ravel()
    return replace(case, parameters=weights.with_channels(case.parameters, order))


def no_types(case: Case) -> Case:
    assert case.source is not None
    V = len(case.parameters["output.weight"])
    hypothesis.assume((case.source >= V)[case.real].any())  # else all types are the first
    return replace(case, source=case.source % V)


BART, MARIAN = (partial(translators.translator_case, kind=kind) for kind in ("bart", "marian"))
MISTRAL = partial(decoders.llama_case, kind="mistral")
READINGS: dict[str, tuple[Callable[..., Case], Change]] = {
    "gpt2 post-norm": (decoders.gpt2_case, options(order="post")),
    "gpt2 the other gelu": (decoders.gpt2_case, computed("activation", other_gelu)),
    "gpt2 queries are keys": (decoders.gpt2_case, exchanged(".q.", ".k.")),
    "gpt2 not transposed": (decoders.gpt2_case, parameters("attention.o.weight", np.transpose)),
    "gpt2 no scale": (decoders.gpt2_case, options(scale=1.0)),
    "gpt2 eps larger": (decoders.gpt2_case, computed("eps", lambda eps: eps + 1e-4)),
    "gpt2 positions one too late": (decoders.gpt2_case, parameters("position", lambda a: np.roll(a, 1, axis=0))),
    "gpt2 padding seen": (decoders.gpt2_case, computed("target_mask", no_padding)),
    "gpt2 no last norm": (decoders.gpt2_case, without("decoder.norm")),
    "llama interleaved pairs": (decoders.llama_case, options(rotary_pairs="interleaved")),
    "llama another base": (decoders.llama_case, options(rotary_base=100.0)),
    "llama no positions": (decoders.llama_case, options(positions=None)),
    "llama layer norm": (decoders.llama_case, options(norm="layer")),
    "llama up is the gate": (decoders.llama_case, exchanged(".up.", ".gate.")),
    "llama groups in turn": (decoders.llama_case, other_groups),
    "mistral window one wider": (MISTRAL, computed("window", lambda window: window + 1)),
    "mistral no window": (MISTRAL, options(window=None)),
    "bloom cut as GPT-2": (decoders.bloom_case, side_by_side),
    "bloom no distances": (decoders.bloom_case, options(positions=None)),
    "bloom no norm of embeddings": (decoders.bloom_case, without("embedding_norm")),
    "bert pre-norm": (decoders.bert_case, options(order="pre")),
    "bert the other gelu": (decoders.bert_case, computed("activation", other_gelu)),
    "bert no token types": (decoders.bert_case, no_types),
    "bert padding seen": (decoders.bert_case, computed("source_mask", np.ones_like)),
    "bert head's norm moved": (decoders.bert_case, parameters("head.norm.bias", np.zeros_like)),
    "t5 scaled scores": (translators.t5_case, computed("attention", lambda how: how | {"scale": None})),
    "t5 no biases": (translators.t5_case, parameters("relative", np.zeros_like)),
    "t5 distances turned round": (
        translators.t5_case, computed("buckets", lambda buckets: buckets | {"encoder": buckets["encoder"].T}),
    ),
    "t5 layer norm": (translators.t5_case, options(norm="layer")),
    "bart positions one too early": (BART, parameters("position", lambda a: np.roll(a, -1, axis=0))),
    "bart no norm of embeddings": (BART, without("embedding_norm")),
    "bart no bias": (BART, without("output.bias")),
    "bart cross-attention is self-attention": (BART, exchanged("decoder.0.cross.", "decoder.0.attention.")),
    "marian sines before cosines": (MARIAN, other_channels),
    "marian pre-norm": (MARIAN, options(order="pre")),
    "marian embeddings scaled or not": (MARIAN, computed("scale_embeddings", lambda scaled: not scaled)),
    "marian padding of the source seen": (MARIAN, computed("source_mask", np.ones_like)),
}  # fmt: skip


def fails(draws: Callable[..., Any], checks: Callable[[Any], None] = lambda _: None) -> None:
    """Every example fails by the comparison: of tokens, or of numbers with their bound."""

    @hypothesis.settings(
        max_examples=2, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(st.data())
    def run(data: st.DataObject) -> None:
        with pytest.raises(AssertionError, match=r"> bound|Arrays are not equal"):
            checks(draws(data.draw))

    run()


@pytest.mark.parametrize("reading", READINGS)
def test_a_wrong_reading_of_a_model_is_noticed(reading: str) -> None:
    case_of, change = READINGS[reading]
    fails(lambda draw: change(case_of(draw)), Case.check)


@pytest.mark.parametrize("name", ["output.bias", "source.embedding.weight", "encoder.0.attention.k.bias"])
def test_a_wrong_gradient_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_error(*args: Any, **options: Any) -> Any:
        loss, gradients = loss_and_gradients(*args, **options)
        return loss, gradients | {name: gradients[name] + 1e-9}

    monkeypatch.setattr(decoders, "loss_and_gradients", with_error)
    fails(translators.marian_gradients)


def test_a_cache_that_sees_padding_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(tokens: Any, cache: Any, p: Any, _: Any = None, **options: Any) -> Any:
        return extend(tokens, cache, p, None, **options)

    monkeypatch.setattr(decoders, "extend", blind)
    fails(decoders.gpt2_generates)


def test_a_cache_that_sees_the_padding_of_the_source_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(B: int, memory: Any, p: Any, _: Any = None, **options: Any) -> Any:
        return empty_cache(B, memory, p, None, **options)

    monkeypatch.setattr(translators, "empty_cache", blind)
    fails(translators.marian_generates)
