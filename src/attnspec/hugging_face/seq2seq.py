"""An encoder-decoder of transformers under the protocol of translators."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attnspec.hugging_face.causal import PROBE, longest
from attnspec.hugging_face.exemptions import lacking
from attnspec.hugging_face.offers import ROOM, Offers
from attnspec.hugging_face.offline import data, library
from attnspec.hugging_face.past import Past
from attnspec.hugging_face.shrink import plain_ids, special_ids
from attnspec.hugging_face.spelling import text_config

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Seq2SeqState:
    """What the encoder made of each source, and the past of each target.

    Shapes:  memory [B,S,M]  source_mask [B,S] or None  mask [B,T], True at a real token.
    """

    cache: Any
    mask: Tensor
    memory: Tensor
    source_mask: Tensor | None

    @property
    def seen(self) -> Tensor:
        """Real tokens of each target [B]."""
        return self.mask.sum(1)


class Seq2SeqModel(Offers):
    """encode, logits, start, extend, and reorder, fork as far as the cache has them; `lacks` says why what is missing is.

    Positions of the target are passed if `forward` takes `decoder_position_ids`: `position_ids` are those of the source.

    Shapes:  source [B,S], target [B,T] int64, masks of their shapes -> memory [B,S,M], logits [B,T,V].
    Errors:  ValueError for more than max_length real tokens in a target, or max_source_length in a source.
    """

    side, attentions_name = "decoder_", "decoder_attentions"
    fork: Callable[[Seq2SeqState], Seq2SeqState]
    reorder: Callable[[Seq2SeqState, Tensor], Seq2SeqState]

    def __init__(self, model: Any) -> None:
        import torch

        self.model = model.requires_grad_(False)  # until gradients are asked for: a cache must not keep how it was computed
        self.config = text_config(model.config, "decoder")
        self.lacks = lacking(model.config, library().__version__)
        self.special_ids = special_ids(self.config)
        self.accepts = set(inspect.signature(model.forward).parameters)
        self.device = next(model.parameters()).device
        limits = data("calls")["positions"]
        self.max_length = longest(self.config, limits["fields"])
        self.max_source_length = longest(text_config(model.config, "encoder"), limits["source"])
        low, _ = plain_ids(self.config.vocab_size, self.special_ids)
        ids = low + torch.arange(PROBE, device=self.device)[None]
        out = self._forward(input_ids=ids, decoder_input_ids=ids, use_cache=True)
        self.vocab_size = out.logits.shape[2]
        self.tokens = plain_ids(self.vocab_size, self.special_ids)
        self.past = Past(model, out)
        self.lacks |= self.past.lacks
        if "reorder" not in self.past.lacks:
            self.reorder = self._reorder
        self.fork = copy.deepcopy
        self.caches = {"StaticCache": self._start_static}
        self.lacks["crop"] = "not in the protocol of translators"

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """[B,S] -> memory [B,S,M]."""
        self._check(_real(source, source_mask), self.max_source_length)
        out = self.model.get_encoder()(input_ids=source, **_masked("attention_mask", source_mask), return_dict=True)
        return out.last_hidden_state  # type: ignore[no-any-return]

    def logits(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> Tensor:
        """[B,S], [B,T] -> [B,T,V] in one call, without a cache; row t reads target[:, :t+1] and the whole source."""
        return self._logits((source, target, source_mask, target_mask))

    def inputs(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> dict[str, Any]:
        real = _real(target, target_mask)
        self._check(real, self.max_length)
        self._check(_real(source, source_mask), self.max_source_length)
        masks = (
            _masked("attention_mask", source_mask) | _masked("decoder_attention_mask", real) | self._places(real, real[:, :0])
        )
        return {"input_ids": source, "decoder_input_ids": target} | masks

    def start(self, memory: Tensor, source_mask: Tensor | None = None) -> Seq2SeqState:
        import torch

        mask = torch.ones(len(memory), 0, dtype=torch.bool, device=self.device)
        return Seq2SeqState(None, mask, memory, None if source_mask is None else source_mask.bool())

    def extend(self, target: Tensor, state: Seq2SeqState, target_mask: Tensor | None = None) -> tuple[Tensor, Seq2SeqState]:
        """[B,T] -> [B,T,V] after the past, and the state with these tokens; may use up the state that it is given."""
        import torch

        real = _real(target, target_mask)
        both = torch.cat([state.mask, real], 1)
        self._check(both, self.max_length)
        outputs = importlib.import_module("transformers.modeling_outputs").BaseModelOutput(last_hidden_state=state.memory)
        masks = _masked("attention_mask", state.source_mask) | self._places(real, state.mask)
        masks |= _masked("decoder_attention_mask", both if self.past.mask_of == "past and new" else real)
        given = self.past.given(state.cache, state.mask.shape[1], target.shape[1], self.accepts)
        out = self._forward(encoder_outputs=outputs, decoder_input_ids=target, **masks, **given, use_cache=True)
        return out.logits, replace(state, cache=getattr(out, self.past.name), mask=both)

    def _start_static(self, memory: Tensor, source_mask: Tensor | None = None) -> Seq2SeqState:
        """A state whose cache of the decoder's own words has a fixed size."""
        transformers, room = library(), min(ROOM, self.max_length)
        own = transformers.StaticCache(config=self.config, max_cache_len=room)
        cache = transformers.EncoderDecoderCache(own, transformers.DynamicCache(config=self.config))
        return replace(self.start(memory, source_mask), cache=cache)

    def _reorder(self, state: Seq2SeqState, index: Tensor) -> Seq2SeqState:
        cache = None if state.cache is None else self.past.reorder(state.cache, index, len(state.mask))
        source_mask = None if state.source_mask is None else state.source_mask[index]
        return Seq2SeqState(cache, state.mask[index], state.memory[index], source_mask)

    def _places(self, real: Tensor, past: Tensor) -> dict[str, Tensor]:
        if "decoder_position_ids" not in self.accepts:
            return {}
        return {"decoder_position_ids": (past.sum(1, keepdim=True) + real.cumsum(1) - 1).clamp(min=0)}

    def _check(self, real: Tensor, most: int) -> None:
        if (length := int(real.sum(1).max())) > most:
            raise ValueError(f"length={length}: a row has at most {most} real tokens; start anew with less")

    def _forward(self, **arguments: Any) -> Any:
        return self.model(**arguments, return_dict=True)


def _real(ids: Tensor, mask: Tensor | None) -> Tensor:
    import torch

    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def _masked(name: str, mask: Tensor | None) -> dict[str, Tensor]:
    """No mask at all where all tokens are real."""
    return {} if mask is None or bool(mask.all()) else {name: mask.long()}
