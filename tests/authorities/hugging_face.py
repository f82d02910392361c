"""GPT-2, Llama, Mistral, BLOOM and BERT of transformers: logits, gradients, and the words that generate() chooses.

The models are tiny and their weights drawn. Each must give, at its real tokens, the logits that the reference gives for the
same weights (`hugging_face_weights.py` says which is which). BERT's head, which is no option, is put together from parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral

from attnspec.reference.activation import activate
from attnspec.reference.decoder import decoder, decoder_layer
from attnspec.reference.embed_tokens import embed_tokens
from attnspec.reference.encoder import encoder, encoder_layer
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.key_value_cache import empty_cache, extend
from attnspec.reference.layer_norm import layer_norm
from attnspec.reference.linear import linear
from attnspec.reference.parameters import part
from attnspec.reference.token_position import token_positions
from attnspec.reference.training_step import loss_and_gradients
from attnspec.reference.transformer import encode, score_words, transformer
from attnspec.reference.transformer_backward import transformer_backward
from tests.authorities import hugging_face_weights as weights
from tests.authorities.agreement import Draw, agrees, authority
from tests.authorities.hugging_face_weights import double_precision, gradient, redrawn, translated

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu", "swish": "silu"}
PLACES = 9  # positions that a model knows
END = 2  # the id of the end symbol
TIE = 1e-5  # generate() rounds logits to float32; where the two best are closer the choice may differ


@dataclass
class Sizes:
    """The sizes of a model, and the source of its numbers; T != S, and V, F and M differ."""

    draw: Draw
    widths: tuple[tuple[int, int], ...] = ((8, 2), (8, 4), (12, 2), (12, 3), (16, 4))  # M and H
    lengths: tuple[int, ...] = (3, 5, 6)  # T and S

    def __post_init__(self) -> None:
        self.B, (self.M, self.H) = 2, self.draw(st.sampled_from(self.widths))
        self.F, self.V = self.draw(st.sampled_from([9, 10])), self.draw(st.sampled_from([11, 13, 17]))
        self.T, self.S = self.draw(st.permutations(self.lengths))[:2]
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32 - 1)))
        self.eps = self.draw(st.sampled_from([1e-5, 1e-2]))
        self.activation = self.draw(st.sampled_from(sorted(ACTIVATIONS)))

    @property
    def either(self) -> bool:
        return bool(self.draw(st.booleans()))

    def tokens(self, length: int, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Ids and which of them are real: one row is whole, the other is padded, with words that must not matter."""
        real = np.arange(length) < np.array([length, self.rng.integers(1, length)])[:, None]
        return self.rng.integers(3, self.V, size=(self.B, length)), real[:, ::-1].copy() if left else real


@dataclass(frozen=True)
class Case:
    """What a model says, and the call of the reference that should say the same."""

    logits: torch.Tensor
    real: np.ndarray
    source: np.ndarray | None
    target: np.ndarray | None
    parameters: dict[str, np.ndarray]
    options: dict[str, Any]
    function: Callable[..., Any] = transformer
    unit: str = "float64"

    def check(self) -> None:
        """What models say at padding means nothing: only real tokens are compared."""

        def at_real_tokens(*args: Any, **options: Any) -> Any:
            return self.function(*args, **options)[self.real]

        got = self.logits.detach().numpy()[self.real]
        args = self.source, self.target, self.parameters
        agrees(got, at_real_tokens, *args, unit=self.unit, **self.options)


def config_of(n: Sizes, **names: str) -> dict[str, Any]:
    """The sizes under the names that a configuration has for them."""
    found = {theirs: getattr(n, ours) for ours, theirs in names.items()}
    return found | {"vocab_size": n.V, "attn_implementation": "eager"}


def inputs(ids: np.ndarray, real: np.ndarray, places: bool = True) -> dict[str, torch.Tensor]:
    """Words, mask and positions; transformers counts positions from the first word, padding or not, if it is not told."""
    found = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(real).long()}
    return found | ({"position_ids": torch.tensor(token_positions(real))} if places else {})


def in_one_row(loss: Any, gradients: dict[str, Any]) -> Any:
    """All in one array: where bounds are sharp, but slow, they are taken where an array differs most."""
    loss = loss.detach().numpy() if isinstance(loss, torch.Tensor) else loss
    return np.concatenate([np.reshape(one, (-1,)) for one in (loss, *(gradients[name] for name in sorted(gradients)))])


def loss_and_gradients_in_one_row(source: Any, target: Any, words: Any, p: Any, **options: Any) -> Any:
    loss, gradients = loss_and_gradients(source, target, words, p, **options)
    assert set(gradients) == set(p)
    return in_one_row(loss, gradients)


