"""What can be asked of any torch model, beside the methods that it has itself (docs/conventions.md, Language models).

jacobian     of a model that looks up its words by their ids
grafted      of a torch module with a stack of layers
gradients, reloaded, renamed, narrowed, nudged    of a `torch.nn.Module`, or of what holds one as `model`

A model that has a method of the same name is asked that instead. torch is imported by the model, not here.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

OF_MODULES = ("grafted", "gradients", "reloaded", "renamed", "narrowed", "nudged")


def serves(model: Any, method: str) -> bool:
    """Whether the function of this name is for such a model."""
    return method == "jacobian" or (method in OF_MODULES and module_of(model) is not None)


def module_of(model: Any) -> nn.Module | None:
    """The module that a model is, or holds as `model`."""
    torch = sys.modules.get("torch")
    return next((m for m in (model, getattr(model, "model", None)) if torch and isinstance(m, torch.nn.Module)), None)


def jacobian(model: Any, *given: Tensor) -> Tensor:
    """influence[s, t]: the largest |d (c · logits[t]) / d embedding[s]| over channels, for one row of ids, with c drawn once.

    The embedding is what a lookup gives that is indexed by the ids themselves; if there are several, the largest counts. With
    a random c a derivative that is not zero is seen with probability 1.

    Args:    given are the arguments of `logits`, the ids [1,T] last.
    Errors:  LookupError if no such lookup is seen.
    """
    import torch

    ids = given[-1]
    with torch.enable_grad():
        with _leaves(ids) as leaves:
            out = model.logits(*given)[0]
        if not leaves:
            raise LookupError("no lookup by the ids was seen: nn.Embedding, or an index into a table")
        generator = torch.Generator().manual_seed(17)
        weights = torch.randn(out.shape[-1], generator=generator, dtype=torch.float64).to(out)
        found = torch.zeros(len(out), len(out), dtype=torch.float64)
        for t, score in enumerate(out @ weights):
            for slope in torch.autograd.grad(score, leaves, retain_graph=True, allow_unused=True):
                if slope is not None:
                    each = slope.detach().double().abs().reshape(len(out), -1).amax(1).cpu()
                    found[:, t] = torch.maximum(found[:, t], each)
    return found


def _leaves(ids: Tensor) -> Any:
    """Inside the block every lookup by these ids gives an array that derivatives can be taken by; they are collected."""
    import torch
    from torch.overrides import TorchFunctionMode

    lookups = {
        torch.nn.functional.embedding,
        torch.embedding,
        torch.index_select,
        torch.Tensor.index_select,
        torch.Tensor.__getitem__,
    }

    class Leaves(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.leaves: list[Tensor] = []

        def __enter__(self) -> list[Tensor]:
            super().__enter__()  # type: ignore[no-untyped-call]
            return self.leaves

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            if func in lookups and out.is_floating_point() and any(self.is_ids(x) for x in args):
                leaf = out.detach().requires_grad_()
                self.leaves.append(leaf)
                return leaf.clone()  # it may be changed in place
            return out

        def is_ids(self, x: Any) -> bool:
            return isinstance(x, torch.Tensor) and x.numel() == ids.numel() and torch.equal(x.flatten(), ids.flatten())

    return Leaves()


def grafted(model: Any, *given: Tensor) -> Tensor:
    """The logits of a call for `others` whose upper layers go on from what the lower ones made of `ids`.

    Args:    given are the arguments of `logits`, the ids last, and `others` [B,T] behind them.
    Errors:  LookupError if there are no two layers, as in an `nn.ModuleList`, that are called one after the other.
    """
    *before, ids, others = given
    stack = _stack(model, *before, ids)
    layer, kept = stack[len(stack) // 2 - 1], []

    def keep(_: Any, inputs: Any, output: Any) -> None:
        del inputs
        kept.append(output[0] if isinstance(output, tuple) else output)

    def put(_: Any, inputs: Any, output: Any) -> Any:
        del inputs
        return (kept[0], *output[1:]) if isinstance(output, tuple) else kept[0]

    for hook, called in ((keep, ids), (put, others)):
        handle = layer.register_forward_hook(hook)
        try:
            out: Tensor = model.logits(*before, called)
        finally:
            handle.remove()
    return out


def _stack(model: Any, *given: Tensor) -> list[nn.Module]:
    """The layers that see the ids: the last modules with numbers for names that are called once each, in their order."""
    module = module_of(model)
    assert module is not None
    numbered = ([child for name, child in m.named_children() if name.isdigit()] for m in module.modules())
    lists = [row for row in numbered if len(row) > 1]
    called: list[nn.Module] = []
    handles = [
        m.register_forward_pre_hook(lambda m, _: called.append(m)) for m in dict.fromkeys(m for row in lists for m in row)
    ]
    try:
        model.logits(*given)
    finally:
        for handle in handles:
            handle.remove()
    inner = {m for row in lists for outer in row for m in outer.modules() if m is not outer}
    stacks = [row for row in lists if row[0] not in inner and [m for m in called if m in row] == row]
    if not stacks:
        raise LookupError("no layers that are called one after the other were seen: an nn.ModuleList of them, say")
    return max(stacks, key=lambda row: called.index(row[-1]))


def gradients(model: Any, *given: Tensor) -> dict[str, Tensor]:
    """The gradients of the sum of -log p(word | words before it), by the names of the module's parameters.

    Args:    given are the arguments of `logits`, the ids last.
    """
    import torch

    module, ids = module_of(model), given[-1]
    assert module is not None
    before = {name: p.requires_grad for name, p in module.named_parameters()}
    named = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    try:
        with torch.enable_grad():
            for parameter in named.values():
                parameter.requires_grad_()
            logs = model.logits(*given)[:, :-1].log_softmax(-1)
            total = -logs.gather(-1, ids[:, 1:, None]).sum()
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(before[name])
    return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}


def reloaded(model: Any) -> Any:
    """A copy whose parameters and saved buffers were forgotten, and read again from a file of the model's."""
    from safetensors.torch import load_file, save_file

    module, other = module_of(model), _copy(model)
    fresh = module_of(other)
    assert module is not None
    assert fresh is not None
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.safetensors")
        # Each by itself: some share memory, as a tied output does, and the format has no word for that.
        save_file({name: x.detach().clone().contiguous() for name, x in module.state_dict().items()}, file)
        for saved in fresh.state_dict().values():
            if saved.is_floating_point():
                saved.fill_(float("nan"))
        fresh.load_state_dict(load_file(file))
    return other


