"""A causal language model of transformers under the protocol of language models."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attnspec.errors import UsageError
from attnspec.hugging_face.exemptions import lacking
from attnspec.hugging_face.offers import ROOM, Offers
from attnspec.hugging_face.offline import data, library
from attnspec.hugging_face.past import Past
from attnspec.hugging_face.shrink import plain_ids, special_ids
from attnspec.hugging_face.spelling import text_config

if TYPE_CHECKING:
    from torch import Tensor

PROBE = 4  # tokens of the first call: more than one, as a rotation by one and the same angle changes nothing
SLACK = 1e-3  # two right paths differ by less, in units of the largest logit, and two positions by more


@dataclass(frozen=True)
class CausalState:
    """The past of each row: what the library keeps of it, and which of its slots are real tokens.

    Shapes:  mask [B,S], True at a real token.
    Units:   before is the state that the last crop, to `floor` slots, was made from, as far as it may be needed again: a crop
             makes a window forget what it no longer shows, so a crop below the floor starts from there.
    """

    cache: Any
    mask: Tensor
    before: CausalState | None = None
    floor: int = 0

    @property
    def seen(self) -> Tensor:
        """Real tokens of each row [B]."""
        return self.mask.sum(1)


class CausalModel(Offers):
    """logits, start, extend, and reorder, crop, fork as far as the cache has them; `lacks` says why what is missing is.

        extend:  logits of ids after the past; positions count real tokens and are passed if `forward` takes them
        masks:   past and new tokens, or new tokens alone for recurrent models; none where all tokens are real

    `tokens` are the bounds of a range of ids without a meaning of their own; `lacks` speaks of the features of exemptions.py.

    Args:    recording asks layers with a window to keep what leaves it, so that crop is offered; it is another path through
             the library's cache, so leave it out to audit the usual one.
    Shapes:  ids int64 [B,T], attention_mask [B,T] -> logits [B,T,V].
    Errors:  UsageError for a model without logits of that shape; ValueError as the protocol says.
    """

    crop: Callable[[CausalState, int], CausalState]
    fork: Callable[[CausalState], CausalState]
    reorder: Callable[[CausalState, Tensor], CausalState]
    start: Callable[[int], CausalState]
    extend: Callable[..., tuple[Tensor, CausalState]]
    side, attentions_name = "", "attentions"

    def __init__(self, model: Any, *, recording: bool = False) -> None:
        import torch

        self.model = model.requires_grad_(False)  # until gradients are asked for: a cache must not keep how it was computed
        self.caches: dict[str, Callable[[int], CausalState]] = {}
        self.config = text_config(model.config, "decoder")
        self.lacks = lacking(model.config, library().__version__)
        self.special_ids = special_ids(self.config)
        self.accepts = set(inspect.signature(model.forward).parameters)
        self.device = next(model.parameters()).device
        self._first_position: int | None = None
        low, _ = plain_ids(self.config.vocab_size, self.special_ids)
        ids = low + torch.arange(PROBE, device=self.device)[None]
        out = self._forward(ids, use_cache=True)
        logits = out.logits
        if logits.shape[:2] != ids.shape or logits.ndim != 3:
            raise UsageError(
                f"{type(model).__name__}: logits are {tuple(logits.shape)}, not [B,T,V] for ids {tuple(ids.shape)}"
            )
        self.vocab_size = logits.shape[2]
        self.tokens = plain_ids(self.vocab_size, self.special_ids)
        self._first_position = self._asked(ids, logits)
        self.max_length = longest(self.config, data("calls")["positions"]["fields"]) - (self._first_position or 0)
        self.past = Past(model, out, recording=recording)
        self._offer()

    def logits(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """[B,T] -> [B,T,V] in one call, without a cache."""
        return self._logits((ids, attention_mask))

    def inputs(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        state = CausalState(None, self._real(ids, None)[:, :0])
        mask = self._real(ids, attention_mask)
        self._check(mask, state)
        return {"input_ids": ids} | self._hidden(mask, state)

    def _start(self, batch: int) -> CausalState:
        import torch

        return CausalState(None, torch.ones(batch, 0, dtype=torch.bool, device=self.device))

    def _extend(self, ids: Tensor, state: CausalState, attention_mask: Tensor | None = None) -> tuple[Tensor, CausalState]:
        import torch

        mask = self._real(ids, attention_mask)
        self._check(mask, state)
        cache = self.past.begun() if state.cache is None else state.cache
        given = self.past.given(cache, state.mask.shape[1], ids.shape[1], self.accepts)
        out = self._forward(ids, **self._hidden(mask, state), **given, use_cache=True)
        seen = torch.cat([state.mask, mask], 1)
        return out.logits, replace(state, cache=getattr(out, self.past.name), mask=seen)

    def _reorder(self, state: CausalState, index: Tensor) -> CausalState:
        cache = None if state.cache is None else self.past.reorder(state.cache, index, len(state.mask))
        before = None if state.before is None else self._reorder(state.before, index)
        return CausalState(cache, state.mask[index], before, state.floor)

    def _crop(self, state: CausalState, length: int) -> CausalState:
        """The library forgets whole slots; a token that is to go and shares its slot with one that stays is masked out."""
        if length < 0:
            raise ValueError(f"length={length}: a number of real tokens is 0 or more")
        stays = state.mask & (state.mask.cumsum(1) <= length)
        slots = int(stays.any(0).nonzero().max()) + 1 if bool(stays.any()) else 0
        if slots == 0:
            return self._start(len(state.mask))
        if state.before is not None and slots < state.floor:
            return self._crop(state.before, length)
        mask, gone = stays[:, :slots], state.mask.shape[1] - slots
        if "padding-between" in self.lacks and bool((mask != state.mask[:, :slots]).any()):
            raise ValueError(
                f"length={length}: the rows have {state.seen.tolist()} real tokens, and what one of them forgets would lie"
                f" between those that it keeps: {self.lacks['padding-between']}; crop rows of one length"
            )
        if not gone:
            return CausalState(copy.deepcopy(state.cache), mask, state.before, state.floor)
        before, floor = (copy.deepcopy(state), slots) if self.past.recording else (state.before, state.floor)
        return CausalState(self.past.crop(state.cache, slots, gone), mask, before, floor)

    def _caches(self) -> dict[str, Callable[[int], CausalState]]:
        """Other kinds of caches: one of a fixed size, and one that keeps all tokens, also behind a window."""

        def begun(make: Callable[[], Any]) -> Callable[[int], CausalState]:
            return lambda batch: replace(self._start(batch), cache=make())

        room, kinds = min(ROOM, self.max_length), library()
        made = {"StaticCache": lambda: kinds.StaticCache(config=self.model.config, max_cache_len=room)}
        made |= {"DynamicCache": lambda: kinds.DynamicCache()}
        return {name: begun(make) for name, make in made.items() if hasattr(kinds, name)}

    def _fork(self, state: CausalState) -> CausalState:
        return copy.deepcopy(state)

    def _offer(self) -> None:
        """Sets the methods that what holds the past can serve, and says of the others why not."""
        self.lacks |= self.past.lacks
        if self.past.name is None:
            return
        self.start, self.extend, self.fork = self._start, self._extend, self._fork
        if self.past.name == "past_key_values" and not self.past.recording:
            self.caches = self._caches()
        if "reorder" not in self.past.lacks:
            self.reorder = self._reorder
        if "crop" not in self.past.lacks:
            self.crop = self._crop

    def _real(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        import torch

        return torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()

    def _check(self, mask: Tensor, state: CausalState) -> None:
        length = int((state.seen + mask.sum(1)).max())
        if length > self.max_length:
            raise ValueError(
                f"length={length}: a row has at most max_length={self.max_length} real tokens; crop or start anew"
            )

    def _hidden(self, mask: Tensor, state: CausalState) -> dict[str, Any]:
        """The arguments that say which tokens are real and where they stand."""
        import torch

        both = torch.cat([state.mask, mask], 1)
        shown = both if self.past.mask_of == "past and new" else mask
        found: dict[str, Any] = {} if bool(shown.all()) else {"attention_mask": shown.long()}
        if "position_ids" in self.accepts and self._first_position is not None:
            places = state.seen[:, None] + mask.cumsum(1) - 1
            found["position_ids"] = places.clamp(min=0) + self._first_position
        return found

    def _forward(self, ids: Tensor, **arguments: Any) -> Any:
        return self.model(input_ids=ids, **arguments, return_dict=True)

    def _asked(self, ids: Tensor, logits: Tensor) -> int | None:
        """The number of the first position, asked of the model: 0, or behind the id of padding; None if none is taken."""
        import torch

        if "position_ids" not in self.accepts:
            return None
        for first in (0, (self.config.pad_token_id or 0) + 1):
            places = torch.arange(first, first + PROBE, device=self.device)[None]
            other = self._forward(ids, position_ids=places, use_cache=False).logits
            if float((other - logits).abs().max()) <= SLACK * float(logits.abs().max()):
                return first
        self.lacks["positions"] = (
            "positions from 0, or behind the id of padding, are not those that the model takes by itself"
        )
        return None


def longest(config: Any, names: list[str]) -> int:
    """The number of positions that a configuration states, without a limit if it states none."""
    stated = (getattr(config, name, None) for name in names)
    return next((n for n in stated if isinstance(n, int) and n > 0), sys.maxsize)
