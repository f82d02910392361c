"""What holds the past of a model, and how it is told to choose rows and to forget: always by what the library has for it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attnspec.errors import UsageError
from attnspec.hugging_face.offline import data, library
from attnspec.properties.verdict import first_line

if TYPE_CHECKING:
    from torch import Tensor


class Past:
    """The past that a model's outputs carry, whatever it is made of: it is fed back as it came out.

        Cache object    reorder, crop: methods of its own
        tuples          reorder: `_reorder_cache` of the model; crop: what assisted decoding does to tuples; where neither is
                        there, and the tuples are the outer form of a DynamicCache, that is made of them for the while

    `name` is that of the argument and of the output, None if a call returns nothing that holds its past; `mask_of` says which
    tokens the mask that goes with it covers. `lacks` says why `reorder` or `crop` cannot be had.

    Args:    out is that of a first call; recording as for CausalModel.
    Errors:  UsageError if recording is asked of a version that has none.
    """

    def __init__(self, model: Any, out: Any, *, recording: bool = False) -> None:
        self.model, self.recording = model, recording
        if recording and not hasattr(getattr(library(), "DynamicCache", None), "activate_past_recording"):
            raise UsageError(f"recording=True: no cache of transformers {library().__version__} records; leave it out")
        self.device = next(model.parameters()).device
        self.name, self.mask_of, self.slots = _held(out)
        self.lacks: dict[str, str] = {}
        if self.name is None:
            reason = "a call returns nothing that holds its past"
            self.lacks = dict.fromkeys(("cache", "reorder", "crop", "fork"), reason)
            return
        cache = getattr(out, self.name)
        reasons = {"reorder": self._why_no_reorder(cache), "crop": self._why_no_crop(cache)}
        self.lacks = {feature: reason for feature, reason in reasons.items() if reason is not None}

    def given(self, cache: Any, past: int, new: int, accepts: set[str]) -> dict[str, Any]:
        """The arguments of a call that hand over what holds `past` slots, where `new` tokens follow."""
        if cache is None:
            return {}
        import torch

        given = {self.name: cache}
        if self.slots in accepts:
            given[self.slots] = torch.arange(past, past + new, device=self.device)
        return given

    def begun(self) -> Any:
        """What a first call gets: nothing, as the model makes what it needs, unless windows are to keep what leaves them."""
        if not self.recording:
            return None
        cache = library().DynamicCache(config=self.model.config)
        cache.activate_past_recording()
        return cache

    def reorder(self, cache: Any, index: Tensor, rows: int) -> Any:
        """Rows index of the past of `rows` rows; a new object, as the library reorders in place."""
        cache = copy.deepcopy(cache)
        if not self._is_tuples(cache):
            cache.reorder_cache(index)
            return cache
        if self._reorders_tuples():
            return _reordered(self.model, cache, index, rows)
        return _by_object(cache, lambda made: made.reorder_cache(index))

    def crop(self, cache: Any, kept: int, gone: int) -> Any:
        """The first `kept` slots of kept + gone; a new object."""
        cache = copy.deepcopy(cache)
        if not self._is_tuples(cache):
            cache.crop(-gone)  # a positive number is refused: it meant something else once
            return cache
        return _of_assisted_decoding()(self.model, cache, kept)  # type: ignore[misc]  # offered only where it is there

    def _why_no_reorder(self, cache: Any) -> str | None:
        """Why rows cannot be chosen."""
        if not self._is_tuples(cache):
            return None if hasattr(cache, "reorder_cache") else f"{type(cache).__name__} has no reorder_cache"
        if self._reorders_tuples() or getattr(self.model, "_supports_cache_class", False):
            return _refusal(lambda: self.reorder(cache, self._first_row(), 1))
        return f"{type(self.model).__name__} has no _reorder_cache, and the layout of its tuples is not known"

    def _why_no_crop(self, cache: Any) -> str | None:
        """Why the last slots cannot be forgotten."""
        if self._is_tuples(cache):
            if _of_assisted_decoding() is None:
                version = library().__version__
                return f"nothing in transformers {version} crops tuples, and their layout differs between models"
            return _refusal(lambda: self.crop(cache, 1, 1))
        if not hasattr(cache, "is_croppable"):
            # A class derived from it may hold a recurrence, of which the crop that it inherits knows nothing.
            plain = type(cache) is getattr(library(), "DynamicCache", None) and hasattr(cache, "crop")
            return None if plain else f"{type(cache).__name__} has no crop that is known to be right"
        if not cache.is_croppable:
            return f"{type(cache).__name__} says that it is not croppable: a recurrence cannot go back"
        forgets = any(hasattr(layer, "activate_past_recording") for layer in getattr(cache, "layers", []))
        return "a window forgets what leaves it; ask for recording=True" if forgets and not self.recording else None

    def _first_row(self) -> Tensor:
        import torch

        return torch.zeros(1, dtype=torch.int64, device=self.device)

    def _reorders_tuples(self) -> bool:
        """Whether the model has a `_reorder_cache` of its own: that of all models only says that it is missing."""
        owner = next((c for c in type(self.model).__mro__ if "_reorder_cache" in vars(c)), None)
        return owner is not None and not owner.__module__.startswith("transformers.generation")

    def _is_tuples(self, cache: Any) -> bool:
        """Whether it is keys and values in tuples; what goes by other names may have its rows on any axis."""
        return self.name == "past_key_values" and isinstance(cache, (tuple, list))


def _held(out: Any) -> tuple[Any, str, str]:
    """The name under which an output holds the past, None if it does not, the mask and the argument that go with it."""
    for cache in data("calls")["cache"]:
        if getattr(out, cache["name"], None) is not None:
            return cache["name"], cache["mask"], cache.get("slots", "")
    return None, "past and new", ""


def _reordered(model: Any, cache: Any, index: Tensor, rows: int) -> Any:
    """By the model's `_reorder_cache`, which is for beams: their number stays, and some layouts are read off it.

    So the past is first repeated until it has rows enough, and what is too much is cut off. Beams share a source, so keys of
    a source may be left as they are; like the memory, they go with their rows. The first axis of each tensor is that of
    rows, or of rows and heads, rows first.
    """
    import torch

    times = -(-len(index) // rows)
    wide = _each(lambda x: torch.cat([x] * times), cache)
    padded = torch.cat([index, index.new_zeros(times * rows - len(index))])

    def cut(before: Tensor, after: Tensor) -> Tensor:
        by_row = after.reshape(len(padded), -1, *after.shape[1:])
        chosen = by_row[index] if after is before else by_row[: len(index)]
        return chosen.flatten(0, 1)

    return _each(cut, wide, model._reorder_cache(wide, padded))


def _each(change: Callable[..., Tensor], *caches: Any) -> Any:
    """Tuples of tuples of tensors, each tensor, or those at the same place in several, changed."""
    first = caches[0]
    if isinstance(first, (tuple, list)):
        return type(first)(_each(change, *parts) for parts in zip(*caches, strict=True))
    return None if first is None else change(*caches)


def _by_object(cache: Any, change: Callable[[Any], None]) -> Any:
    """The tuples after a change in place of the DynamicCache that they stand for."""
    made = library().DynamicCache.from_legacy_cache(cache)
    change(made)
    return made.to_legacy_cache()


def _of_assisted_decoding() -> Callable[[Any, Any, int], Any] | None:
    """The library's own function that crops tuples, (model, tuples, slots kept) -> tuples; it knows who lays them out how."""
    try:
        return getattr(importlib.import_module("transformers.generation.utils"), "_crop_past_key_values", None)
    except ImportError:
        return None


def _refusal(call: Callable[[], object]) -> str | None:
    """What the library says against it, on the past of a first call."""
    try:
        call()
    except Exception as error:  # whatever the library raises
        return first_line(error)
    return None
