"""What other libraries call the weights of a Transformer: a table for each, and how fused weights come apart.

A table gives each name of a state_dict the names of docs/notation.md. What stands in braces varies; None is no weight.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

# "text" is what docs/notation.md calls the input of a side.
WORDS = {"i": r"\d+", "w": "weight|bias", "x": "[qkv]", "y": "[qkvo]", "side": "en|de", "text": "source|target"}
SIDES = {"en": "source", "de": "target"}


@dataclass(frozen=True)
class Cut:
    """The parts of a weight that others keep fused, transposed or with more rows: their names, and how they are cut out."""

    names: tuple[str, ...]
    cut: Callable[[Tensor], Iterable[Tensor]]


Names = Mapping[str, "str | Cut | None"]


class Renamed(NamedTuple):
    """Weights under the names of docs/notation.md, and the entries that have no place there, or do not come apart."""

    weights: dict[str, Tensor]
    surplus: list[str]
    misshapen: list[str]


def renamed(entries: Mapping[str, Tensor], names: Names) -> Renamed:
    """Gives the weights of others our names, and takes apart what they keep together.

        weights[part] = cut(entry)[part],  for each part that the table names            (1)

    Shapes:  fused and transposed weights become [out,in]; most parts are views of what is given.
    Units:   n/a.
    Empty:   no entries, no weights.
    Errors:  ValueError if a table has two places for an entry, or two entries for a place.
    Source:  docs/notation.md, names of parameters.
    Differs: n/a.
    """
    out = Renamed({}, [], [])
    for name, entry in entries.items():
        found = [(place, words) for pattern, place in names.items() if (words := _words(pattern, name)) is not None]
        if not found:
            out.surplus.append(name)
            continue
        if len(found) > 1:
            raise ValueError(f"{name}: {len(found)} names in the table, want one")
        place, words = found[0]
        try:
            cuts = list(place.cut(entry)) if isinstance(place, Cut) else [entry]
        except RuntimeError:  # torch's own word for sizes that do not divide
            out.misshapen.append(f"{name} {list(entry.shape)}, which does not come apart")
            continue
        for part, tensor in zip(_places(place), cuts, strict=place is not None):
            ours = part.format(**words)
            if ours in out.weights:
                raise ValueError(f"{name}: {ours} has a weight already")
            out.weights[ours] = tensor
    return out


def their_name(ours: str, names: Names) -> str:
    """The other way: what others call the weight in which one of ours is found.

        name = the entry that renamed takes ours from,  or ours if there is none         (1)

    Shapes:  n/a.
    Units:   n/a.
    Empty:   n/a.
    Errors:  none.
    Source:  docs/notation.md, names of parameters.
    Differs: n/a.
    """
    for pattern, place in names.items():
        for part in _places(place):
            words = _words(part, ours)
            if words is not None:
                return pattern.format(**words)
    return ours


def _places(place: str | Cut | None) -> tuple[str, ...]:
    return () if place is None else place.names if isinstance(place, Cut) else (place,)


def _words(pattern: str, name: str) -> dict[str, str] | None:
    """What stands for the braces if the name fits the pattern; a side says its text, a text its side."""
    match = _regex(pattern).fullmatch(name)
    if match is None:
        return None
    words = match.groupdict()
    for side, text in SIDES.items():
        if side == words.get("side") or text == words.get("text"):
            words |= {"side": side, "text": text}
    return words


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern)
    for word, may_be in WORDS.items():
        escaped = escaped.replace(rf"\{{{word}\}}", f"(?P<{word}>{may_be})")
    return re.compile(escaped)


def _transposed(name: str) -> Cut:
    """transformers' Conv1D is [in,out]."""
    return Cut((name,), lambda x: [_out_in(x)])


def _packed(name: str, turn: bool = False) -> Cut:
    """Queries, keys and values below each other in one linear map, or with turn side by side in a Conv1D."""
    return Cut(_qkv(name), lambda x: torch.tensor_split(_out_in(x) if turn else x, 3))