def gpt2_model(n: Sizes, by_layer: bool) -> tuple[Any, dict[str, Any]]:
    """GPT-2, and the options of the reference."""
    of_config = config_of(n, M="n_embd", H="n_head", F="n_inner", activation="activation_function", eps="layer_norm_epsilon")
    config = GPT2Config(
        **of_config, n_layer=2, n_positions=PLACES, tie_word_embeddings=n.either, bos_token_id=1, eos_token_id=END,
        scale_attn_by_inverse_layer_idx=by_layer,
    )  # fmt: skip
    options = {"order": "pre", "eps": n.eps, "positions": "learned", "scale_embeddings": False, "heads": n.H}
    options["activation"] = ACTIVATIONS[n.activation]
    return redrawn(GPT2LMHeadModel(config).double(), n.rng), options


def gpt2_case(draw: Draw) -> Case:
    n = Sizes(draw)
    by_layer = n.either
    model, options = gpt2_model(n, by_layer)
    target, real = n.tokens(n.T, left=n.either)
    p = translated(model, weights.GPT2)
    if by_layer:  # scores of layer i are divided by i + 1: here exactly by 2
        p |= {name: p[name] / 2 for name in ("decoder.1.attention.q.weight", "decoder.1.attention.q.bias")}
    return Case(model(**inputs(target, real)).logits, real, None, target, p, options | {"target_mask": real})


@authority("I28", "transformers GPT2LMHeadModel", of=(transformer, decoder, decoder_layer, embed_tokens), examples=8)
def gpt2(draw: Draw) -> None:
    """Pre-norm, learned positions, fused and transposed weights, output tied or not, padding on either side: logits."""
    gpt2_case(draw).check()


@authority("I28", "torch.autograd through GPT2LMHeadModel", of=(transformer_backward, loss_and_gradients), examples=8)
def gpt2_gradients(draw: Draw) -> None:
    """The loss of a padded batch, and its gradient for every parameter."""
    n = Sizes(draw, widths=((8, 2), (8, 4)))
    model, options = gpt2_model(n, by_layer=False)
    (target, real), words = n.tokens(n.T, left=n.either), n.tokens(n.T)[0]
    words = np.where(real, words, 0)
    logits = model(**inputs(target, real)).logits  # their own loss is taken in float32
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(words).flatten(), ignore_index=0)
    loss.backward()
    p, got = translated(model, weights.GPT2), in_one_row(loss, translated(model, weights.GPT2, gradient))
    agrees(got, loss_and_gradients_in_one_row, None, target, words, p, **options, target_mask=real, padding_id=0)


