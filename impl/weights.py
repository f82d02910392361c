"""Models with the weights of other libraries: transformers' and torch's own, to the last rounding the same functions."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from attnspec.impl.config import TransformerConfig
from attnspec.impl.errors import require
from attnspec.impl.hugging_face_config import parts_without_bias, read
from attnspec.impl.positions import sinusoidal
from attnspec.impl.torch_modules import options_of, weights_of
from attnspec.impl.transformer import CausalLM, Seq2Seq, Transformer
from attnspec.impl.weight_names import TORCH, Names, Renamed, renamed, their_name, with_channels

SHOWN = 4  # names in a message


def from_transformers(config: Any, state_dict: Mapping[str, Tensor]) -> CausalLM | Seq2Seq:
    """Builds the model of a configuration and a state_dict of transformers.

        logits = those of GPT2LMHeadModel, LlamaForCausalLM, MistralForCausalLM, BloomForCausalLM,
                 BartForConditionalGeneration or MarianMTModel with these weights, at all real tokens     (1)

    Shapes:  config as in hugging_face_config.read; state_dict is the model's, or that of the model inside it.
    Units:   the weights are copied and keep dtype and device. The model is in eval(); dropout is that of the config.
    Empty:   a copy of another entry, such as a tied lm_head.weight, may be absent.
    Errors:  ValueError for what TransformerConfig cannot express, and for weights that are missing, surplus or of another
             shape, all in one message; nothing is half loaded.
    Source:  modeling_*.py of transformers 5.23.
    Differs: positions count real tokens here; BART and Marian of transformers count padding on the left too, GPT-2, Llama
             and Mistral unless they get position_ids. Marian has all sines before all cosines: its channels are put in
             our order. BLOOM has sqrt(2/pi) to eight digits only, so that it agrees to rounding up to float32.
    """
    options, family, given = read(config)
    names = family.names(given)
    entries = _without_copies(_of_whole_model(state_dict, names), family.copies(given))
    found = renamed(entries, names)
    for part in parts_without_bias(given) if options.bias else ():
        _set_biases_to_zero(found, part, names)
    order = None
    if given["model_type"] == "marian":
        _check_sinusoids(entries, options.width)
        order = torch.arange(options.width).view(2, -1).T.flatten()
    net = _loaded(options, found, names, order)
    assert isinstance(net, CausalLM | Seq2Seq)
    return net


def from_torch(
    module: torch.nn.Module, beside: Mapping[str, Tensor], *, positions: str | None = "sinusoidal",
    scale_embeddings: bool = True, max_length: int = 1024,
) -> Transformer:  # fmt: skip
    """Builds a model around an nn.Transformer, or an nn.TransformerEncoder with or without a causal mask.

        state = module(x(source), x(target), masks),  x = sqrt(M) embedding + positions,  logits = state W^T + b     (1)

    torch's modules begin behind the embeddings and end before the output; `beside` has what they lack, under the names
    of docs/notation.md. What it has decides what is built: an nn.TransformerEncoder beside source.embedding.weight is an
    encoder alone, beside target.embedding.weight a language model (a CausalLM).

    Shapes:  beside: source.embedding.weight, target.embedding.weight [V,M] (absent: shared), output.weight [V,M] (absent:
             tied), output.bias [V], source.position.weight, target.position.weight [max_length,M] (then positions are
             learned), source.embedding_norm.*, target.embedding_norm.*.
    Units:   as in from_transformers. torch hides where its masks are True; here True is a real token.
    Empty:   without a bias in its norms, theirs are zero here.
    Errors:  as in from_transformers; ValueError for modules that are not torch's own, or whose layers are not alike.
    Source:  torch/nn/modules/transformer.py of torch 2.13.
    Differs: nn.Transformer applies no dropout to embeddings; in training this does.
    """
    rule = "nn.Transformer knows of no positions, so that they are added to embeddings; use sinusoidal, learned or None"
    require(positions in ("sinusoidal", "learned", None), rule, positions=positions)
    options, words = options_of(module), beside.get("target.embedding.weight")
    one_stack = isinstance(module, torch.nn.TransformerEncoder)
    if one_stack and words is not None:  # a language model
        options |= {"encoder_layers": 0, "decoder_layers": options["encoder_layers"]}
    found = weights_of(module, "encoder" if words is None else "decoder")
    twice = sorted(set(found.weights) & set(beside))
    require(not twice, "the module has these weights; leave them out", beside=_first(twice))
    source = beside.get("source.embedding.weight")
    rule = "a model reads words; pass source.embedding.weight, or target.embedding.weight for a language model"
    require(source is not None or (one_stack and words is not None), rule, beside=_first(sorted(beside)))
    places = [x for name, x in beside.items() if name.endswith("position.weight")]
    options |= {
        "vocab_size": len(cast(Tensor, source if words is None else words)),
        "source_vocab_size": None if source is None else len(source), "shared": not one_stack and words is None,
        "positions": "learned" if places else positions, "max_length": len(places[0]) if places else max_length,
        "tied": "output.weight" not in beside, "output_bias": "output.bias" in beside, "scale_embeddings": scale_embeddings,
        "embedding_norm": any(".embedding_norm." in name for name in beside),
    }  # fmt: skip
    return _loaded(TransformerConfig(**options), found._replace(weights=found.weights | dict(beside)), TORCH)


def _loaded(config: TransformerConfig, found: Renamed, names: Names, order: Tensor | None = None) -> Transformer:
    """The model of a configuration with these weights, all or none; names and order are those of others."""
    kind: type[Transformer] = CausalLM if not config.encoder_layers else Seq2Seq if config.decoder_layers else Transformer
    with torch.device("meta"):  # shapes without memory
        net = kind(config)
    shapes, weights = {name: list(x.shape) for name, x in net.state_dict().items()}, found.weights
    missing = [their_name(name, names) for name in shapes if name not in weights]
    surplus = found.surplus + [their_name(name, names) for name in weights if name not in shapes]
    misshapen = found.misshapen + [
        f"{their_name(name, names)}: {name} is {list(x.shape)}, want {shapes[name]}"
        for name, x in weights.items() if name in shapes and list(x.shape) != shapes[name]
    ]  # fmt: skip
    rule = "the configuration says which weights there are; pass the configuration and the weights of one model"
    wrong = {"missing": missing, "surplus": surplus, "misshapen": misshapen}
    require(not any(wrong.values()), rule, **{name: _first(some) for name, some in wrong.items() if some})
    kinds = sorted({f"{x.dtype} on {x.device}" for x in weights.values()})
    one_kind = len(kinds) == 1 and all(x.is_floating_point() for x in weights.values())
    require(one_kind, "weights are floating, of one dtype and on one device; convert them", weights=kinds)
    weights = weights if order is None else with_channels(weights, order.to(weights["output.bias"].device))
    copies = {name: x.detach().clone(memory_format=torch.contiguous_format) for name, x in weights.items()}
    net.load_state_dict(copies, assign=True)
    return net.eval()


def _first(names: list[str]) -> str:
    names = list(dict.fromkeys(names))  # the parts of a fused weight have one name
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "[" + ", ".join(names[:SHOWN]) + more + "]"


def _of_whole_model(state_dict: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """The entries as the model with a head calls them, also if they are those of the model inside it."""
    inside = next(iter(names)).partition(".")[0] + "."
    if any(name.startswith(inside) for name in state_dict):
        return dict(state_dict)
    return {inside + name: x for name, x in state_dict.items()}


def _without_copies(entries: dict[str, Tensor], copies: dict[str, str]) -> dict[str, Tensor]:
    """Each tensor once: files may have only one of the names of a tensor that a model has twice, any of them."""
    out = dict(entries)
    for copy, original in copies.items():
        if copy not in out:
            continue
        tensor = out.pop(copy)
        kept = out.setdefault(original, tensor)
        same = kept is tensor or (kept.shape == tensor.shape and bool((kept == tensor).all()))
        rule = "the configuration ties these weights, but they differ; set tie_word_embeddings=False if that is meant"
        require(same, rule, tied=[copy, original])
    return out


def _set_biases_to_zero(found: Renamed, part: str, names: Names) -> None:
    """For a part of the layers that has no biases while another has: here all have them, or none."""
    for name, x in list(found.weights.items()):
        if f".{part}." in name and name.endswith(".weight"):
            bias = name.removesuffix("weight") + "bias"
            if bias in found.weights:
                found.surplus.append(f"{their_name(bias, names)}, which the configuration excludes")
            found.weights[bias] = x.new_zeros(len(x))


def _check_sinusoids(entries: Mapping[str, Tensor], M: int) -> None:
    """Marian's positions are computed here: where a state_dict has them, they must be what is computed."""
    for name, x in entries.items():
        if name.endswith("embed_positions.weight"):
            want = sinusoidal(torch.arange(len(x), device=x.device), M)
            want = torch.cat([want[:, 0::2], want[:, 1::2]], dim=1)
            close = x.shape == want.shape and bool(((x - want).abs() <= 2.0**-7).all())  # bfloat16 rounds by 2^-9
            require(close, "positions of Marian are sinusoids; use a model that has not trained them", weights=name)