def renamed(model: Any, permutation: Tensor) -> Any:
    """A copy whose word permutation[i] is what word i is here: every table with a row or column a word is reordered.

    Errors: ValueError where another axis is as long as the vocabulary, so that it cannot be told which one is of words.
    """
    import torch

    other, done = _copy(model), set()
    module = module_of(other)
    assert module is not None
    with torch.no_grad():
        for name, table in (*module.named_parameters(), *module.named_buffers()):
            axes = [axis for axis, size in enumerate(table.shape) if size == len(permutation)]
            if len(axes) > 1:
                raise ValueError(f"{name} has shape {list(table.shape)}, and there are {len(permutation)} words")
            if axes and table.data_ptr() not in done:  # the output may share the table of the embedding
                done.add(table.data_ptr())
                table.copy_(torch.empty_like(table).index_copy(axes[0], permutation, table))
    return other


def narrowed(model: Any, dtype: str) -> Any:
    """A copy in float16 or bfloat16."""
    import torch

    other = _copy(model)
    module = module_of(other)
    assert module is not None
    module.to(getattr(torch, dtype))
    return other


def nudged(model: Any, changes: dict[str, Tensor]) -> Any:
    """A copy to whose parameters these changes were added, by name."""
    import torch

    other = _copy(model)
    module = module_of(other)
    assert module is not None
    with torch.no_grad():
        named = dict(module.named_parameters())
        for name, change in changes.items():
            named[name].add_(change)
    return other


def _copy(model: Any) -> Any:
    """A copy with parameters of its own. A model that holds a module may say by `around(module)` how another is made."""
    module = module_of(model)
    if module is not model and hasattr(model, "around"):
        return model.around(copy.deepcopy(module))
    return copy.deepcopy(model)