def check_steps(
    words: np.ndarray, logits: torch.Tensor, first: np.ndarray, limit: int, cache_of: Callable[[Any], Any], p: Any,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """What generate() chose after the words `first`, step by step with a cache; and the logits of these steps."""
    best = logits.topk(2).values
    assume((best[..., 0] - best[..., 1]).min() > TIE)

    def step(token: Any, cache: Any) -> tuple[Any, Any]:
        logits, cache = extend(token[:, None], cache, p, **options)
        return logits[:, 0], cache

    np.testing.assert_array_equal(words, greedy_search(step, cache_of(p), first, END, limit))

    def stepwise(p: Any) -> Any:
        cache, found = cache_of(p), []
        for token in (first, *words.T[:-1]):
            logits, cache = extend(token[:, None], cache, p, **options)
            found.append(logits)
        return np.concatenate(found, axis=1)

    agrees(logits.detach().numpy(), stepwise, p)


@authority("I26", "transformers generate, greedy, on GPT2LMHeadModel", of=(extend, empty_cache, greedy_search), examples=8)
def gpt2_generates(draw: Draw) -> None:
    """The words after padded prompts, chosen with the cache of keys and values, and the logits of these steps."""
    n, limit = Sizes(draw), 3
    model, options = gpt2_model(n, by_layer=False)
    prompts, real = n.tokens(n.T, left=True)
    how = {"max_new_tokens": limit, "do_sample": False, "pad_token_id": END}
    out = model.generate(**inputs(prompts, real, places=False), **how).numpy()
    mask = np.concatenate([real, np.ones((n.B, out.shape[1] - n.T), dtype=bool)], axis=1)
    logits = model(**inputs(out, mask)).logits[:, n.T - 1 : -1]

    def cache_of(p: Any) -> Any:
        return extend(prompts[:, :-1], empty_cache(n.B, None, p, **options), p, real[:, :-1], **options)[1]

    check_steps(out[:, n.T :], logits, prompts[:, -1], limit, cache_of, translated(model, weights.GPT2), options)


def llama_case(draw: Draw, kind: str = "llama") -> Case:
    """Llama, or Mistral, which is Llama without biases and with a window."""
    n = Sizes(draw)
    n.H = 4
    base, kv_heads, D = draw(st.sampled_from([10000.0, 50.0])), draw(st.sampled_from([1, 2])), draw(st.sampled_from([4, 6]))
    names = {"M": "hidden_size", "H": "num_attention_heads", "F": "intermediate_size", "eps": "rms_norm_eps"}
    of_config = config_of(n, activation="hidden_act", **names) | {"num_hidden_layers": 2, "num_key_value_heads": kv_heads}
    of_config |= {"head_dim": D, "rope_parameters": {"rope_type": "default", "rope_theta": base}}
    of_config["tie_word_embeddings"] = n.either
    options = {"heads": n.H, "kv_heads": kv_heads, "order": "pre", "norm": "rms", "positions": "rotary", "eps": n.eps}
    options |= {"rotary_base": base, "scale_embeddings": False, "activation": ACTIVATIONS[n.activation]}
    target, real = n.tokens(n.T, left=n.either)
    if kind == "llama":
        config, module = LlamaConfig(**of_config, attention_bias=n.either, mlp_bias=n.either), modeling_llama
    else:
        options["window"] = draw(st.integers(1, n.T - 1))
        config, module = MistralConfig(**of_config, sliding_window=options["window"]), modeling_mistral
    with double_precision(module):
        model = (LlamaForCausalLM if kind == "llama" else MistralForCausalLM)(config).double()
        logits = redrawn(model, n.rng)(**inputs(target, real)).logits
    return Case(logits, real, None, target, translated(model, weights.LLAMA), options | {"target_mask": real})


@authority("I28", "transformers LlamaForCausalLM", of=(transformer, decoder, decoder_layer, embed_tokens), examples=8)
def llama(draw: Draw) -> None:
    """RMS norms, gated feed-forward, rotary positions, grouped heads of any width, biases or none, padding on either side."""
    llama_case(draw).check()


@authority("I28", "transformers MistralForCausalLM", of=(transformer, decoder, decoder_layer, embed_tokens), examples=8)
def mistral(draw: Draw) -> None:
    """Llama with a sliding window."""
    llama_case(draw, "mistral").check()


def bloom_case(draw: Draw) -> Case:
    """In float32 throughout: BLOOM has sqrt(2 / pi) to eight digits only."""
    n = Sizes(draw)
    of_config = config_of(n, M="hidden_size", H="n_head", eps="layer_norm_epsilon")
    model = redrawn(BloomForCausalLM(BloomConfig(**of_config, n_layer=2)), n.rng)
    target, real = n.tokens(n.T, left=n.either)
    options = {"order": "pre", "positions": "alibi", "activation": "gelu_tanh", "scale_embeddings": False, "heads": n.H}
    logits, p = model(**inputs(target, real, places=False)).logits, translated(model, weights.bloom(n.H))
    return Case(logits, real, None, target, p, options | {"eps": n.eps, "target_mask": real}, unit="float32")


@authority("I28", "transformers BloomForCausalLM", of=(transformer, decoder, decoder_layer, embed_tokens), examples=8)
def bloom(draw: Draw) -> None:
    """ALiBi, a norm on the embeddings, fused weights by head, padding on either side; in float32."""
    bloom_case(draw).check()


def bert_logits(source: Any, _: None, p: Any, *, source_mask: Any, **options: Any) -> Any:
    """An encoder, and a head that is a layer of its own."""
    state = activate(linear(encode(source, p, source_mask, **options), part(p, "head.dense")), options["activation"])
    return score_words(layer_norm(state, part(p, "head.norm"), options["eps"]), p)


def bert_case(draw: Draw) -> Case:
    """Token types are expressed by a vocabulary twice as large: word v of type t is word t V + v."""
    n = Sizes(draw)
    names = {"M": "hidden_size", "H": "num_attention_heads", "F": "intermediate_size", "eps": "layer_norm_eps"}
    of_config = config_of(n, activation="hidden_act", **names)
    model = BertForMaskedLM(BertConfig(**of_config, num_hidden_layers=2, max_position_embeddings=PLACES)).double()
    source, real = n.tokens(n.S, left=n.either)
    types = n.rng.integers(0, 2, size=source.shape)
    logits = redrawn(model, n.rng)(**inputs(source, real), token_type_ids=torch.tensor(types)).logits
    p = translated(model, weights.BERT)
    p["output.weight"], of_types = p["source.embedding.weight"], p.pop("types.weight")
    p["source.embedding.weight"] = np.concatenate([p["output.weight"] + one for one in of_types])
    options = {"heads": n.H, "positions": "learned", "scale_embeddings": False, "eps": n.eps, "source_mask": real}
    options["activation"] = ACTIVATIONS[n.activation]
    return Case(logits, real, source + n.V * types, None, p, options, bert_logits)


@authority("I28", "transformers BertForMaskedLM", of=(encode, encoder, encoder_layer, embed_tokens, score_words), examples=8)
def bert(draw: Draw) -> None:
    """Post-norm, learned positions, token types, a norm on the embeddings, padding on either side; with BERT's head."""
    bert_case(draw).check()
