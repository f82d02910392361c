"""Models by name, built here from nothing, and models from a folder of your own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from attnspec.errors import UsageError, nearest
from attnspec.hugging_face.causal import CausalModel
from attnspec.hugging_face.offline import library
from attnspec.hugging_face.redraw import redraw
from attnspec.hugging_face.seq2seq import Seq2SeqModel
from attnspec.hugging_face.shrink import shrink
from attnspec.hugging_face.spelling import all_fields, implementations, loading
from attnspec.properties.verdict import first_line

ROLES = ("seq2seq", "causal")  # a model type that can be both is the first
LISTS = {"causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"}
Wrapped = CausalModel | Seq2SeqModel


def build(
    name: str, *, seed: int = 0, attn: str = "eager", dtype: str = "float64", recording: bool = False, **chosen: Any
) -> Wrapped:
    """A small model of the kind named, with weights drawn from the seed, in evaluation mode.

    Args:    name is a model type (`llama`) or a class (`LlamaForCausalLM`); attn is an attention implementation of the
             library; `chosen` are fields of the configuration; `recording` as for CausalModel.
    Units:   dtype is that of the weights: what a model computes in float32 stays so, and left padding may become NaN in
             float64, unless in_float64() went before.
    Errors:  UsageError for a name, a field or a value that does not exist, and for a model without a language head.
    """
    import torch

    role, named = _class_of(name)
    configuration = named.config_class
    known = {*all_fields(configuration), *configuration.attribute_map}
    if unknown := sorted(set(chosen) - known):
        raise UsageError(f"{name}: {configuration.__name__} has no field {unknown[0]!r}{nearest(unknown[0], known)}")
    try:
        config = shrink(configuration, role, chosen)
    except Exception as error:  # validators of the library raise what they like
        raise UsageError(
            f"{name}: {configuration.__name__} does not take {chosen or 'the shrunk fields'}: {error}"
        ) from error
    how = implementations(attn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = named._from_config(config, **how)
        except Exception as error:
            raise UsageError(f"{name}: {named.__name__} with attn={attn} cannot be made: {first_line(error)}") from error
    model = model.to(getattr(torch, dtype))
    redraw(model, seed)
    return wrapped(model, recording=recording)


def folder(path: str | Path, *, attn: str = "eager", dtype: str = "auto", recording: bool = False) -> Wrapped:
    """The model in a folder: config.json and safetensors, nothing fetched and no code of the folder run.

    Args:    dtype `auto` is the one that config.json names.
    Errors:  UsageError if the folder is none, or its model has no language head; whatever the library says of its files.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UsageError(f"folder {str(path)!r}: it has no config.json; name a folder that save_pretrained wrote")
    transformers, safe = library(), {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(path, **safe)
    named = next((n for n in config.architectures or [] if hasattr(transformers, n)), None)
    _, found = _class_of(named or config.model_type)
    model = found.from_pretrained(
        path,
        config=config,
        **implementations(attn),
        **loading(dtype),
        **safe,
    )
    model = model.to(model.dtype)  # tables that are not saved are made in float32; `build` converts them too
    for weight in (*model.parameters(), *model.buffers()):
        # Loaded weights lie in the file, where it has them, and vector code sums in another order there: last bits differ.
        weight.data = weight.data.clone()
    return wrapped(model, recording=recording)


def wrapped(model: Any, *, recording: bool = False) -> Wrapped:
    """A model of the library under the protocol, in evaluation mode."""
    model.eval()
    if model.config.is_encoder_decoder:
        return Seq2SeqModel(model)
    return CausalModel(model, recording=recording)


def _class_of(name: str) -> tuple[str, Any]:
    """The role and the class of a model type or class name."""
    transformers = library()
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    lists = {role: getattr(auto, LISTS[role]) for role in ROLES}
    for role, classes in lists.items():
        if name in classes:
            return role, getattr(transformers, classes[name])
        if name in classes.values():
            return role, getattr(transformers, name)
    known = {name for classes in lists.values() for pair in classes.items() for name in pair}
    raise UsageError(f"{name}: no causal or sequence-to-sequence language model of transformers{nearest(name, known)}")