def _packed_by_head(name: str, heads: int) -> Cut:
    """The query, key and value of the first head, those of the second, ..."""

    def cut(x: Tensor) -> list[Tensor]:
        by_head = x.reshape(heads, 3, -1, *x.shape[1:])
        return [by_head[:, j].flatten(0, 1) for j in range(3)]

    return Cut(_qkv(name), cut)


def _out_in(x: Tensor) -> Tensor:
    return x.mT if x.ndim == 2 else x


def _qkv(name: str) -> tuple[str, ...]:
    return tuple(name.replace("{x}", x) for x in "qkv")


GPT2: Names = {
    "transformer.wte.weight": "target.embedding.weight",
    "transformer.wpe.weight": "target.position.weight",
    "transformer.h.{i}.ln_1.{w}": "decoder.{i}.attention_norm.{w}",
    "transformer.h.{i}.attn.c_attn.{w}": _packed("decoder.{i}.attention.{x}.{w}", turn=True),
    "transformer.h.{i}.attn.c_proj.{w}": _transposed("decoder.{i}.attention.o.{w}"),
    "transformer.h.{i}.attn.bias": None,  # the causal mask, in files of old
    "transformer.h.{i}.attn.masked_bias": None,
    "transformer.h.{i}.ln_2.{w}": "decoder.{i}.feed_forward_norm.{w}",
    "transformer.h.{i}.mlp.c_fc.{w}": _transposed("decoder.{i}.feed_forward.up.{w}"),
    "transformer.h.{i}.mlp.c_proj.{w}": _transposed("decoder.{i}.feed_forward.down.{w}"),
    "transformer.ln_f.{w}": "decoder.norm.{w}",
    "lm_head.weight": "output.weight",
}

LLAMA: Names = {
    "model.embed_tokens.weight": "target.embedding.weight",
    "model.layers.{i}.input_layernorm.weight": "decoder.{i}.attention_norm.weight",
    "model.layers.{i}.self_attn.{y}_proj.{w}": "decoder.{i}.attention.{y}.{w}",
    "model.layers.{i}.self_attn.rotary_emb.inv_freq": None,
    "model.layers.{i}.post_attention_layernorm.weight": "decoder.{i}.feed_forward_norm.weight",
    "model.layers.{i}.mlp.gate_proj.{w}": "decoder.{i}.feed_forward.gate.{w}",
    "model.layers.{i}.mlp.up_proj.{w}": "decoder.{i}.feed_forward.up.{w}",
    "model.layers.{i}.mlp.down_proj.{w}": "decoder.{i}.feed_forward.down.{w}",
    "model.norm.weight": "decoder.norm.weight",
    "lm_head.weight": "output.weight",
}


def bloom(heads: int) -> Names:
    """The table of BLOOM, whose fused weights come apart by head.

        rows (3 h + j) D .. (3 h + j + 1) D - 1 are those of head h in q, k, v [j]       (1)

    Shapes:  query_key_value.weight [3 H D,M] -> q.weight, k.weight, v.weight [H D,M].
    Units:   heads is H.
    Empty:   n/a.
    Errors:  none.
    Source:  modeling_bloom.py of transformers 5.23.
    Differs: n/a.
    """
    return {
        "transformer.word_embeddings.weight": "target.embedding.weight",
        "transformer.word_embeddings_layernorm.{w}": "target.embedding_norm.{w}",
        "transformer.h.{i}.input_layernorm.{w}": "decoder.{i}.attention_norm.{w}",
        "transformer.h.{i}.self_attention.query_key_value.{w}": _packed_by_head("decoder.{i}.attention.{x}.{w}", heads),
        "transformer.h.{i}.self_attention.dense.{w}": "decoder.{i}.attention.o.{w}",
        "transformer.h.{i}.post_attention_layernorm.{w}": "decoder.{i}.feed_forward_norm.{w}",
        "transformer.h.{i}.mlp.dense_h_to_4h.{w}": "decoder.{i}.feed_forward.up.{w}",
        "transformer.h.{i}.mlp.dense_4h_to_h.{w}": "decoder.{i}.feed_forward.down.{w}",
        "transformer.ln_f.{w}": "decoder.norm.{w}",
        "lm_head.weight": "output.weight",
    }


