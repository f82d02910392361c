"""Whole models in float64, those too that ask for float32 inside."""

from __future__ import annotations

import importlib
import sys

# What is imported first, because its default arguments (`dtype=torch.float32`) mean the real float32; no version has all.
LIBRARY = (
    "transformers.modeling_utils",
    "transformers.generation",
    "transformers.generation_utils",
    "transformers.cache_utils",
    "transformers.loss.loss_utils",
)


def in_float64() -> None:
    """Makes float32 mean float64 in this process, for good: call it before a model is imported, in a process of its own.

    A model in float64 is not computed in float64: norms, softmax, rotations and recurrences say `.to(torch.float32)`,
    `.float()` or `dtype=torch.float32`, so two right paths differ by 1e-7 and a small violation hides among them. The words
    that they use are patched, and nothing else of them. Nor do such models stand padding in float64: the number that hides
    a key, the least float64, overflows where a softmax in float32 takes it, and a row of hidden keys becomes NaN.

    - `torch.float32` and `torch.float`: an upcast by name becomes float64, and so does a table that is made in float32;
    - `Tensor.float`: an upcast by method;
    - the default dtype: what names no dtype, as `torch.arange(0, n, 2) / n` in a rotation.

    After that float32 cannot be named: save and load models elsewhere. Errors: RuntimeError where a model is imported
    already, as its module may have kept the real float32 in a default argument or a constant.
    """
    import torch

    from attnspec.hugging_face.offline import library

    library()
    if early := models_imported():
        raise RuntimeError(f"{early[0]} is imported already; call in_float64() first, in a process of its own")
    preload()
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def preload() -> None:
    """Imports the library and none of its models. Errors: UsageError if it is not installed."""
    from attnspec.hugging_face.offline import library

    library()
    for module in LIBRARY:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise  # something that the library needs is missing


def models_imported() -> list[str]:
    """The modules of models that this process has imported, or that one had from which it was forked."""
    return sorted(m for m in sys.modules if m.startswith("transformers.models.") and _is_modelling(m))


def _is_modelling(module: str) -> bool:
    """`transformers.models.X.modeling_X`; the lists of classes in `models.auto` compute nothing."""
    return module.rpartition(".")[2].startswith("modeling_") and ".auto." not in module
