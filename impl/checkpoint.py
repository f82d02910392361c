"""Files that hold all that training needs to go on as if it had never stopped: safetensors, nothing that runs code."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from attnspec.impl.config import TransformerConfig
from attnspec.impl.errors import require
from attnspec.impl.training import Trainer
from attnspec.impl.transformer import CausalLM, Seq2Seq, Transformer

FORMAT = "1"
KINDS = {kind.__name__: kind for kind in (CausalLM, Seq2Seq, Transformer)}
WEIGHTS, MOMENTS, RANDOM = "", "moments/", "random/"  # weights have the names of docs/notation.md
MOMENT_KINDS = ("step", "exp_avg", "exp_avg_sq")  # torch's names


def save(path: str | Path, trainer: Trainer) -> None:
    """Writes the weights of a trainer's model, the state of its optimiser, and that of the random numbers.

        file = weights, moments, random numbers;  its header = kind, config, step        (1)

    Whoever stops this, and whenever, finds the old file or the new one.

    Shapes:  tensors as in state_dict, moments as the parameters; the file has the memory of both.
    Units:   n/a.
    Empty:   before the first step there are no moments.
    Errors:  ValueError for a model without a configuration; OSError if the file cannot be written.
    Source:  the safetensors format: a JSON header, then the bytes of all tensors.
    Differs: n/a.
    """
    path, model = Path(path), trainer.model
    config = getattr(model, "config", None)
    known = type(model).__name__ in KINDS and isinstance(config, TransformerConfig)
    require(known, f"a checkpoint holds {', '.join(KINDS)}; save others yourself", model=type(model).__name__)
    header = {
        "attnspec": FORMAT, "kind": type(model).__name__, "step": str(trainer.taken),
        "config": json.dumps(dataclasses.asdict(config)),  # type: ignore[arg-type]
    }  # fmt: skip
    # Copies, as the format refuses views of one array, which joint projections and shared weights are.
    tensors = {name: one.detach().clone() for name, one in _all(trainer).items()}
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        save_file(tensors, part, header)
        part.chmod(mode)  # safetensors makes files that only their owner may read
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave the new name with old bytes
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def resume(path: str | Path, trainer: Trainer) -> None:
    """Puts a trainer where the one that was saved stood: its next steps are the same to the last bit.

        weights, moments, step, random numbers = those of the file                       (1)

    Shapes:  as in save.
    Units:   what a trainer was made with is not in the file: give the same again, and the batches from there on. The
             random numbers are torch's global ones, of the CPU and of the GPU if the model is on one.
    Empty:   a file from before the first step resets the moments.
    Errors:  ValueError, with the trainer unchanged, for a file that is no checkpoint, cut short, of another model, or
             that lacks tensors.
    Source:  as in save.
    Differs: n/a.
    """
    header, tensors = _read(path)
    model = trainer.model
    _check_model(path, header, model)
    weights, moments, random = (_named(tensors, prefix) for prefix in (WEIGHTS, MOMENTS, RANDOM))
    _check(path, weights, model.state_dict())
    _check(path, moments, _expected_moments(model) if moments else {})
    _check(path, {"cpu": random["cpu"]} if "cpu" in random else {}, {"cpu": torch.get_rng_state()})
    model.load_state_dict(weights)
    trainer.taken = header["step"]
    trainer.optimizer.state.clear()
    for name, one in model.named_parameters():
        if moments:
            state = {kind: moments[f"{name}/{kind}"].to(one.device, copy=True) for kind in MOMENT_KINDS}
            trainer.optimizer.state[one] = state
    if trainer.working:
        trainer.working.refresh()
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and "cuda" in _random(model):
        torch.cuda.set_rng_state(random["cuda"])


def read_model(path: str | Path) -> Any:
    """Builds the model of a checkpoint, with its weights, ready to decode.

        model = kind(config) with the weights of the file, after eval()                  (1)

    Shapes:  as in save.
    Units:   weights have the dtype that they were saved in.
    Empty:   n/a.
    Errors:  those of resume; ValueError for a configuration of another version.
    Source:  as in save.
    Differs: n/a.
    """
    header, tensors = _read(path)
    weights = _named(tensors, WEIGHTS)
    model = KINDS[header["kind"]](header["config"])
    model = model.to(next(iter(weights.values())).dtype)
    _check(path, weights, model.state_dict())
    model.load_state_dict(weights)
    return model.eval()


def _all(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of a file."""
    state = trainer.optimizer.state
    tensors = dict(trainer.model.state_dict())
    for name, one in trainer.model.named_parameters():
        tensors |= {f"{MOMENTS}{name}/{kind}": moment for kind, moment in state.get(one, {}).items()}
    return tensors | {RANDOM + name: one for name, one in _random(trainer.model).items()}


def _random(model: nn.Module) -> dict[str, Tensor]:
    """The states of the random numbers that the model may draw."""
    states = {"cpu": torch.get_rng_state()}
    if next(model.parameters()).is_cuda:
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _expected_moments(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of the shapes and dtypes of the moments."""
    moments: dict[str, Tensor] = {}
    for name, one in model.named_parameters():
        moments |= {f"{name}/{kind}": torch.zeros(()) if kind == "step" else one for kind in MOMENT_KINDS}
    return moments


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a part of the file, under their own names."""
    if not prefix:
        return {name: one for name, one in tensors.items() if "/" not in name}
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header, with what is not text parsed, and all tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        require(False, "it is not a whole safetensors file; use a checkpoint that save wrote", path=path, error=error)
        raise
    ours = header.get("attnspec") == FORMAT and header.get("kind") in KINDS
    rule = f"its header says attnspec: {FORMAT} and a kind of model; use a checkpoint that save wrote"
    require(ours, rule, path=path, header=header)
    options = json.loads(header["config"])
    strange = sorted(set(options) - {field.name for field in dataclasses.fields(TransformerConfig)})
    require(not strange, "its options are those of TransformerConfig; update attnspec", path=path, options=strange)
    return {"kind": header["kind"], "config": TransformerConfig(**options), "step": int(header["step"])}, tensors


def _check_model(path: str | Path, header: dict[str, Any], model: nn.Module) -> None:
    """Whether the model is of the kind and the configuration of the file."""
    kind, rule = type(model).__name__, "a file continues its own kind of model; build that"
    require(header["kind"] == kind, rule, path=path, file=header["kind"], model=kind)
    own, saved = (dataclasses.asdict(cast(TransformerConfig, one)) for one in (model.config, header["config"]))
    unlike = {name: (own[name], saved[name]) for name in own if own[name] != saved[name]}
    rule = "model and file have one configuration; build the model from read_model(path).config"
    require(not unlike, f"(model, file): {rule}", path=path, **unlike)


def _check(path: str | Path, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Whether names, shapes and dtypes are those wanted."""
    missing, stray = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    rule = "a checkpoint has the tensors of its model and no others; use a file that save wrote"
    require(not missing and not stray, rule, path=path, missing=missing[:3], stray=stray[:3])
    for name, one in wanted.items():
        got = given[name]
        rule = f"its tensors fit the model, here {list(one.shape)} {one.dtype}; build the model that was saved"
        fits = got.shape == one.shape and got.dtype == one.dtype
        require(fits, rule, path=path, tensor=name, shape=got.shape, dtype=got.dtype)