SIDE, LAYER = "model.{side}coder.", "model.{side}coder.layers.{i}."
TRANSLATOR: dict[str, str | Cut | None] = {
    "model.shared.weight": "source.embedding.weight",
    SIDE + "embed_tokens.weight": "{text}.embedding.weight",
    LAYER + "self_attn.{x}_proj.{w}": "{side}coder.{i}.attention.{x}.{w}",
    LAYER + "self_attn.out_proj.{w}": "{side}coder.{i}.attention.o.{w}",
    LAYER + "self_attn_layer_norm.{w}": "{side}coder.{i}.attention_norm.{w}",
    LAYER + "encoder_attn.{x}_proj.{w}": "{side}coder.{i}.cross.{x}.{w}",
    LAYER + "encoder_attn.out_proj.{w}": "{side}coder.{i}.cross.o.{w}",
    LAYER + "encoder_attn_layer_norm.{w}": "{side}coder.{i}.cross_norm.{w}",
    LAYER + "fc1.{w}": "{side}coder.{i}.feed_forward.up.{w}",
    LAYER + "fc2.{w}": "{side}coder.{i}.feed_forward.down.{w}",
    LAYER + "final_layer_norm.{w}": "{side}coder.{i}.feed_forward_norm.{w}",
    "final_logits_bias": Cut(("output.bias",), lambda x: [x.squeeze(0)]),
    "lm_head.weight": "output.weight",
}
# The first two positions of BART are never read: position t is row t + 2.
BART: Names = TRANSLATOR | {
    SIDE + "embed_positions.weight": Cut(("{text}.position.weight",), lambda x: [x[2:]]),
    SIDE + "layernorm_embedding.{w}": "{text}.embedding_norm.{w}",
}
MARIAN: Names = TRANSLATOR | {SIDE + "embed_positions.weight": None}

IN_TORCH = "{side}coder.layers.{i}."
TORCH: Names = {
    IN_TORCH + "self_attn.in_proj_{w}": _packed("{side}coder.{i}.attention.{x}.{w}"),
    IN_TORCH + "self_attn.out_proj.{w}": "{side}coder.{i}.attention.o.{w}",
    IN_TORCH + "norm1.{w}": "{side}coder.{i}.attention_norm.{w}",
    "decoder.layers.{i}.multihead_attn.in_proj_{w}": _packed("decoder.{i}.cross.{x}.{w}"),
    "decoder.layers.{i}.multihead_attn.out_proj.{w}": "decoder.{i}.cross.o.{w}",
    "decoder.layers.{i}.norm2.{w}": "decoder.{i}.cross_norm.{w}",
    IN_TORCH + "linear1.{w}": "{side}coder.{i}.feed_forward.up.{w}",
    IN_TORCH + "linear2.{w}": "{side}coder.{i}.feed_forward.down.{w}",
    "encoder.layers.{i}.norm2.{w}": "encoder.{i}.feed_forward_norm.{w}",
    "decoder.layers.{i}.norm3.{w}": "decoder.{i}.feed_forward_norm.{w}",
    "{side}coder.norm.{w}": "{side}coder.norm.{w}",
}


def with_channels(weights: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Takes the channels between layers in another order, which changes no output of the model.

        out channel j = channel order[j], in all that reads or writes the state of a token     (1)

    Shapes:  order [M]; all shapes stay.
    Units:   those of the weights, or of their gradients.
    Empty:   no weights, none.
    Errors:  none.
    Source:  none: sums over channels, norms too, do not depend on their order.
    Differs: n/a.
    """
    out = {}
    for name, x in weights.items():
        part, leaf = name.split(".")[-2:]
        writes = part.endswith("norm") or part in ("o", "down")
        out[name] = x[order] if writes else x[:, order] if leaf == "weight" else x
    return out
