"""What torch's own Transformers are, in the words of TransformerConfig, and their weights under our names."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from attnspec.impl.errors import require
from attnspec.impl.weight_names import TORCH, Renamed, renamed

ACTIVATIONS = {functional.relu: "relu", functional.gelu: "gelu", functional.silu: "silu"}


def options_of(module: nn.Module) -> dict[str, Any]:
    """Reads the options of TransformerConfig off the layers of an nn.Transformer or nn.TransformerEncoder.

        option = what all layers of all stacks, and the norms behind them, have in common     (1)

    Shapes:  -> encoder_layers, decoder_layers (0 without a decoder), width, heads, hidden and the kind of layer.
    Units:   as in TransformerConfig.
    Empty:   a stack without layers is refused.
    Errors:  ValueError for modules that are not torch's own, for layers that differ, and for another activation.
    Source:  torch/nn/modules/transformer.py of torch 2.13.
    Differs: n/a.
    """
    layers = [list(stack.layers) for stack in _stacks(module)]
    depths = [len(one) for one in layers]
    require(min(depths) > 0, "a stack has layers; use a module with some", layers=depths)
    kinds = [_options_of_layer(layer) for stack in layers for layer in stack]
    norms = [stack.norm for stack in _stacks(module)]
    kinds += [kinds[0] | {"eps": norm.eps} for norm in norms if isinstance(norm, nn.LayerNorm)]
    for name, value in kinds[0].items():
        found = [kind[name] for kind in kinds]
        rule = "the layers and norms of a TransformerConfig are alike; build a module where they are"
        require(all(one == value for one in found), rule, **{name: found})
    proper = all(norm is None or type(norm) is nn.LayerNorm for norm in norms) and len({n is None for n in norms}) == 1
    require(proper, "behind the last layer stands nn.LayerNorm or nothing, on both sides; build it so", norm=norms)
    decoder_layers = depths[1] if len(depths) > 1 else 0
    return kinds[0] | {
        "encoder_layers": depths[0], "decoder_layers": decoder_layers, "last_norm": norms[0] is not None,
    }  # fmt: skip


def weights_of(module: nn.Module, alone: str) -> Renamed:
    """The weights of an nn.Transformer, or of an nn.TransformerEncoder as the stack `alone`: encoder or decoder.

        weights = renamed(state_dict, TORCH), and a zero for the bias of each norm that has none     (1)

    Shapes:  as in docs/notation.md.
    Units:   n/a.
    Empty:   n/a.
    Errors:  none; what has no place is in Renamed.surplus.
    Source:  torch/nn/modules/transformer.py of torch 2.13.
    Differs: n/a.
    """
    state = module.state_dict()
    if isinstance(module, nn.TransformerEncoder):
        state = {f"encoder.{name}": x for name, x in state.items()}
    found = renamed(state, TORCH)
    weights = found.weights
    if isinstance(module, nn.TransformerEncoder):
        weights = {alone + name.removeprefix("encoder"): x for name, x in weights.items()}
    for name, scale in list(weights.items()):
        if name.endswith("norm.weight"):
            weights.setdefault(name.removesuffix("weight") + "bias", torch.zeros_like(scale))
    return found._replace(weights=weights)


def _stacks(module: nn.Module) -> list[Any]:
    whole = type(module) is nn.Transformer
    stacks = [module.encoder, module.decoder] if whole else [module]
    kinds = [nn.TransformerEncoder, nn.TransformerDecoder]
    fits = all(type(stack) is kind for stack, kind in zip(stacks, kinds, strict=False))
    rule = "weights are read of nn.Transformer and nn.TransformerEncoder; pass one of these, without parts of your own"
    require(fits, rule, module=[type(module).__name__] + [type(stack).__name__ for stack in stacks if whole])
    return stacks


def _options_of_layer(layer: Any) -> dict[str, Any]:
    kinds = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    require(type(layer) in kinds, "a stack has layers of torch; build it of these", layer=type(layer).__name__)
    crosses = type(layer) is kinds[1]
    attentions = [layer.self_attn] + ([layer.multihead_attn] if crosses else [])
    norms = [layer.norm1, layer.norm2] + ([layer.norm3] if crosses else [])
    drops = [layer.dropout1.p, layer.dropout2.p] + ([layer.dropout3.p] if crosses else [])
    for name, found in (
        ("heads", [one.num_heads for one in attentions]), ("eps", [one.eps for one in norms]), ("dropout", drops),
        ("attention_dropout", [one.dropout for one in attentions]),
    ):  # fmt: skip
        require(len(set(found)) == 1, "the parts of a layer are alike; build one where they are", **{name: found})
    return {
        "width": layer.linear1.in_features, "heads": layer.self_attn.num_heads, "hidden": layer.linear1.out_features,
        "order": "pre" if layer.norm_first else "post", "eps": layer.norm1.eps, "activation": _activation(layer.activation),
        "bias": layer.linear1.bias is not None, "dropout": drops[0], "attention_dropout": layer.self_attn.dropout,
        "activation_dropout": layer.dropout.p,
    }  # fmt: skip


def _activation(function: Any) -> str:
    for kind, name in ((nn.ReLU, "relu"), (nn.SiLU, "silu"), (nn.GELU, "gelu")):
        if type(function) is kind:
            return "gelu_tanh" if getattr(function, "approximate", "none") == "tanh" else name
    rule = f"the activations are {', '.join(ACTIVATIONS.values())}, as functions or modules; use one of these"
    require(any(function is one for one in ACTIVATIONS), rule, activation=function)
    return ACTIVATIONS[function]
